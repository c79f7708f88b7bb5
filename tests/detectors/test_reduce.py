"""One place where terms become a loss: weights, counts, and what happens to nothing."""

import pytest
import torch

from outspike.detectors.base import LossTerm
from outspike.detectors.reduce import gathered, reduce_terms, split_losses


def term(values, counts, bags, **more):
    return LossTerm(
        name=more.pop("name", "t"),
        values=torch.as_tensor(values, dtype=torch.float32),
        counts=torch.as_tensor(counts, dtype=torch.float32),
        bags=torch.as_tensor(bags, dtype=torch.int64),
        **more,
    )


def test_a_term_is_the_sum_of_values_over_the_sum_of_counts():
    """Longer bags weigh more, and the term's own weight multiplies at the end."""
    terms = [term([2.0, 6.0], [1, 3], [[0], [1]]), term([1.0], [2], [[1]], name="u", weight=10.0)]
    total, log = reduce_terms(terms, torch.ones(2))
    assert total.item() == 2.0 + 10 * 0.5
    assert log == {"t": 2.0, "u": 0.5, "total": 7.0}


def test_weight_one_leaves_every_bit_as_it_was():
    """All-ones weights change neither the loss nor a gradient, whatever the owners."""
    torch.manual_seed(0)
    values = torch.rand(50, requires_grad=True)
    counts = torch.randint(1, 9, (50,)).float()
    owners = torch.randint(0, 6, (50, 3))
    plain = (values.sum() / counts.sum()).float()
    for combine in ("product", "geometric"):
        made = LossTerm(name="t", values=values, counts=counts, bags=owners, combine=combine)
        total, _ = reduce_terms([made], torch.ones(6))
        assert total.item() == pytest.approx(plain.item(), rel=1e-6)
        unweighted = (values * 1).sum() / counts.double().sum().float()
        assert torch.equal(total, unweighted)
        found, expected = (
            torch.autograd.grad(x, values, retain_graph=True)[0] for x in (total, unweighted)
        )
        assert torch.equal(found, expected)


def test_pairs_take_the_product_or_the_geometric_mean_of_their_bags():
    """Owners' weights combine as the term says."""
    omega = torch.tensor([0.25, 1.0, 0.0])
    pairs = [[0, 1], [0, 0], [1, 2]]
    product, _ = reduce_terms([term([1.0, 10.0, 100.0], [1, 1, 1], pairs)], omega)
    assert product.item() == pytest.approx((0.25 + 0.625) / 3)
    geometric, _ = reduce_terms(
        [term([1.0, 10.0, 100.0], [1, 1, 1], pairs, combine="geometric")], omega
    )
    assert geometric.item() == pytest.approx((0.5 + 2.5) / 3)


def test_dividing_by_weights_gives_a_weighted_mean():
    """``normalise="weight"`` keeps the scale of the loss when bags are turned down."""
    terms = [term([4.0, 8.0], [1, 1], [[0], [1]])]
    total, _ = reduce_terms(terms, torch.tensor([1.0, 0.5]), normalise="weight")
    assert total.item() == pytest.approx(8 / 1.5)


def test_a_term_without_units_is_zero_and_differentiable():
    """No normal bag in the batch: the term vanishes instead of becoming NaN."""
    values = torch.zeros(0, requires_grad=True)
    empty = LossTerm(
        name="t", values=values, counts=torch.zeros(0), bags=torch.zeros(0, 1, dtype=torch.int64)
    )
    total, log = reduce_terms([empty], torch.ones(2))
    total.backward()
    assert total.item() == 0.0
    assert log["t"] == 0.0


def test_real_and_synthetic_losses_are_told_apart():
    """Each group by its own mean; a pair with one synthetic owner is synthetic."""
    synthetic = torch.tensor([False, True])
    terms = [
        term([2.0, 4.0], [1, 1], [[0], [1]]),
        term([3.0, 5.0], [1, 1], [[0, 0], [0, 1]], name="u", weight=2.0),
    ]
    assert split_losses(terms, synthetic) == (2.0 + 6.0, 4.0 + 10.0)


def test_units_of_all_ranks_bags_are_weighted_alike_in_one_process():
    """A term whose owners are counted over all ranks is the same term where there is one rank."""
    omega = torch.tensor([0.25, 1.0, 0.5])
    owners = [[0, 1], [2, 2], [1, 1]]
    one, _ = reduce_terms([term([1.0, 2.0, 3.0], [1, 1, 1], owners)], omega)
    all_ranks, _ = reduce_terms([term([1.0, 2.0, 3.0], [1, 1, 1], owners, scope="world")], omega)
    assert torch.equal(one, all_ranks)
    synthetic = torch.tensor([True, False, False])
    made = [term([1.0, 2.0, 3.0], [1, 1, 1], owners, scope="world")]
    assert split_losses(made, synthetic) == (2.5, 1.0)
    rows, first = gathered(omega)
    assert torch.equal(rows, omega)
    assert first == 0
