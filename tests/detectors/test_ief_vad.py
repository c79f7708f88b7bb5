"""IEF-VAD in its default form: padding is nobody, windows join, training works."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.config import IefVadConfig
from outspike.detectors import recompute
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.draws import keyed_dropout, subkeys
from outspike.detectors.ief_vad import attention
from outspike.detectors.reduce import reduce_terms
from outspike.errors import BagError, ConfigError

SMALL = IefVadConfig(
    image_width=12,
    event_width=12,
    width=12,
    num_layers=2,
    num_heads=3,
    refinement_steps=2,
    window=16,
)


def made(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return build(config)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lengths=st.lists(st.integers(1, 45), min_size=2, max_size=5), extra=st.integers(0, 20))
def test_padding_and_company_never_change_a_score(bag, lengths, extra):
    """Short and long bags (several windows) alike: alone, together, reordered, padded further."""
    detector = made().eval()
    widths = detector.feature_sets
    bags = [bag(f"v{i}", n, widths) for i, n in enumerate(lengths)]
    longest = bag("longest", max(lengths) + extra, widths)
    with torch.no_grad():
        together = detector(collate(bags)).snippet
        turned = detector(collate([longest, *bags[::-1]])).snippet[1:].flip(0)
        for i, n in enumerate(lengths):
            alone = detector(collate([bags[i]])).snippet[0]
            torch.testing.assert_close(together[i, :n], alone, atol=1e-5, rtol=0)
            torch.testing.assert_close(turned[i, :n], alone, atol=1e-5, rtol=0)
            assert not together[i, n:].any()
            assert not turned[i, n:].any()


def test_one_window_is_the_whole_bag(batch):
    """A bag that fits the window scores as without windows."""
    detector, wide = made().eval(), made(dataclasses.replace(SMALL, window=64)).eval()
    bags = batch([16, 30], SMALL_WIDTHS)
    with torch.no_grad():
        torch.testing.assert_close(detector(bags).snippet[0, :16], wide(bags).snippet[0, :16])
        assert not torch.allclose(detector(bags).snippet[1], wide(bags).snippet[1], atol=1e-4)


SMALL_WIDTHS = {SMALL.image_set: 12, SMALL.event_set: 12}


def test_padding_is_part_of_the_published_form_only(batch):
    """Zero rows move the published scores of a short bag, and not the default ones."""
    bags = batch([5], SMALL_WIDTHS)
    scores = {}
    for window in (8, 16):
        for compat in (None, "ief_vad_2025"):
            detector = made(dataclasses.replace(SMALL, window=window, compat=compat)).eval()
            with torch.no_grad():
                scores[window, compat] = detector(bags).snippet
    torch.testing.assert_close(scores[8, None], scores[16, None])
    assert not torch.allclose(scores[8, "ief_vad_2025"], scores[16, "ief_vad_2025"], atol=1e-5)


def test_dropout_in_attention_belongs_to_the_bag(batch):
    """Company and padding draw nothing new; the rate is honoured on the mean."""
    detector = made(dataclasses.replace(SMALL, attention_dropout=0.5)).train()
    bags = batch([7, 9, 7], SMALL_WIDTHS, step=3)
    scores = detector(bags).snippet
    alone = detector(bags.take([0])).snippet
    torch.testing.assert_close(scores[0], alone[0])
    assert not torch.allclose(scores[0, :7], detector.eval()(bags).snippet[0, :7], atol=1e-4)


def test_streams_of_other_widths_are_projected(batch):
    """Frames and events of different widths meet at the width of the model."""
    config = dataclasses.replace(SMALL, image_width=20, event_width=7, input_norm="standardise")
    detector = made(config)
    bags = batch([6, 9], detector.feature_sets)
    detector.fit_inputs([bags])
    scores = detector.eval()(bags).snippet
    assert scores.shape == (2, 9)
    assert set(detector.project) == {"image", "event"}


@pytest.mark.parametrize("compat", [None, "ief_vad_2025"])
@pytest.mark.parametrize("num_rows", [9, 40])
def test_every_score_comes_with_its_explanation(batch, num_rows, compat):
    """Weight and uncertainty of each stream, a row each, in one window and in several; a stream
    that is made less certain is leaned on less.
    """
    detector = made(dataclasses.replace(SMALL, compat=compat)).eval()
    bags = batch([num_rows, 5], SMALL_WIDTHS)
    found = detector(bags).extras
    for m in ("image", "event"):
        assert found[f"{m}_weight"].shape == found[f"{m}_uncertainty"].shape == (2, num_rows)
    both = found["image_weight"] + found["event_weight"]
    torch.testing.assert_close(both[bags.mask], torch.ones(num_rows + 5), atol=1e-6, rtol=0)
    with torch.no_grad():
        detector.fusion.event.logvar.bias += 1.0
    doubtful = detector(bags).extras
    rise = (doubtful["event_uncertainty"] - found["event_uncertainty"])[bags.mask]
    torch.testing.assert_close(rise, torch.ones_like(rise), atol=1e-5, rtol=0)
    assert (doubtful["event_weight"] < found["event_weight"])[bags.mask].all()


def test_the_streams_must_have_the_same_crops(bag):
    """One crop of frames cannot be joined with two of events."""
    detector = made().eval()
    one = bag("v", 4, SMALL_WIDTHS)
    one.features[SMALL.event_set] = one.features[SMALL.event_set].repeat(2, axis=0)
    with pytest.raises(BagError, match="crops"):
        detector(collate([one]))


def test_the_loss_of_a_bag_cut_into_windows_is_refused(batch):
    """Losses need all rows at once; training windows come first."""
    detector = made().eval()
    bags = batch([40], SMALL_WIDTHS)
    with pytest.raises(BagError, match="training mode"):
        detector.loss(bags, detector(bags))


def test_the_published_form_does_not_train_on_more_than_a_window(batch):
    """Longer bags must be averaged into bins first, as published."""
    detector = made(dataclasses.replace(SMALL, compat="ief_vad_2025")).train()
    with pytest.raises(BagError, match="mean_bins"):
        detector(batch([40], SMALL_WIDTHS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_heads": 5},
        {"nu": 0.0},
        {"attention_dropout": 1.0},
        {"window": 1},
        {"event_set": SMALL.image_set},
        {"compat": "ief_vad_2025", "image_width": 20},
        {"compat": "ief_vad_2025", "input_norm": "standardise"},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_at_construction(wrong):
    """Before any data is touched, and with the setting in the message."""
    with pytest.raises(ConfigError, match="ief_vad"):
        build(dataclasses.replace(SMALL, **wrong))


def test_the_noise_model_changes_the_divergence_and_hardly_a_score(batch):
    """The common factor of the Student-t precision cancels between the streams."""
    bags = batch([6, 9], SMALL_WIDTHS)
    student, gaussian = (
        made().eval(),
        made(dataclasses.replace(SMALL, noise_model="gaussian")).eval(),
    )
    a, b = student(bags), gaussian(bags)
    torch.testing.assert_close(a.snippet, b.snippet, atol=1e-6, rtol=0)
    kl = [
        next(t for t in d.loss(bags, s) if t.name == "kl").values.sum()
        for d, s in ((student, a), (gaussian, b))
    ]
    assert not torch.isclose(*kl)


def test_training_tells_bags_apart(scores_of_trained):
    """A few steps on separable bags put the anomalous rows above all others."""
    detector = made(dataclasses.replace(SMALL, reg_weight=0.01, kl_weight=0.01))
    normal, before, hit = scores_of_trained(
        detector, num_steps=60, lr=3e-3, optimiser=torch.optim.AdamW
    )
    assert hit.mean() > normal.max()
    assert hit.min() > before.max()


@pytest.mark.parametrize("rows", [1, 18, 2048])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_without_kept_weights_is_attention(rows, padded, monkeypatch):
    """Values and gradients of weights written out, however many bags are attended to together."""
    monkeypatch.setitem(attention._PIECE_ROWS, "cpu", rows)
    torch.manual_seed(0)
    packed = torch.randn(5, 9, 36, requires_grad=True)
    weight = torch.randn(5, 9, 12)
    mask = torch.arange(9) < torch.tensor([[9], [4], [1], [7], [9]]) if padded else None
    keys = torch.arange(5) * 7919
    found = attention.dropped_attention(packed, mask, keys, 3, 0.5, 4)
    query, key, value = packed.unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    logits = query @ key.mT / 4**0.5
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None, :], -torch.inf)
    drawn = keyed_dropout(torch.ones(45, 9, 3), 0.5, subkeys(keys, 9), 4)
    weights = logits.softmax(dim=3) * drawn.view(5, 9, 9, 3).permute(0, 3, 1, 2)
    expected = (weights @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad((mixed * weight).sum(), packed)[0] for mixed in (found, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_what_is_computed_twice_has_the_gradients_of_what_is_kept(batch, monkeypatch):
    """Mean, refinement and losses: recomputing them on the way back changes nothing."""
    bags = batch([7, 9, 3, 8, 5], SMALL_WIDTHS, step=3)
    gradients = []
    for twice in (True, False):
        if not twice:
            monkeypatch.setattr(recompute, "checkpoint", lambda run, *args, **options: run(*args))
        detector = made(dataclasses.replace(SMALL, attention_dropout=0.5)).train()
        terms = detector.loss(bags, detector(bags))
        reduce_terms(terms, torch.ones(bags.num_bags))[0].backward()
        gradients.append([value.grad for value in detector.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
