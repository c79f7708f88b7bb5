"""Two ranks of half a batch take the step that one rank takes with the whole of it.

The file runs itself as the two processes of a gloo group: ``test_ranks.py RANK PORT OUT``.
"""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from outspike.config import (
    AedConfig,
    GvVadConfig,
    IefVadConfig,
    MsfConfig,
    SaaConfig,
    SslsConfig,
)
from outspike.detectors import build
from outspike.detectors.bags import collate
from outspike.detectors.batch_stats import MaskedBatchNorm1d
from outspike.detectors.ssls import Ssls
from outspike.store.bags import Bag

NUM_STEPS = 20
CONFIGS = {
    "msf": MsfConfig(width=16, hidden=4, dropout=0.0),
    "ief_vad": IefVadConfig(
        image_width=8,
        event_width=8,
        width=8,
        num_layers=1,
        num_heads=2,
        refinement_steps=1,
        attention_dropout=0.0,
    ),
    "saa": SaaConfig(
        width=8,
        attention_width=8,
        classifier_widths=(8, 4),
        dropout=0.0,
        guide_steps=NUM_STEPS // 2,
    ),
    "aed": AedConfig(kind="aed", width=20, window=3, hidden=4, down=8, head=6),
    "aed_t": AedConfig(width=20, window=3, hidden=4, down=8, head=6),
    "gv_vad": GvVadConfig(
        visual_width=8,
        text_width=8,
        hidden=8,
        dropout=0.0,
        topk_divisor=2,
        magnitude_weight=0.1,
        magnitude_margin=3.0,
        smooth_weight=0.1,
        sparse_weight=0.1,
        pal_weight=0.1,
        mpl_weight=0.5,
    ),
}
ANOMALOUS = (1, 2, 5)
#: Where bags are paired, halves are equal and dealt as the sampler does: partners share a rank.
ANOMALOUS_PARTNERS = (2, 3, 6, 7)


def make_bags(step, widths, anomalous=ANOMALOUS):
    """Eight bags of very different lengths: whatever is averaged per rank goes wrong."""
    rng = np.random.default_rng(step)
    bags = []
    for i, num_rows in enumerate(rng.integers(1, 12, size=8).tolist()):
        start = np.arange(num_rows, dtype=np.int64) * 16
        bags.append(
            Bag(
                dataset="made-up",
                video_id=f"v{i}",
                features={n: rng.normal(size=(1, num_rows, w)) for n, w in widths.items()},
                start=start,
                stop=start + 16,
                num_frames=16 * num_rows,
                fps=Fraction(25),
                label=int(i in anomalous),
                class_name=None,
                synthetic=i in (2, 6, 7),
                intervals=((3, 16 * num_rows - 2),) if i in anomalous else (),
                group=None,
                split="train",
            )
        )
    return bags


class Objective(nn.Module):
    """Loss of a batch, so that DDP sees one forward."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.detector = build(CONFIGS[name], isolate_stats=True)
        if name == "gv_vad":
            self.detector.bank = torch.randn(4, CONFIGS[name].text_width)
        self.ssls = Ssls(
            SslsConfig(policy="learned", scale=0.7, isolate_stats=True), total_steps=NUM_STEPS
        )

    def forward(self, bags, step):
        return self.ssls.reduce(self.detector.loss(bags, self.detector(bags)), bags, step)


def train(name, rank, size):
    """Losses and everything in the state after some Adam steps in float64."""
    objective = Objective(name).double().train()
    with torch.no_grad():
        for module in objective.modules():
            if isinstance(module, MaskedBatchNorm1d):
                module.bias.fill_(0.7)  # neurons that fire give every parameter a gradient
    wrapped = objective
    if size > 1:
        wrapped = DistributedDataParallel(objective, broadcast_buffers=False)
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-3)
    widths = objective.detector.feature_sets
    losses = []
    for step in range(NUM_STEPS):
        anomalous = ANOMALOUS_PARTNERS if name == "gv_vad" else ANOMALOUS
        share = make_bags(step, widths, anomalous)[rank::size]
        optimiser.zero_grad()
        supervised = objective.detector.needs_frame_labels
        total, log = wrapped(collate(share, step=step, supervised=supervised), step)
        total.backward()
        optimiser.step()
        losses.append([log[key] for key in sorted(log)])
    return {"losses": torch.tensor(losses, dtype=torch.float64), **objective.state_dict()}


def normalise(rank, size):
    """Output, gradients and running statistics of one masked normalisation."""
    torch.manual_seed(1)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    mask = torch.rand(6, 5) < 0.6
    upstream = torch.randn_like(x)
    module = MaskedBatchNorm1d(4).double()
    # The second rank holds five of six bags.
    mine = slice(None) if size == 1 else (slice(0, 1), slice(1, 6))[rank]
    leaf = x[mine].clone().requires_grad_()
    out = module(leaf, mask[mine])
    (grad,) = torch.autograd.grad((out * upstream[mine]).sum(), leaf)
    return {"out": out.detach(), "grad": grad, **module.state_dict()}


def main(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    results = {name: train(name, rank, 2) for name in CONFIGS}
    results["normalise"] = normalise(rank, 2)
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two ranks computed, each in a process of its own."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    platform = Path(__file__).resolve().parents[2] / "platform"
    environment = {**os.environ, "PYTHONPATH": str(platform), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, str(rank), str(port), str(folder)], env=environment)
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_two_ranks_train_exactly_like_one(ranks, name):
    """Losses, buffers, parameters and the learned scale after 20 steps, within 1e-9 relative.

    Biases before a normalisation are left out: their true gradient is zero, and Adam magnifies its
    rounding.
    """
    torch.set_num_threads(1)
    alone = train(name, 0, 1)
    for rank in ranks:
        for key, expected in alone.items():
            if not key.endswith(".conv.bias"):
                torch.testing.assert_close(
                    rank[name][key],
                    expected,
                    rtol=1e-9,
                    atol=1e-11,
                    msg=lambda m, k=key: f"{k}: {m}",
                )


def test_statistics_of_unequal_shares_are_those_of_the_whole(ranks):
    """Outputs, gradients and running statistics of a masked normalisation over two ranks."""
    alone = normalise(0, 1)
    for key, expected in alone.items():
        if key in ("out", "grad"):
            found = torch.cat([rank["normalise"][key] for rank in ranks])
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        else:
            for rank in ranks:
                torch.testing.assert_close(rank["normalise"][key], expected, rtol=1e-9, atol=0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
