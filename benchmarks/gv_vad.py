"""GV-VAD: time and memory of a training step, ours against the naive form that it replaces.

    python benchmarks/gv_vad.py [--half 32] [--crops 10] [--rounds 3] [--device cpu]

The naive form is the published way of computing the same step: captions are repeated for every crop
and go through their temporal block with each of them, streams are concatenated, and the features of
all crops are kept. Both forms start from the same weights and, with dropout off, give the same loss
and gradients, which is checked first on a small batch with the losses as published. Steps of both
are then timed in turn in one process, ours in its default form too; memory is the most that torch
holds at once in a step, parameters, their optimiser state and the batch aside. On a GPU there are
rows with ``torch.compile`` and with bfloat16 as well.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from step_memory import held_and_resident
from torch import Tensor, nn

from outspike.config import GvVadConfig
from outspike.detectors.bags import Bags
from outspike.detectors.build import build
from outspike.detectors.gv_vad import published
from outspike.detectors.gv_vad.detector import GvVad
from outspike.detectors.gv_vad.prompts import similarity, suspected
from outspike.detectors.reduce import reduce_terms

SEGMENTS, WIDTH, PROMPTS = 64, 768, 26
SMALL_WIDTH = 32
Step = Callable[[], float]


def config_of(width: int, dropout: float, *, default_form: bool = False) -> GvVadConfig:
    """The published form, in which both compute the same numbers, or the default one."""
    compat = None if default_form else "gv_vad_2025"
    return GvVadConfig(visual_width=width, text_width=width, dropout=dropout, compat=compat)


def batch(half: int, num_crops: int, width: int, device: str) -> Bags:
    """Random bags, normal ones first."""
    generator = torch.Generator().manual_seed(0)
    num = 2 * half

    def features(crops: int) -> Tensor:
        return torch.randn(num, crops, SEGMENTS, width, generator=generator) * 0.3

    return Bags(
        features={"clip": features(num_crops), "captions": features(1)},
        num_snippets=torch.full((num,), SEGMENTS),
        labels=torch.arange(num).ge(half).float(),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=torch.zeros(num, SEGMENTS, 2, dtype=torch.int64),
        bag_ids=tuple(f"bench/{i}" for i in range(num)),
        draw_keys=torch.arange(num) * 7919,
    ).to(device)


# ------------------------------------------------------------------------------ the naive form


class NaiveBlock(nn.Module):
    """The temporal block under its published names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        q = width // 4

        def branch(outputs: int, dilation: int, bias: bool = True) -> nn.Sequential:
            conv = nn.Conv1d(width, outputs, 3, dilation=dilation, padding=dilation, bias=bias)
            return nn.Sequential(conv, nn.ReLU(), nn.BatchNorm1d(outputs))

        self.conv_1, self.conv_2, self.conv_3 = branch(q, 1), branch(q, 2), branch(q, 4)
        self.conv_4 = nn.Sequential(nn.Conv1d(width, q, 1, bias=False), nn.ReLU())
        self.conv_5 = branch(width, 1, bias=False)
        self.non_local = nn.Module()
        for name in ("g", "theta", "phi"):
            self.non_local.add_module(name, nn.Conv1d(q, q // 2, 1))
        out = nn.Sequential(nn.Conv1d(q // 2, q, 1), nn.BatchNorm1d(q))
        self.non_local.add_module("W", out)

    def forward(self, x: Tensor) -> Tensor:
        """``[M, T, W] -> [M, T, W]``."""
        h = x.permute(0, 2, 1)
        context = self.conv_4(h)
        g, theta, phi = (getattr(self.non_local, name)(context) for name in ("g", "theta", "phi"))
        table = theta.permute(0, 2, 1) @ phi / h.shape[2]
        heard = (table @ g.permute(0, 2, 1)).permute(0, 2, 1).contiguous()
        context = self.non_local.W(heard) + context
        u = torch.cat([self.conv_1(h), self.conv_2(h), self.conv_3(h), context], dim=1)
        mixed: Tensor = self.conv_5(u) + h
        return mixed.permute(0, 2, 1)


class Naive(nn.Module):
    """Detector and losses with every crop computed in full."""

    def __init__(self, config: GvVadConfig) -> None:
        super().__init__()
        self.config = config
        self.Aggregate = NaiveBlock(config.visual_width)
        self.Aggregate_text = NaiveBlock(config.text_width)
        self.fc1 = nn.Linear(config.visual_width + config.text_width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden // 4)
        self.fc3 = nn.Linear(config.hidden // 4, 1)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, visual: Tensor, text: Tensor, bank: Tensor) -> Tensor:
        """Cost of ``visual [2B, C, T, F]`` and ``text [2B, C, T, E]``, normal half first."""
        num, crops = visual.shape[:2]
        v = self.drop(self.Aggregate(visual.flatten(0, 1)))
        s = self.drop(self.Aggregate_text(text.flatten(0, 1)))
        f = torch.cat([v, s], dim=2)
        x = self.drop(F.relu(self.fc2(self.drop(F.relu(self.fc1(f))))))
        scores = torch.sigmoid(self.fc3(x)).view(num, crops, -1).mean(dim=1)
        f = f.view(num, crops, *f.shape[1:])
        magnitude = f.norm(dim=3).mean(dim=1)
        return self._cost(scores, f, magnitude, text[:, min(4, crops - 1)], bank)

    def _cost(
        self, scores: Tensor, f: Tensor, magnitude: Tensor, text: Tensor, bank: Tensor
    ) -> Tensor:
        half, k, c = len(scores) // 2, self.config.published_segments // 10, self.config
        top = (magnitude * self.drop(torch.ones_like(magnitude))).topk(k, dim=1).indices
        video = scores.gather(1, top).mean(dim=1)
        labels = torch.arange(2 * half, device=scores.device).ge(half).to(scores)
        cost = F.binary_cross_entropy(video, labels)
        chosen = torch.stack([f[i][:, top[i]] for i in range(len(f))]).mean(dim=2).norm(dim=2)
        pull = (c.magnitude_margin - chosen[half:]).abs() + chosen[:half]
        cost = cost + c.magnitude_weight * pull.square().mean()
        table = scores.reshape(2 * half * 32, -1)[half * 32 :]
        cost = cost + c.smooth_weight * table.diff(dim=0).square().sum()
        cost = cost + c.sparse_weight * table.norm(dim=0).mean()
        dubious = suspected(
            similarity(text[half:], bank), torch.ones_like(scores[half:], dtype=torch.bool)
        ).to(scores)
        cost = cost + c.pal_weight * F.binary_cross_entropy(1 - scores[half:], dubious)
        rows = f.permute(0, 2, 1, 3).flatten(2)
        normal, anomalous = rows[:half].flatten(0, 1), rows[half:].flatten(0, 1)
        low, lowest, high = (
            value.flatten().topk(len(bank), largest=largest).indices
            for value, largest in (
                (scores[:half], False),
                (scores[half:], False),
                (scores[half:] * dubious, True),
            )
        )
        near = (normal[low] - anomalous[lowest] + 1e-6).norm(dim=1)
        far = (normal[low] - anomalous[high] + 1e-6).norm(dim=1)
        return cost + c.mpl_weight**2 * F.relu(near - far + c.mpl_margin).mean()


# ------------------------------------------------------------------------------------- both


def models(config: GvVadConfig, device: str) -> tuple[GvVad, Naive, Tensor]:
    """Both forms with the same weights, and a bank."""
    torch.manual_seed(0)
    ours = build(config)
    assert isinstance(ours, GvVad)
    naive = Naive(ours.config)
    naive.load_state_dict(published.export_published(ours), strict=True)
    ours.bank = torch.randn(PROMPTS, config.text_width)
    return ours.to(device).train(), naive.to(device).train(), ours.bank.to(device)


def our_loss(model: GvVad, bags: Bags) -> Tensor:
    """Cost of a batch through the terms and the reducer."""
    total, _ = reduce_terms(model.loss(bags, model(bags)), torch.ones_like(bags.labels))
    return total


def naive_loss(model: Naive, bags: Bags, bank: Tensor) -> Tensor:
    """Cost of a batch whose captions are repeated for every crop."""
    visual, text = bags.features["clip"], bags.features["captions"]
    cost: Tensor = model(visual, text.repeat(1, visual.shape[1], 1, 1), bank)
    return cost


def check(device: str) -> None:
    """Same cost and gradients without dropout."""
    ours, naive, bank = models(config_of(SMALL_WIDTH, 0.0), device)
    bags = batch(3, 4, SMALL_WIDTH, device)
    costs = our_loss(ours, bags), naive_loss(naive, bags, bank)
    for cost in costs:
        cost.backward()
    torch.testing.assert_close(costs[0], costs[1], rtol=1e-5, atol=0)
    parameters = dict(naive.named_parameters())
    for key, value in ours.named_parameters():
        expected = parameters[published.NAMES.of(key)].grad
        assert value.grad is not None
        assert expected is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(value.grad, expected, rtol=0, atol=1e-4 * scale + 1e-6)


def stepper(name: str, arguments: argparse.Namespace) -> Step:
    """One optimisation step of a form, as a function that returns its seconds.

    On a CPU those are seconds of processor time, which other work on the machine does not change.
    """
    config = config_of(WIDTH, arguments.dropout, default_form="published" not in name)
    ours, naive, bank = models(config, arguments.device)
    bags = batch(arguments.half, arguments.crops, WIDTH, arguments.device)
    model: nn.Module = naive if name.startswith("naive") else ours
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-3)
    run: Callable[[], Tensor] = (
        (lambda: naive_loss(naive, bags, bank)) if model is naive else lambda: our_loss(ours, bags)
    )
    if "compile" in name:
        compiled = torch.compile(run)
        run = compiled
    cuda = arguments.device.startswith("cuda")

    clock = time.perf_counter if cuda else time.process_time

    def step() -> float:
        if cuda:
            torch.cuda.synchronize()
        began = clock()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(arguments.device, torch.bfloat16, enabled="bf16" in name):
            cost = run()
        cost.backward()
        optimiser.step()
        if cuda:
            torch.cuda.synchronize()
        return clock() - began

    return step


def main() -> None:
    """Check, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--half", type=int, default=32)
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    check(arguments.device)
    names = ["naive", "ours", "ours published"]
    if arguments.device.startswith("cuda"):
        names += [f"{form} {how}" for how in ("compile", "bf16") for form in ("naive", "ours")]
    steps = {name: stepper(name, arguments) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(arguments.rounds + 1):
        for name, step in steps.items():
            seconds = step()
            if round_number:
                times[name].append(seconds)
    memory = {name: held_and_resident(step, arguments.device)[0] for name, step in steps.items()}
    base, base_memory = statistics.median(times["naive"]), memory["naive"]
    print(
        f"{2 * arguments.half} bags, {arguments.crops} crops, {SEGMENTS} x {WIDTH}, "
        f"{arguments.threads} thread(s), {arguments.device}"
    )
    for name in names:
        seconds = statistics.median(times[name])
        print(
            f"{name:<14} {seconds:8.3f} s  x{base / seconds:.2f}   "
            f"{memory[name] / 2**20:8.0f} MiB  {memory[name] / base_memory:.2f} of naive"
        )


if __name__ == "__main__":
    main()
