"""MSF in its default form: a bag's score is its own; training moves it the right way."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.config import MsfConfig, SslsConfig
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.msf import graph, published
from outspike.detectors.ssls import Ssls
from outspike.errors import BagError, CheckpointError, ConfigError

SMALL = MsfConfig(width=16, hidden=4, dropout=0.5)


def lively(config, seed=0):
    """A detector whose neurons fire: wide weights on a dyadic grid, a normalisation that shifts."""
    torch.manual_seed(seed)
    detector = build(config)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.copy_((torch.randn_like(parameter) * 0.6 * 64).round() / 64)
        detector.fusion.tim.weight[:, :, 1] += 0.5
        for branch in detector.fusion.branches:
            branch.norm.weight.fill_(1.0)
            branch.norm.bias.fill_(0.5)
    return detector


def margins_hold(detector, bags, scores):
    """Whether a change of rounding could not have flipped a spike: noise flips none."""
    noisy = {name: rows * (1 + 1e-6) for name, rows in bags.features.items()}
    other = detector(dataclasses.replace(bags, features=noisy)).snippet
    return (other - scores).abs().max() < 1e-4


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 14), min_size=2, max_size=5),
    extra=st.integers(0, 9),
    seed=st.integers(0, 50),
)
def test_padding_and_company_never_change_a_score(bag, lengths, extra, seed):
    """Alone, in a batch, in another order, or padded further: the same bits, zeros past the end.

    Inputs and weights lie on dyadic grids, so what is not a spike is exact whatever the order of
    sums; a draw in which rounding could flip a spike says nothing and is left out.
    """
    detector = lively(SMALL, seed).eval()
    widths = detector.feature_sets
    bags = [bag(f"v{i}", n, widths, seed=seed) for i, n in enumerate(lengths)]
    longest = bag("longest", max(lengths) + extra, widths, seed=seed)
    with torch.no_grad():
        batch = collate(bags)
        together = detector(batch).snippet
        if not margins_hold(detector, batch, together):
            return
        turned = detector(collate([longest, *bags[::-1]])).snippet[1:].flip(0)
        for i, n in enumerate(lengths):
            alone = detector(collate([bags[i]])).snippet[0]
            assert torch.equal(together[i, :n], alone)
            assert torch.equal(turned[i, :n], alone)
            assert not together[i, n:].any()
            assert not turned[i, n:].any()


def test_neurons_fire_in_these_tests(batch):
    """The invariances above are about a network that spikes, not about a silent one."""
    detector = lively(SMALL).eval()
    bags = batch([12, 12, 12], detector.feature_sets)
    rows = bags.features["event-pyramid"][:, 0]
    with torch.no_grad():
        features, _ = detector.features(rows, mask=bags.mask)
    rate = (features - rows).mean()
    assert 0.05 < rate < 0.95
    assert detector(bags).snippet.std() > 0.05


def test_padding_changes_no_gradient_either(batch):
    """Training mode with dropout: a longer neighbour moves statistics, mere padding nothing."""
    detector = lively(SMALL).double().train()
    ssls = Ssls(SslsConfig(), total_steps=1)
    bags = batch([5, 9, 7, 9], detector.feature_sets, dtype=torch.float64)
    longer = dataclasses.replace(
        bags,
        features={k: torch.nn.functional.pad(v, (0, 0, 0, 6)) for k, v in bags.features.items()},
        frame_ranges=torch.nn.functional.pad(bags.frame_ranges, (0, 0, 0, 6)),
    )
    outcomes = []
    for case in (bags, longer):
        detector.zero_grad()
        total, _ = ssls.reduce(detector.loss(case, detector(case)), case, 0)
        total.backward()
        outcomes.append([total, *(p.grad.clone() for p in detector.parameters())])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_evaluation_repeats_itself_and_leaves_no_trace(batch):
    """Eval is really eval: no dropout, no statistics gathered, nothing remembered."""
    detector = lively(SMALL).eval()
    bags = batch([6, 3], detector.feature_sets)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    first, second = detector(bags).snippet, detector(bags).snippet
    assert torch.equal(first, second)
    for key, value in detector.state_dict().items():
        assert torch.equal(before[key], value), key


def test_every_training_forward_starts_from_rest(batch):
    """Membranes of one forward do not reach the next, in training either."""
    detector = lively(dataclasses.replace(SMALL, dropout=0.0)).train()
    bags = batch([6, 3], detector.feature_sets)
    assert torch.equal(detector(bags).snippet, detector(bags).snippet)


def test_dropout_belongs_to_seed_step_and_bag(batch):
    """The same step draws the same mask in any order of bags; another step draws another."""
    detector = lively(SMALL).train()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    bags = batch([6, 6, 6], detector.feature_sets, step=4)
    scores = detector(bags).snippet
    torch.testing.assert_close(detector(bags.take([2, 0, 1])).snippet, scores[[2, 0, 1]])
    later = batch([6, 6, 6], detector.feature_sets, step=5)
    assert not torch.equal(detector(later).snippet, scores)


def test_a_training_forward_without_draw_keys_is_refused(bag):
    """Dropout that nothing seeds would make runs irreproducible in silence."""
    detector = lively(SMALL).train()
    with pytest.raises(BagError, match="draw keys"):
        detector(collate([bag("v", 3, detector.feature_sets)]))


def test_crops_are_scored_apart_and_averaged(bag):
    """Ten crops give the mean of ten one-crop scores."""
    detector = lively(SMALL).eval()
    ten = bag("v", 5, detector.feature_sets, num_crops=10)
    with torch.no_grad():
        together = detector(collate([ten])).snippet
        alone = []
        for crop in range(10):
            rows = {k: v[crop : crop + 1] for k, v in ten.features.items()}
            alone.append(detector(collate([dataclasses.replace(ten, features=rows)])).snippet)
    torch.testing.assert_close(together, torch.stack(alone).mean(dim=0))


@pytest.mark.parametrize("compat", [None, "msf_2025"])
def test_one_snippet_is_enough(batch, compat):
    """A bag of a single snippet has a score, a finite loss and finite gradients."""
    detector = lively(dataclasses.replace(SMALL, compat=compat, dropout=0.0)).train()
    bags = batch([1, 1], detector.feature_sets, labels=[0, 1])
    total, log = Ssls(SslsConfig(), total_steps=1).reduce(
        detector.loss(bags, detector(bags)), bags, 0
    )
    total.backward()
    assert log["smooth"] == 0.0
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_a_batch_of_anomalous_bags_has_no_smoothness_term(batch):
    """Where the published loss is NaN, ours is 0."""
    detector = lively(SMALL).train()
    bags = batch([4, 6], detector.feature_sets, labels=[1, 1])
    _, log = Ssls(SslsConfig(), total_steps=1).reduce(detector.loss(bags, detector(bags)), bags, 0)
    assert log["smooth"] == 0.0
    assert np.isfinite(log["total"])


def test_a_bag_without_label_cannot_be_trained_on(batch, bag):
    """The loss names bags whose label nobody knows."""
    detector = lively(SMALL).eval()
    bags = collate(
        [bag("known", 3, detector.feature_sets), bag("mute", 3, detector.feature_sets, label=None)]
    )
    with pytest.raises(BagError, match="made-up/mute"):
        detector.loss(bags, detector(bags))


def test_other_widths_are_projected_and_blocks_of_rows_change_nothing(batch, monkeypatch):
    """Any feature width is taken; long bags in row blocks score as in one piece."""
    detector = lively(MsfConfig(width=11, hidden=4)).eval()
    bags = batch([23, 9], detector.feature_sets)
    with torch.no_grad():
        whole = detector(bags).snippet
        monkeypatch.setattr(graph, "_BLOCK_ROWS", 5)
        torch.testing.assert_close(detector(bags).snippet, whole, atol=1e-5, rtol=0)


def test_every_bag_counts_once_where_the_unit_is_a_bag(batch):
    """mil_unit decides whether a bag of twelve snippets outweighs one of two."""
    config = dataclasses.replace(SMALL, dropout=0.0, mil_divisor=1, smooth_weight=0.0)
    bags = batch([12, 2], lively(config).feature_sets)
    entropy = {}
    for unit in ("snippet", "bag"):
        detector = lively(dataclasses.replace(config, mil_unit=unit)).train()
        scores = detector(bags)
        mil = detector.loss(bags, scores)[0]
        entropy[unit] = float((mil.values.sum() / mil.counts.sum()).detach())
        p = scores.snippet.detach()
        first, second = -torch.log(1 - p[0, :12]), -torch.log(p[1, :2])
        expected = {
            "snippet": torch.cat([first, second]).mean(),
            "bag": (first.mean() + second.mean()) / 2,
        }
        assert entropy[unit] == pytest.approx(float(expected[unit]), rel=1e-5)
    assert entropy["snippet"] != pytest.approx(entropy["bag"], rel=1e-3)


def test_clipped_inputs_stay_within_their_deviations(batch):
    """A recording far from the training ones cannot push a feature beyond the clip."""
    config = dataclasses.replace(SMALL, input_norm="standardise", input_clip=2.0)
    detector = build(config).eval()
    bags = batch([12, 5], detector.feature_sets)
    detector.fit_inputs([bags])
    rows = bags.features["event-pyramid"]
    assert float(detector.standardise(rows * 1000).abs().max()) == 2.0
    inside = dataclasses.replace(config, input_clip=None)
    plain = build(inside).eval()
    plain.fit_inputs([bags])
    near = plain.standardise(rows).abs() <= 2.0
    assert torch.equal(detector.standardise(rows)[near], plain.standardise(rows)[near])
    with pytest.raises(ConfigError, match="input_clip"):
        build(dataclasses.replace(config, input_clip=0.0))


def test_standardised_inputs_are_fitted_on_all_snippets_and_travel_with_the_weights(batch):
    """Mean 0 and deviation 1 over every training snippet, padding left out, kept in the state."""
    config = dataclasses.replace(SMALL, input_norm="standardise")
    detector = build(config).eval()
    batches = [batch([5, 9], detector.feature_sets, seed=1), batch([7], detector.feature_sets)]
    with pytest.raises(ConfigError, match="fit_inputs"):
        detector(batches[0])
    detector.fit_inputs(iter(batches))
    rows = torch.cat([b.features["event-pyramid"][:, 0][b.mask] for b in batches]).double()
    scaled = detector.standardise(rows)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(16).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        scaled.std(dim=0, correction=0), torch.ones(16).double(), atol=1e-4, rtol=0
    )
    other = build(config).eval()
    other.load_state_dict(detector.state_dict())
    assert torch.equal(other(batches[0]).snippet, detector(batches[0]).snippet)


def test_constant_features_are_centred_and_not_blown_up(batch):
    """A feature without variation in training becomes zero, whatever rounding does."""
    detector = build(dataclasses.replace(SMALL, input_norm="standardise")).eval()
    bags = batch([5, 9], detector.feature_sets)
    bags.features["event-pyramid"][..., 3] = 0.1
    detector.fit_inputs([bags])
    scaled = detector.standardise(bags.features["event-pyramid"])
    assert scaled[..., 3].abs().max() < 1e-6


def test_only_the_published_shape_can_be_exported():
    """A projection or a scaling has no place in the 47 entries."""
    with pytest.raises(CheckpointError, match="projection"):
        published.export_published(build(MsfConfig(width=11, hidden=4)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": 3},
        {"dropout": 1.0},
        {"tau": 1.0},
        {"mil_divisor": 0},
        {"compat": "msf_2025", "width": 20},
        {"compat": "msf_2025", "input_norm": "standardise"},
        {"compat": "msf_2025", "mil_unit": "bag"},
        {"input_clip": 3.0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_at_construction(wrong):
    """Before any data is touched, and with the setting in the message."""
    with pytest.raises(ConfigError, match="msf"):
        build(dataclasses.replace(SMALL, **wrong))


def test_training_tells_bags_apart(scores_of_trained):
    """A few steps on separable bags put the anomalous rows above all others."""
    torch.manual_seed(0)
    detector = build(MsfConfig(width=16, hidden=4, dropout=0.2, smooth_weight=1.0))
    normal, before, hit = scores_of_trained(
        detector, num_steps=60, lr=1e-2, optimiser=torch.optim.AdamW
    )
    assert hit.min() > normal.max()
    assert hit.min() > before.max()
