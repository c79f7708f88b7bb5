"""AED in its default form: windows are neighbours, every frame is scored, labels stay in place."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.config import AedConfig, SslsConfig, WindowConfig
from outspike.detectors.aed.placing import place
from outspike.detectors.aed.published import judged_frames
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.ssls import Ssls
from outspike.errors import BagError, ConfigError

SMALL = AedConfig(feature_set="x", width=20, window=3, hidden=4, down=8, head=6)
WIDTHS = {"x": 20}
KINDS = pytest.mark.parametrize("kind", ["aed", "aed_t"])


def made(seed=0, **changes):
    torch.manual_seed(seed)
    return build(dataclasses.replace(SMALL, **changes))


@KINDS
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 15), min_size=2, max_size=5),
    extra=st.integers(0, 9),
    num_crops=st.integers(1, 2),
)
def test_padding_and_company_never_change_a_score(bag, kind, lengths, extra, num_crops):
    """Frames and snippets of bags shorter and longer than a window, alone and together."""
    detector = made(kind=kind).eval()
    bags = [bag(f"v{i}", n, WIDTHS, num_crops=num_crops) for i, n in enumerate(lengths)]
    longest = bag("longest", max(lengths) + extra, WIDTHS, num_crops=num_crops)
    with torch.no_grad():
        together, turned = detector(collate(bags)), detector(collate([longest, *bags[::-1]]))
        for i, n in enumerate(lengths):
            alone = detector(collate([bags[i]]))
            assert (alone.frames > 0).all()
            for name in ("frames", "snippet"):
                expected = getattr(alone, name)[0]
                for other in (getattr(together, name)[i], getattr(turned, name)[-1 - i]):
                    torch.testing.assert_close(other[:n], expected, atol=1e-6, rtol=0)
                    assert not other[n:].any()


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), window=st.integers(1, 8))
def test_windows_read_the_snippets_they_score_and_miss_none(lengths, window):
    """Neighbours in time order; past the end the last snippet is repeated."""
    windows = place(lengths, window, device="cpu")
    for number, length in enumerate(lengths):
        mine = windows.sequence == number
        reads, writes = windows.reads[mine], windows.writes[mine]
        assert torch.equal(reads, writes.clamp(max=length - 1))
        assert (writes.diff(dim=1) == 1).all()
        assert set(range(length)) <= set(writes.flatten().tolist())
        assert torch.equal(windows.is_real[mine], writes < length)


def test_scrambled_windows_read_from_all_over_the_recording():
    """The published reading: position ``t`` of window ``w`` takes row ``t * W + w`` of a list."""
    windows = place([7], 3, scrambled=True, device="cpu")
    flat = [a + b for a in range(7) for b in range(3)]
    expected = [[flat[t * 7 + w] for t in range(3)] for w in range(7)]
    assert windows.reads.tolist() == torch.tensor(expected).clamp(max=6).tolist()
    assert windows.writes[1].tolist() == [1, 2, 3]


def test_a_score_is_the_highest_of_the_windows_that_reach_its_frame(bag):
    """Put together by hand from single windows."""
    detector = made().eval()
    whole = bag("v", 6, WIDTHS)
    with torch.no_grad():
        found = detector(collate([whole])).frames[0]
        rows = torch.from_numpy(whole.features["x"].astype(np.float32))[0]
        best = torch.zeros_like(found)
        for start in range(4):
            part = dataclasses.replace(
                whole,
                features={"x": rows[None, start : start + 3].numpy()},
                start=whole.start[:3],
                stop=whole.stop[:3],
            )
            scores = detector(collate([part])).frames[0]
            best[start : start + 3] = torch.maximum(best[start : start + 3], scores)
    torch.testing.assert_close(found, best, atol=1e-6, rtol=0)


def test_a_snippets_score_is_the_mean_over_the_frames_it_covers(bag):
    """A short last snippet counts the frames it has."""
    detector = made().eval()
    short = bag("v", 4, WIDTHS)
    short.stop[-1] -= 11
    with torch.no_grad():
        scores = detector(collate([short]))
    torch.testing.assert_close(scores.snippet[0, :3], scores.frames[0, :3].mean(dim=1))
    torch.testing.assert_close(scores.snippet[0, 3], scores.frames[0, 3, :5].mean())


def test_longer_snippets_than_the_network_scores_are_refused(bag):
    """The bag, the snippet and both numbers are named."""
    long = bag("v", 4, WIDTHS)
    long.stop[2] += 4
    with pytest.raises(BagError, match=r"made-up/v: snippet 2 covers 20 frames.* 16"):
        made()(collate([long]))


def loss_of(detector, bags):
    detector.train()
    return {term.name: term for term in detector.loss(bags, detector(bags))}


@KINDS
def test_frames_that_are_not_there_enter_no_loss(bag, kind):
    """Of a bag shorter than a window, and of a snippet shorter than its frames."""
    short = bag("v", 2, WIDTHS, label=1)
    short.stop[-1] -= 6
    short = dataclasses.replace(short, num_frames=26, intervals=((4, 20),))
    term = loss_of(made(kind=kind), collate([short], step=0, supervised=True))["frames"]
    assert term.counts.tolist() == [26]
    published = made(kind=kind, width=16, compat="lad2000")
    short.features["x"] = short.features["x"][..., :16]
    term = loss_of(published, collate([short], step=0, supervised=True))["frames"]
    assert term.counts.tolist() == [48]


def test_frame_labels_follow_their_frames_through_crops_and_windows(bag):
    """A regressor that copies the label has no error, wherever windows were cut."""
    config = WindowConfig(rule="crop", length=7)
    bags = [bag(f"v{i}", 12, WIDTHS, label=i % 2) for i in range(4)]
    for seed in range(5):
        batch = collate(bags, window=config, seed=seed, step=0, supervised=True)
        detector = made().train()
        scores = detector(batch)
        owners, writes = scores.extras["window_bag"], scores.extras["window_writes"]
        first = batch.frame_ranges[owners, :, 0].gather(1, writes.clamp(max=6))
        frame = first[..., None] + torch.arange(16)
        truth = (frame >= 4) & (frame < 12 * 16 - 4) & (batch.labels[owners, None, None] == 1)
        scores.extras["window_scores"] = truth.float()
        terms = {term.name: term for term in detector.loss(batch, scores)}
        assert not terms["frames"].values.any()


def test_the_loss_needs_frame_labels_and_known_classes(batch):
    """Both are refused with the name of the bag."""
    detector = made()
    bags = batch([3, 4], WIDTHS)
    with pytest.raises(BagError, match=r"made-up/v0: aed learns from frame labels"):
        detector.loss(bags, detector(bags))
    detector = made(classes=("fire", "flood"))
    bags = batch([3, 4], WIDTHS, supervised=True)
    with pytest.raises(BagError, match=r"2 bags have no class \(made-up/v0.*fire, flood"):
        detector.loss(bags, detector(bags))


def test_classes_of_recordings_are_what_the_classifier_learns(bag):
    """Class names of the config number the recordings' classes."""
    names = ("fire", "flood", "panic")
    bags = [bag(f"v{i}", 5, WIDTHS, class_name=name) for i, name in enumerate(reversed(names))]
    batch = collate(bags, step=0, classes=names, supervised=True)
    detector = made(classes=names).train()
    scores = detector(batch)
    owners = scores.extras["window_bag"]
    scores.extras["class_logits"] = 50.0 * torch.eye(3)[2 - owners]
    terms = {term.name: term for term in detector.loss(batch, scores)}
    assert terms["class"].values.max() < 1e-6


