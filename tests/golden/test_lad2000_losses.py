"""Multiple-instance losses published beside AED."""

import numpy as np
import pytest
import torch

from outspike.detectors.aed.mil_losses import hinge, kmax_term, soft_cross_entropy
from outspike.detectors.bags import Bags
from outspike.detectors.msf.detector import smooth_term
from outspike.detectors.reduce import reduce_terms


def tensor(array):
    return torch.from_numpy(np.array(array))


def bags_of(golden, rows):
    num = len(golden["in/labels"])
    return Bags(
        features={},
        num_snippets=tensor(golden["in/seq_len"]),
        labels=tensor(golden["in/labels"]),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=torch.zeros(num, rows, 2, dtype=torch.int64),
        bag_ids=tuple(f"golden/{i}" for i in range(num)),
    )


def reduced(golden, make):
    """A term's value and the gradient of the logits."""
    logits = tensor(golden["in/element_logits"])[..., 0].requires_grad_()
    bags = bags_of(golden, logits.shape[1])
    total, log = reduce_terms([make(logits, bags)], torch.ones(bags.num_bags))
    (gradient,) = torch.autograd.grad(total, logits)
    return log["total"], gradient


@pytest.mark.golden("lad2000/kmxmil*.npz")
@pytest.mark.parametrize(("error", "name"), [("entropy", "CE"), ("square", "MSE")])
def test_the_highest_scores_are_judged_as_published(golden, error, name):
    """Value and gradients of both errors, pooled over bags of different length."""
    value, gradient = reduced(
        golden, lambda x, bags: kmax_term(x, bags, golden.number("in/k"), error)
    )
    assert value == pytest.approx(golden.number(f"loss/kmxmil_{name}"), abs=1e-6)
    expected = golden[f"grad/element_logits_{name}"][..., 0]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.golden("lad2000/kmxmil*.npz")
def test_the_variance_of_normal_videos_is_the_published_one(golden):
    """Unbiased, over all rows, padding included."""
    value, gradient = reduced(
        golden, lambda x, bags: smooth_term(x, torch.ones_like(bags.mask), bags, 1.0)
    )
    assert value == pytest.approx(golden.number("loss/normal_smooth"), abs=1e-6)
    expected = golden["grad/element_logits_smooth"][..., 0]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.golden("lad2000/kmxmil*.npz")
def test_soft_targets_and_the_hinge_are_the_published_ones(golden):
    """Cross-entropy with distributions as targets, mean and sum; the hinge of score pairs."""
    logits, target = tensor(golden["in/ce_logits"]), tensor(golden["in/ce_target"])
    for reduction in ("mean", "sum"):
        found = soft_cross_entropy(logits, target, reduction=reduction)
        assert found.item() == pytest.approx(golden.number(f"loss/soft_ce_{reduction}"), abs=1e-6)
    found = hinge(tensor(golden["in/hinge_a"]), tensor(golden["in/hinge_n"]))
    np.testing.assert_allclose(found, golden["out/hinge"], atol=1e-6)
