"""SAA in its default form: padding is nobody, every bag counts once, training works."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.config import SaaConfig, SslsConfig
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.saa.losses import suppressed
from outspike.detectors.ssls import Ssls
from outspike.errors import BagError, ConfigError

SMALL = SaaConfig(
    feature_set="x", width=12, attention_width=8, classifier_widths=(8, 4), dropout=0.0
)
WIDTHS = {"x": 12}


def made(config=SMALL, seed=0):
    """A detector whose non-local branch acts, which it does not at its start."""
    torch.manual_seed(seed)
    detector = build(config)
    with torch.no_grad():
        torch.nn.init.uniform_(detector.temporal.non_local.out.norm.weight, 0.5, 1.5)
    return detector


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    extra=st.integers(0, 20),
    num_crops=st.integers(1, 2),
)
def test_padding_and_company_never_change_a_score(bag, lengths, extra, num_crops):
    """Alone, together, reordered and padded further: the same within 1e-5."""
    detector = made().eval()
    bags = [bag(f"v{i}", n, WIDTHS, num_crops=num_crops) for i, n in enumerate(lengths)]
    longest = bag("longest", max(lengths) + extra, WIDTHS, num_crops=num_crops)
    with torch.no_grad():
        together = detector(collate(bags)).snippet
        turned = detector(collate([longest, *bags[::-1]])).snippet[1:].flip(0)
        for i, n in enumerate(lengths):
            alone = detector(collate([bags[i]])).snippet[0]
            torch.testing.assert_close(together[i, :n], alone, atol=1e-5, rtol=0)
            torch.testing.assert_close(turned[i, :n], alone, atol=1e-5, rtol=0)
            assert not turned[i, n:].any()


def test_padding_counts_as_snippets_in_the_published_form_only(batch):
    """A longer neighbour moves the published scores of a short bag, not the default ones."""
    config = dataclasses.replace(SMALL, width=16)
    bags = batch([5, 30], {"x": 16})
    for compat in (None, "saa_2024"):
        detector = made(dataclasses.replace(config, compat=compat)).eval()
        with torch.no_grad():
            alone = detector(batch([5], {"x": 16})).snippet[0]
            same = torch.allclose(detector(bags).snippet[0, :5], alone, atol=1e-6)
        assert same == (compat is None)


def losses(detector, bags):
    detector.train()
    terms = detector.loss(bags, detector(bags))
    return {term.name: term for term in terms}


@pytest.mark.parametrize("classification", ["topk", "snippet"])
@pytest.mark.parametrize("reduction", ["mean", "literal"])
def test_every_term_of_a_bag_is_the_same_in_any_company(bag, classification, reduction):
    """With statistics fixed, the values of a bag's units do not see padding or neighbours."""
    config = dataclasses.replace(SMALL, classification=classification, reduction=reduction)
    detector = made(config).eval()
    bags = [bag(f"v{i}", n, WIDTHS, label=i % 2) for i, n in enumerate((3, 20, 37, 1))]
    together = collate(bags, step=0)
    found = detector.loss(together, detector(together))
    for i, one in enumerate(bags):
        alone = collate([one], step=0)
        for term, other in zip(found, detector.loss(alone, detector(alone)), strict=True):
            mine = term.values[term.bags[:, 0] == i]
            torch.testing.assert_close(mine, other.values, atol=1e-5, rtol=1e-5)


