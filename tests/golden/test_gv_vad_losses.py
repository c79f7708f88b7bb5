"""Loss terms of GV-VAD by themselves, on stored scores and features."""

import numpy as np
import pytest
import torch

from outspike.config import GvVadConfig, SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.base import LossTerm, own_bags
from outspike.detectors.gv_vad import losses
from outspike.detectors.gv_vad.prompts import (
    rank_triplets,
    similarity,
    suspected,
    triplet_loss,
)
from outspike.detectors.reduce import reduce_terms
from outspike.detectors.ssls import Ssls

PUBLISHED = GvVadConfig(compat="gv_vad_2025")


def tensor(array):
    return torch.from_numpy(np.array(array))


def bags_of(half, num_rows, synthetic=0):
    """Normal bags, then as many anomalous ones, the last ``synthetic`` of them generated."""
    return Bags(
        features={},
        num_snippets=torch.full((2 * half,), num_rows),
        labels=torch.arange(2 * half).ge(half).float(),
        class_ids=torch.full((2 * half,), -1),
        synthetic=torch.arange(2 * half) >= 2 * half - synthetic,
        frame_ranges=torch.zeros(2 * half, num_rows, 2, dtype=torch.int64),
        bag_ids=tuple(f"golden/{i}" for i in range(2 * half)),
    )


def given(name, value, bags, weight):
    """A term that the file holds as a number."""
    owners = own_bags(bags)
    return LossTerm(
        name=name,
        values=value.expand(len(owners)),
        counts=torch.ones(len(owners)),
        bags=owners,
        weight=weight,
    )


def stored_inputs(golden):
    keys = ("score_abnormal", "score_normal", "feat_select_abn", "feat_select_normal", "scores")
    inputs = {key: tensor(golden[f"in/{key}"]) for key in (*keys, "pal", "mpl_times_gama")}
    return {key: value.requires_grad_() for key, value in inputs.items()}


def published_terms(inputs, *, extra=True):
    """All terms of the published cost from its stored inputs."""
    half, num_rows = len(inputs["score_normal"]), inputs["scores"].shape[1]
    bags = bags_of(half, num_rows)
    video = torch.cat([inputs["score_normal"], inputs["score_abnormal"]])[:, 0]
    # Stored crop by crop, all bags of one crop together.
    by_crop = [
        inputs[f"feat_select_{kind}"].mean(dim=1).unflatten(0, (-1, half)).transpose(0, 1)
        for kind in ("normal", "abn")
    ]
    terms = [
        losses.classification_term(video, bags, PUBLISHED),
        losses.magnitude_term(torch.cat(by_crop), bags, PUBLISHED),
    ]
    if extra:
        snippet = inputs["scores"][..., 0]
        terms += [
            losses.published_smooth_term(snippet, bags, PUBLISHED.smooth_weight),
            losses.published_sparse_term(snippet, bags, PUBLISHED.sparse_weight),
            given("pal", inputs["pal"], bags, PUBLISHED.pal_weight),
            given("mpl", inputs["mpl_times_gama"], bags, PUBLISHED.mpl_weight),
        ]
    return terms, bags


@pytest.mark.golden("gv_vad/loss_cases*.npz")
def test_the_cost_and_its_gradients_are_the_published_ones(golden):
    """SMOOTH and SPARSE by value, and the gradient of the whole cost in every input."""
    inputs = stored_inputs(golden)
    terms, bags = published_terms(inputs)
    total, log = reduce_terms(terms, torch.ones(bags.num_bags))
    weight = {term.name: term.weight for term in terms}
    for ours, theirs in (("smooth", "smooth_weighted"), ("sparse", "sparsity_weighted")):
        found = log[ours] * weight[ours]
        assert found == pytest.approx(golden.number(f"loss/{theirs}"), rel=1e-6)
    total.backward()
    for key, expected in golden.group("grad/").items():
        if key in inputs:
            tolerance = 3e-5 * np.abs(expected).max()
            np.testing.assert_allclose(
                inputs[key].grad, expected, atol=tolerance, rtol=0, err_msg=key
            )