@KINDS
def test_a_synthetic_bag_of_weight_zero_takes_no_part(batch, kind):
    """With weight 0 its inputs have no gradient: there are no batch statistics."""
    bags = batch([6, 2, 5], WIDTHS, synthetic=[False, False, True], supervised=True)
    rows = bags.features["x"].requires_grad_()
    detector = made(kind=kind).train()
    total, _ = Ssls(SslsConfig(scale=0.0), total_steps=1).reduce(
        detector.loss(bags, detector(bags)), bags, 0
    )
    (gradient,) = torch.autograd.grad(total, rows)
    assert not gradient[2].any()
    assert gradient[0].any()
    assert gradient[1].any()


def test_large_batches_of_windows_are_scored_in_pieces(bag):
    """A long recording gives the scores of its windows however many are computed at once."""
    detector = made().eval()
    long = bag("v", 600, WIDTHS)
    with torch.no_grad():
        found = detector(collate([long])).frames[0]
        part = dataclasses.replace(
            long,
            features={"x": long.features["x"][:, 297:306]},
            start=long.start[:9],
            stop=long.stop[:9],
        )
        alone = detector(collate([part])).frames[0]
    torch.testing.assert_close(found[299:304], alone[2:7], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"hidden": 0},
        {"classes": ("one",)},
        {"classes": ("a", "a")},
        {"input_clip": 3.0},
        {"compat": "lad2000"},
        {"compat": "lad2000", "width": 16, "input_norm": "standardise"},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_at_construction(wrong):
    """Before any data is touched."""
    with pytest.raises(ConfigError, match="aed_t"):
        build(dataclasses.replace(SMALL, **wrong))