def test_crops_are_samples_of_their_bags_label(batch):
    """Each crop is a unit of its own, owned by its bag; scores are the mean over crops."""
    bags = batch([6, 9], WIDTHS, num_crops=3)
    terms = losses(made(), bags)
    assert terms["score"].bags[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert terms["guide_normal"].bags[:, 0].tolist() == [0, 0, 0]
    scores = made().eval()(bags)
    product = (scores.extras["scores"] * scores.extras["attention"]).view(2, 3, -1).mean(dim=1)
    torch.testing.assert_close(scores.snippet, product * bags.mask)


def test_attention_follows_scores_first_and_confident_scores_later(batch):
    """The target changes at ``guide_steps``; the step must be known."""
    config = dataclasses.replace(SMALL, guide_steps=5)
    before, after = (batch([6, 9], WIDTHS, step=step) for step in (4, 5))
    values = [losses(made(config), bags)["guide_anomalous"].values for bags in (before, after)]
    assert not torch.isclose(*values)
    unknown = dataclasses.replace(before, step=None)
    detector = made(config)
    with pytest.raises(BagError, match=r"made-up/v0.*step"):
        detector.loss(unknown, detector(unknown))


def test_what_is_suppressed_lies_strictly_below_the_threshold_of_its_own_row():
    """Padding sets no threshold, and constant attention suppresses nothing."""
    attention = torch.tensor([[0.5, 0.6, 1.0, 0.0], [0.3, 0.3, 0.3, 0.9]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    found = suppressed(attention, mask, 0.2)
    assert found.tolist() == [[True, False, False, False], [False] * 4]


def test_dropout_on_the_logit_gives_an_attention_of_one_half(batch):
    """As published: dropped positions are neither attended to nor ignored."""
    detector = made(dataclasses.replace(SMALL, dropout=0.7)).train()
    attention = detector(batch([40], WIDTHS)).extras["attention"]
    assert 0.4 < (attention == 0.5).float().mean() < 0.95


@pytest.mark.parametrize("fusion", ["concat", "temporal_conv"])
def test_audio_joins_every_crop_and_padding_stays_out_of_it(bag, fusion):
    """One audio crop beside several visual ones; scores of a bag stay its own."""
    config = dataclasses.replace(SMALL, audio_set="sound", audio_width=5, audio_fusion=fusion)
    detector = made(config).eval()
    bags = []
    for i, n in enumerate((4, 11)):
        one = bag(f"v{i}", n, {"x": 12, "sound": 5}, num_crops=2)
        one.features["sound"] = one.features["sound"][:1]
        bags.append(one)
    with torch.no_grad():
        together = detector(collate(bags)).snippet[0, :4]
        alone = detector(collate(bags[:1])).snippet[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    bags[0].features["sound"] = bags[0].features["sound"].repeat(3, axis=0)
    with pytest.raises(BagError, match="crops"):
        detector(collate(bags[:1]))


def test_the_form_without_biases_starts_with_context(batch):
    """Biases off leave none in the convolutions, and the non-local branch acts from the start."""
    plain = build(dataclasses.replace(SMALL, bias=False))
    convolutions = [m for m in plain.modules() if isinstance(m, torch.nn.Conv1d)]
    assert all(layer.bias is None for layer in convolutions)
    assert (plain.temporal.non_local.out.norm.weight == 1).all()
    assert (build(SMALL).temporal.non_local.out.norm.weight == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"dropout": 1.0},
        {"epsilon": 1.5},
        {"alpha": -0.1},
        {"guide_steps": -1},
        {"classifier_widths": (8, 0)},
        {"audio_set": "x"},
        {"input_clip": 3.0},
        {"compat": "saa_2024"},
        {"compat": "saa_2024", "width": 16, "input_norm": "standardise"},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_at_construction(wrong):
    """Before any data is touched."""
    with pytest.raises(ConfigError, match="saa"):
        build(dataclasses.replace(SMALL, **wrong))


def test_a_synthetic_bag_of_weight_zero_has_no_gradient_at_its_scores(batch):
    """Every term is weighted by its bag."""
    bags = batch([6, 7, 5, 8], WIDTHS, synthetic=[False, False, True, True])
    detector = made().eval()
    scores = detector(bags)
    total, _ = Ssls(SslsConfig(scale=0.0), total_steps=1).reduce(
        detector.loss(bags, scores), bags, 0
    )
    both = [scores.extras[name] for name in ("scores", "attention")]
    for gradient in torch.autograd.grad(total, both):
        assert not gradient[2:].any()
        assert gradient[:2].any()


def test_training_tells_bags_apart(scores_of_trained):
    """A few steps on separable bags put the anomalous rows above all others."""
    detector = made(dataclasses.replace(SMALL, guide_steps=20))
    normal, _, hit = scores_of_trained(detector, num_steps=50, lr=5e-3)
    assert hit[:, 1:3].mean() > normal.max()


def test_isolated_statistics_leave_no_trace_of_a_synthetic_bag_of_weight_zero(batch):
    """In training mode its inputs then have no gradient at all; otherwise they do."""
    for isolate in (True, False):
        bags = batch([6, 7, 5, 8], WIDTHS, synthetic=[False, False, True, True])
        rows = bags.features["x"].requires_grad_()
        torch.manual_seed(0)
        detector = build(SMALL, isolate_stats=isolate).train()
        total, _ = Ssls(SslsConfig(scale=0.0), total_steps=1).reduce(
            detector.loss(bags, detector(bags)), bags, 0
        )
        (gradient,) = torch.autograd.grad(total, rows)
        assert gradient[:2].any()
        assert bool(gradient[2:].any()) != isolate


def test_any_width_is_projected_to_one_the_branches_can_share(batch):
    """Widths that are no multiple of 8 meet a linear layer first; its bias stays off padding."""
    for width in (1, 7, 13):
        config = dataclasses.replace(SMALL, width=width, input_norm="standardise", input_clip=4.0)
        detector = made(config)
        bags = batch([3, 9], {"x": width})
        detector.fit_inputs([bags])
        with torch.no_grad():
            together = detector.eval()(bags).snippet[0, :3]
            alone = detector(bags.take([0])).snippet[0, :3]
            short = detector(batch([3], {"x": width})).snippet[0]
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
        torch.testing.assert_close(together, short, atol=1e-5, rtol=0)
