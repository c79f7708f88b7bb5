"""SSLS as published (one scalar on the whole batch cost) against the published loss code."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from outspike.config import SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.base import LossTerm
from outspike.detectors.ssls import Ssls, batch_scalar_factor, schedule_value


@pytest.mark.golden("gv_vad/loss_cases*.npz")
def test_schedules_are_the_published_tables(golden):
    """Every stored schedule, also past the end of the run, where the published one goes on."""
    epochs = golden["in/schedule_epoch"].tolist()
    for name, expected in zip(golden["in/schedule_names"], golden["out/schedule"], strict=True):
        found = [schedule_value(str(name), epoch, 1000, clamp=False) for epoch in epochs]
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=str(name))


def cases(golden):
    names = ("learnable", "vlr", "synth_fraction", "strategy", "step")
    columns = [golden[f"in/case_{name}"].tolist() for name in names]
    outcomes = [
        golden[f"{key}_{name}"]
        for key, name in (("loss/case", "cost"), ("loss/case", "total"), ("grad/case", "vlr"))
    ]
    return zip(*columns, *outcomes, strict=True)


@pytest.mark.golden("gv_vad/loss_cases*.npz")
def test_the_published_factor_scales_every_case(golden):
    """Cost to total, and the gradient of a learned scale, in all stored combinations."""
    for learnable, value, share, strategy, step, cost, total, grad in cases(golden):
        scale = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        name = None if strategy == "None" else strategy
        found = float(cost) * batch_scalar_factor(share, scale, name, step)
        assert found.item() == pytest.approx(float(total), rel=1e-6, abs=1e-9)
        if learnable:
            found.backward()
            assert scale.grad.item() == pytest.approx(float(grad), rel=1e-5, abs=1e-6)


def batch(share):
    """Half normal, half anomalous bags, a share of the latter synthetic; normal flags ignored."""
    num = 2 * Fraction(share).limit_denominator(1000).denominator
    labels = torch.arange(2 * num) // num
    synthetic = (labels == 1) & (torch.arange(2 * num) % num < round(share * num))
    synthetic[0] = True
    return Bags(
        features={},
        num_snippets=torch.ones(2 * num, dtype=torch.int64),
        labels=labels.float(),
        class_ids=labels,
        synthetic=synthetic,
        frame_ranges=torch.zeros(2 * num, 1, 2, dtype=torch.int64),
        bag_ids=tuple(map(str, range(2 * num))),
    )


@pytest.mark.golden("gv_vad/loss_cases*.npz")
def test_batch_scalar_mode_repeats_the_published_totals(golden):
    """The mode itself, driven by a batch with the stored share of synthetic anomalies."""
    for learnable, value, share, strategy, step, cost, total, grad in cases(golden):
        policy = "learned" if learnable else "fixed" if strategy == "None" else "schedule"
        schedule = None if strategy == "None" else strategy
        config = SslsConfig(mode="batch_scalar", policy=policy, scale=value, schedule=schedule)
        ssls = Ssls(config, total_steps=1000)
        bags = batch(share)
        values = torch.full((bags.num_bags,), float(cost), dtype=torch.float64)
        owners = torch.arange(bags.num_bags)[:, None]
        term = LossTerm(name="cost", values=values, counts=torch.ones_like(values), bags=owners)
        found, log = ssls.reduce([term], bags, step)
        assert found.item() == pytest.approx(float(total), rel=1e-6, abs=1e-9)
        assert log["total"] == pytest.approx(float(total), rel=1e-6, abs=1e-9)
        if learnable:
            found.backward()
            assert ssls.rho.grad.item() == pytest.approx(float(grad), rel=1e-5, abs=1e-6)
