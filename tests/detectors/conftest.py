"""Made-up bags for detector tests."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from outspike.config import SslsConfig
from outspike.detectors.bags import Bags, collate
from outspike.detectors.ssls import Ssls
from outspike.store.bags import Bag


def make_bag(
    name, num_rows, widths, *, label=0, synthetic=False, num_crops=1, seed=0, class_name=None
):
    """A stored bag whose features lie on the 1/256 grid, so that sums of few of them are exact.

    An anomalous one is so in all but its first and last four frames.
    """
    rng = np.random.default_rng([seed, num_rows, *map(ord, name)])
    start = np.arange(num_rows, dtype=np.int64) * 16
    return Bag(
        dataset="made-up",
        video_id=name,
        features={
            key: (rng.integers(0, 257, (num_crops, num_rows, width)) / 256).astype(np.float16)
            for key, width in widths.items()
        },
        start=start,
        stop=start + 16,
        num_frames=16 * num_rows,
        fps=Fraction(25),
        label=label,
        class_name=class_name,
        synthetic=synthetic,
        intervals={0: (), 1: ((4, 16 * num_rows - 4),)}.get(label),
        group=None,
        split="train",
    )


@pytest.fixture
def bag():
    """Build one stored bag."""
    return make_bag


@pytest.fixture
def batch():
    """Build a collated batch: lengths and labels in, ``Bags`` out."""

    def build(
        lengths,
        widths,
        *,
        labels=None,
        synthetic=None,
        step=0,
        dtype=None,
        supervised=False,
        **more,
    ) -> Bags:
        labels = labels or [i % 2 for i in range(len(lengths))]
        synthetic = synthetic or [False] * len(lengths)
        bags = [
            make_bag(f"v{i}", n, widths, label=labels[i], synthetic=synthetic[i], **more)
            for i, n in enumerate(lengths)
        ]
        return collate(bags, step=step, supervised=supervised).to("cpu", dtype)

    return build


def make_separable(widths):
    """Eight bags of twelve rows; every other one is anomalous in rows 4 to 7, and looks it."""
    bags = [make_bag(f"v{i}", 12, widths, label=i % 2) for i in range(8)]
    for i in range(1, 8, 2):
        for rows in bags[i].features.values():
            rows[:, 4:8, : rows.shape[2] // 2] += 2
        bags[i] = dataclasses.replace(bags[i], intervals=((4 * 16, 8 * 16),))
    return bags


def train(detector, bags, *, num_steps, lr, optimiser=torch.optim.Adam, **collating):
    """Take steps on all bags at once, without synthetic ones; leaves the detector in eval mode."""
    ssls = Ssls(SslsConfig(), total_steps=num_steps)
    steps = optimiser(detector.train().parameters(), lr=lr)
    for step in range(num_steps):
        batch = collate(bags, step=step, **collating)
        steps.zero_grad()
        total, _ = ssls.reduce(detector.loss(batch, detector(batch)), batch, step)
        total.backward()
        steps.step()
    detector.eval()


@pytest.fixture
def scores_of_trained():
    """Train a detector on separable bags, and score them: those of normal bags, of anomalous bags
    before the anomaly, and of the anomaly.
    """

    def build(detector, **training):
        bags = make_separable(detector.feature_sets)
        train(detector, bags, **training)
        with torch.no_grad():
            scores = detector(collate(bags)).snippet
        return scores[::2], scores[1::2, :4], scores[1::2, 4:8]

    return build


@pytest.fixture(autouse=True)
def one_thread():
    """Bits of sums depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