@pytest.mark.parametrize(
    ("num_frames", "repeated", "kept"), [(80, 0, 80), (160, 2, 80), (80, 1, 0), (400, 0, 400)]
)
def test_the_published_test_drops_the_last_group_of_lengthened_videos(num_frames, repeated, kept):
    """So a short video that was lengthened does not count at all."""
    assert judged_frames(num_frames, 5, repeated) == kept


def test_parameter_counts_are_the_published_ones():
    """One layer and two, windows of five and ten, I3D and C3D widths."""
    counts = {
        ("aed", 2048, 5, 14): 4_375_040,
        ("aed_t", 2048, 5, 14): 5_555_200,
        ("aed_t", 1024, 5, 14): 5_260_288,
        ("aed_t", 2048, 10, 14): 5_596_160,
        ("aed_t", 2048, 10, 2): 5_590_016,
        ("aed_t", 8192, 5, 14): 7_324_672,
    }
    for (kind, width, window, num), expected in counts.items():
        config = AedConfig(
            kind=kind, width=width, window=window, classes=tuple(map(str, range(num)))
        )
        with torch.device("meta"):
            model = build(config)
        assert sum(p.numel() for p in model.parameters()) == expected


def test_training_finds_the_anomalous_frames(scores_of_trained):
    """A few steps on separable bags put the frames of the anomalous rows above all others."""
    detector = made(hidden=8, down=16, head=16)
    window = WindowConfig(rule="crop", length=3)
    normal, _, hit = scores_of_trained(
        detector, num_steps=100, lr=1e-2, window=window, supervised=True
    )
    assert hit.mean() > normal.mean() + 0.3


def test_short_training_bags_are_filled_with_zeros_in_the_published_form_only(bag):
    """The default form repeats the last snippet, as both forms do when they score."""
    short = bag("v", 2, {"x": 16})
    rows = short.features["x"]
    filled = {"zeros": np.zeros_like(rows[:, :1]), "last": rows[:, -1:]}
    whole = bag("w", 3, {"x": 16})
    scores = {}
    for name, third in filled.items():
        one = dataclasses.replace(whole, features={"x": np.concatenate([rows, third], axis=1)})
        scores[name] = made(width=16)(collate([one])).extras["window_scores"]
    for compat, training, expected in (
        ("lad2000", True, "zeros"),
        ("lad2000", False, "last"),
        (None, True, "last"),
    ):
        detector = made(width=16, compat=compat).train(training)
        found = detector(collate([short])).extras["window_scores"]
        torch.testing.assert_close(found, scores[expected], atol=1e-6, rtol=0)
