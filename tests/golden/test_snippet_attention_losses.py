"""SAA's loss terms against vectors derived from the formulas of its specification."""

import dataclasses

import numpy as np
import pytest
import torch

from outspike.config import SaaConfig
from outspike.detectors.reduce import reduce_terms
from outspike.detectors.saa.losses import loss_terms

BRANCHES = {"score": "o", "attended": "a", "suppressed_score": "so", "suppressed_attended": "sa"}


def reduced(golden, step, **settings):
    """Logged terms and gradients of scores and attention."""
    epsilon, alpha, norm, smooth, guide_steps = golden["in/eps_alpha_gamma_mu_M"].tolist()
    config = dataclasses.replace(
        SaaConfig(**settings),
        epsilon=epsilon,
        alpha=alpha,
        norm_weight=norm,
        smooth_weight=smooth,
        guide_steps=int(guide_steps),
    )
    scores, attention = (
        torch.from_numpy(golden[f"in/{name}"]).clone().requires_grad_()
        for name in ("scores", "attn")
    )
    assert golden.number("in/k") == scores.shape[1] // 16 + 1
    num = len(scores)
    terms = loss_terms(
        scores,
        attention,
        mask_NT=torch.ones_like(scores, dtype=torch.bool),
        labels_N=torch.from_numpy(golden["in/labels"]),
        owners=torch.arange(num)[:, None],
        step=step,
        config=config,
    )
    total, log = reduce_terms(terms, torch.ones(num))
    return log, torch.autograd.grad(total, (scores, attention))


@pytest.mark.golden("snippet_attention/derived_losses*.npz", cases=r"loss/(step\d+)/")
@pytest.mark.parametrize(
    ("reduction", "total", "sum_or_mean"),
    [("mean", "total_default", "mean"), ("literal", "total_literal", "sum")],
)
def test_every_term_and_the_gradients_are_the_derived_ones(golden, reduction, total, sum_or_mean):
    """Before and after attention turns to confident scores, as means and as literal sums."""
    step = int(golden.case.removeprefix("step"))
    log, gradients = reduced(golden, step, reduction=reduction)
    expected = golden.group(f"loss/{golden.case}/")
    pairs = {name: f"cls_topk_{short}" for name, short in BRANCHES.items()}
    pairs |= {"guide_normal": "guide_neg", "guide_anomalous": "guide_pos", "smooth": "smooth_sum"}
    pairs |= {"norm": f"norm_{sum_or_mean}", "sparse": f"sparse_{sum_or_mean}", "total": total}
    for name, key in pairs.items():
        assert log[name] == pytest.approx(expected[key].item(), rel=1e-6), name
    for found, name in zip(gradients, ("scores", "attn"), strict=True):
        wanted = golden[f"grad/{golden.case}/{total}/{name}"]
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-5, err_msg=name)


@pytest.mark.golden("snippet_attention/derived_losses*.npz", cases=r"loss/(step\d+)/")
def test_classification_of_every_snippet_is_the_other_reading(golden):
    """The form of the public re-implementation, in which suppressed snippets cost 100 each."""
    step = int(golden.case.removeprefix("step"))
    log, _ = reduced(golden, step, classification="snippet")
    expected = golden.group(f"loss/{golden.case}/")
    for name, short in BRANCHES.items():
        assert log[name] == pytest.approx(expected[f"cls_snippet_{short}"].item(), rel=1e-5), name
    alpha = golden["in/eps_alpha_gamma_mu_M"][1]
    weighted = sum(
        (alpha if "suppressed" not in name else 1 - alpha) * log[name] for name in BRANCHES
    )
    assert weighted == pytest.approx(expected["cls_snippet"].item(), rel=1e-5)
