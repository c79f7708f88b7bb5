"""Top-k losses of IEF-VAD and of its ancestor on made-up logits."""

import numpy as np
import pytest
import torch

from outspike.detectors.ief_vad.losses import classification_term, multiclass_term
from outspike.detectors.reduce import reduce_terms


def prepare(golden, kind):
    logits = torch.from_numpy(golden[f"in/{kind}_logits"]).requires_grad_()
    labels = torch.from_numpy(golden[f"in/{kind}_labels"])
    lengths = torch.from_numpy(golden["in/lengths"])
    mask = torch.arange(logits.shape[1]) < lengths[:, None]
    return logits, labels, mask, torch.arange(len(logits))[:, None]


def check(golden, kind, logits, term):
    total, _ = reduce_terms([term], torch.ones(len(logits)))
    assert total.item() == pytest.approx(golden.number(f"loss/{kind}"), rel=1e-5)
    total.backward()
    (key,) = [key for key in golden if key.startswith("grad/") and kind in key]
    np.testing.assert_allclose(logits.grad, golden[key], atol=1e-5, rtol=1e-3)


@pytest.mark.golden("ief_vad/losses_topk*.npz")
def test_the_binary_topk_loss_is_the_published_one(golden):
    """Mean of the k highest probabilities of each bag against its label."""
    logits, labels, mask, owners = prepare(golden, "clas2")
    term = classification_term(torch.sigmoid(logits[..., 0]), mask, 1 - labels[:, 0], owners)
    check(golden, "clas2", logits, term)


@pytest.mark.golden("ief_vad/losses_topk*.npz")
def test_the_multiclass_topk_loss_is_the_published_one(golden):
    """Class-wise top-k mean logits through a softmax, labels scaled to sum 1."""
    logits, labels, mask, owners = prepare(golden, "clasm")
    check(golden, "clasm", logits, multiclass_term(logits, mask, labels, owners))
