"""MSF losses on made-up scores against the published loss code."""

import numpy as np
import pytest
import torch

from outspike.detectors.bags import Bags
from outspike.detectors.msf.detector import mil_term, smooth_term
from outspike.detectors.reduce import reduce_terms


def bags_of(lengths, labels, rows):
    num = len(lengths)
    return Bags(
        features={},
        num_snippets=torch.from_numpy(lengths),
        labels=torch.from_numpy(labels).flatten(),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=torch.zeros(num, rows, 2, dtype=torch.int64),
        bag_ids=tuple(map(str, range(num))),
    )


@pytest.mark.golden("msf/losses*.npz", cases=r"in/logits_(\d+)")
def test_losses_and_gradients_equal_the_published_ones(golden):
    """Top-k cross-entropy, variance of normal bags over all columns, and 1 : 80 together."""
    case = golden.case
    logits = torch.from_numpy(golden[f"in/logits_{case}"]).requires_grad_()
    bags = bags_of(golden[f"in/seq_len_{case}"], golden[f"in/labels_{case}"], logits.shape[1])
    k = -(-bags.num_snippets // golden.number(f"in/k_{case}"))
    scores = torch.sigmoid(logits[..., 0])
    mil = mil_term(scores, bags, k)
    smooth = smooth_term(scores, torch.ones_like(scores, dtype=torch.bool), bags, 1.0)
    weighted = smooth_term(scores, torch.ones_like(scores, dtype=torch.bool), bags, 80.0)
    wanted = (("mil", "mil", [mil]), ("smooth", "smooth", [smooth]))
    for loss, grad, terms in (*wanted, ("total_1_80", "total", [mil, weighted])):
        total, log = reduce_terms(terms, torch.ones(len(scores)))
        expected = golden.number(f"loss/{loss}_{case}")
        assert total.item() == pytest.approx(expected, abs=1e-6)
        assert log["total"] == pytest.approx(expected, abs=1e-6)
        (found,) = torch.autograd.grad(total, logits, retain_graph=True)
        np.testing.assert_allclose(found, golden[f"grad/{grad}_{case}"], atol=1e-5, rtol=1e-4)