@pytest.mark.golden("gv_vad/loss_cases*.npz")
def test_every_scaled_cost_is_the_published_one(golden):
    """Cost, total and gradients in all combinations of scale, share, schedule and step."""
    columns = ("learnable", "vlr", "synth_fraction", "strategy", "step", "extra_loss")
    cases = zip(*(golden[f"in/case_{name}"].tolist() for name in columns), strict=True)
    for number, (learnable, value, share, strategy, step, extra) in enumerate(cases):
        inputs = stored_inputs(golden)
        terms, bags = published_terms(inputs, extra=extra)
        config = SslsConfig(
            mode="batch_scalar",
            policy="learned" if learnable else "fixed" if strategy == "None" else "schedule",
            scale=value,
            schedule=None if strategy == "None" else strategy,
        )
        half = bags.num_bags // 2
        assert share * half == pytest.approx(round(share * half))
        bags.synthetic = bags_of(half, 1, round(share * half)).synthetic
        ssls = Ssls(config, total_steps=1000)
        total, log = ssls.reduce(terms, bags, step)
        total.backward()
        cost = reduce_terms(terms, torch.ones(bags.num_bags))[0]
        expected = {name: golden[f"loss/case_{name}"][number] for name in ("cost", "total")}
        assert cost.item() == pytest.approx(expected["cost"], rel=1e-6)
        assert total.item() == pytest.approx(expected["total"], rel=1e-6, abs=1e-9)
        assert log["total"] == pytest.approx(expected["total"], rel=1e-6, abs=1e-9)
        scale_gradient = golden["grad/case_vlr"][number]
        assert np.isnan(scale_gradient) != learnable
        if learnable:
            assert float(ssls.rho.grad) == pytest.approx(scale_gradient, rel=1e-5, abs=1e-6)
        videos = inputs["score_abnormal"].grad.sum()
        expected_sum = golden["grad/case_score_abnormal_sum"][number]
        assert float(videos) == pytest.approx(expected_sum, rel=1e-5, abs=1e-7)
        snippets = inputs["scores"].grad
        found = 0.0 if snippets is None else float(snippets.abs().sum())
        expected_sum = golden["grad/case_scores_abs_sum"][number]
        assert found == pytest.approx(expected_sum, rel=1e-5, abs=1e-7)


@pytest.mark.golden("gv_vad/loss_cases*.npz")
def test_prompts_pick_the_published_snippets(golden):
    """Suspected snippets, the three members of every triplet in order, and both losses."""
    normal, anomalous = (
        tensor(golden[f"in/mpl/{k}_scores"])[..., 0] for k in ("normal", "abnormal")
    )
    text, bank = tensor(golden["in/mpl/text"]), tensor(golden["in/mpl/bank"])
    half, num_rows = normal.shape
    bags = bags_of(half, num_rows)
    dubious = suspected(similarity(text, bank), torch.ones(half, num_rows, dtype=torch.bool))
    np.testing.assert_array_equal(dubious, golden["out/mpl/abn_index"][..., 0] == 1)
    everywhere = torch.cat([torch.zeros_like(dubious), dubious])
    scores = torch.cat([normal, anomalous])
    triplets = rank_triplets(scores, everywhere, bags.mask, bags, len(bank), suspected_only=False)
    stored = [tensor(golden[f"in/mpl/{kind}_features"]) for kind in ("normal", "abnormal")]
    features = triplets.features((torch.cat(stored, dim=1).transpose(0, 1),))
    for place, kind in enumerate(("anchor", "positive", "negative")):
        expected = golden[f"out/mpl/{kind}"].reshape(len(bank), -1)
        np.testing.assert_array_equal(features[:, place], expected, err_msg=kind)
    loss = triplet_loss(features, PUBLISHED.mpl_margin).mean()
    assert float(loss) == pytest.approx(golden.number("loss/mpl_triplet"), rel=1e-6)
    term = losses.suspicion_term(scores, everywhere, bags, PUBLISHED)
    found = float(term.values.sum() / term.counts.sum())
    assert found == pytest.approx(golden.number("loss/pal"), rel=1e-6)
