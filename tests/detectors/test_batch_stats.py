"""Batch statistics over chosen rows: the standard module where it applies, its maths elsewhere."""

import pytest
import torch
from torch import nn

from outspike.detectors.batch_stats import MaskedBatchNorm1d
from outspike.errors import BagError


def pair(channels=4, **settings):
    torch.manual_seed(0)
    standard = nn.BatchNorm1d(channels, **settings)
    if standard.affine:
        nn.init.normal_(standard.weight)
        nn.init.normal_(standard.bias)
    ours = MaskedBatchNorm1d(channels, **settings)
    ours.load_state_dict(standard.state_dict())
    return standard, ours


def test_without_a_mask_it_is_the_standard_module_bit_for_bit():
    """Outputs, gradients and running statistics, in training and in evaluation."""
    standard, ours = pair()
    for training in (True, True, False):
        x = torch.randn(3, 4, 7)
        results = []
        for module in (standard, ours):
            module.train(training)
            leaf = x.clone().requires_grad_()
            out = module(leaf)
            (grad,) = torch.autograd.grad(out.square().sum(), leaf)
            results.append((out, grad))
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b)
    for key, value in standard.state_dict().items():
        assert torch.equal(value, ours.state_dict()[key])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_masked_statistics_are_those_of_the_chosen_rows(momentum):
    """Equal to the standard module fed with the chosen rows alone, gradients included."""
    standard, ours = pair(momentum=momentum)
    standard.double(), ours.double()
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(5, 4, 6, dtype=torch.float64, requires_grad=True)
        mask = torch.rand(5, 6) < 0.6
        expected = standard(x.transpose(1, 2)[mask])
        found = ours(x, mask).transpose(1, 2)[mask]
        torch.testing.assert_close(found, expected)
        upstream = torch.randn_like(expected)
        for a, b in zip(
            torch.autograd.grad((found * upstream).sum(), (x, ours.weight, ours.bias)),
            torch.autograd.grad((expected * upstream).sum(), (x, standard.weight, standard.bias)),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    for key, value in standard.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


def test_rows_left_out_reach_neither_the_statistics_nor_their_gradient():
    """Even infinite values outside the mask leave the chosen rows as they are."""
    _, ours = pair()
    x = torch.randn(2, 4, 5)
    mask = torch.tensor([[True] * 5, [False] * 5])
    clean = ours(x, mask)[0]
    x[1] = torch.inf
    x.requires_grad_()
    dirty = ours(x, mask)[0]
    assert torch.equal(clean, dirty)
    (grad,) = torch.autograd.grad(dirty.square().sum(), x)
    assert torch.equal(grad[1], torch.zeros_like(grad[1]))


def test_a_batch_without_any_chosen_row_is_refused():
    """No statistics of nothing."""
    _, ours = pair()
    with pytest.raises(BagError, match="batch statistics"):
        ours(torch.randn(2, 4, 3), torch.zeros(2, 3, dtype=torch.bool))


def test_without_affine_parameters_or_tracking():
    """The optional parts of the standard module stay optional."""
    standard, ours = pair(affine=False, track_running_stats=False)
    x = torch.randn(3, 4, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(ours(x, mask), standard(x))
