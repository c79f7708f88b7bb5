"""The floor: fitted at once, scores as probabilities, and the figures measured on real footage."""

import numpy as np
import pytest
import torch

from outspike.config import MotionFloorConfig
from outspike.detectors.build import build
from outspike.detectors.motion_floor import (
    GRID_COLUMNS,
    GRID_ROWS,
    NUM_CELLS,
    WIDTH,
    clip_stats,
    logistic_regression,
    smooth,
)
from outspike.errors import BagError, ConfigError

WIDTHS = {"frame-motion": WIDTH}
FORMS = ["normal_deviation", "logistic"]


def fitted(batch, form):
    detector = build(MotionFloorConfig(form=form))
    bags = [batch([30, 20, 25, 15], WIDTHS, labels=[0, 1, 0, 1], seed=s) for s in range(2)]
    for one in bags:
        one.features["frame-motion"][one.labels == 1, :, :, NUM_CELLS:] += 0.5
    detector.fit(iter(bags))
    return detector, bags[0]


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_probabilities_of_the_bag_alone(batch, form):
    """In [0, 1], zero at padding, the same alone as in company."""
    detector, bags = fitted(batch, form)
    scores = detector(bags).snippet
    assert ((scores >= 0) & (scores <= 1)).all()
    assert not scores[~bags.mask].any()
    for i in range(bags.num_bags):
        alone = detector(bags.take([i])).snippet[0]
        torch.testing.assert_close(scores[i], alone)


@pytest.mark.parametrize("form", FORMS)
def test_what_was_fitted_travels_in_the_state(batch, form):
    """Saved, loaded and cast to single precision, it scores the same."""
    detector, bags = fitted(batch, form)
    other = build(detector.config)
    with pytest.raises(ConfigError, match="fit"):
        other(bags)
    other.load_state_dict(detector.state_dict())
    assert torch.equal(other(bags).snippet, detector(bags).snippet)
    torch.testing.assert_close(
        other.float()(bags).snippet, detector(bags).snippet, atol=1e-4, rtol=0
    )


def test_one_normal_frame_in_a_hundred_lies_above_one_half(batch):
    """The squash puts the threshold at 1 % false alarms on the training normals."""
    detector = build(MotionFloorConfig())
    bags = batch([2000], WIDTHS, labels=[0])
    detector.fit([bags])
    share = (detector(bags).snippet > 0.5).float().mean()
    assert share == pytest.approx(0.01, abs=0.002)


def test_unusual_motion_scores_higher_than_usual_motion(batch):
    """Cells far above their training mean raise the score around that moment only."""
    detector = build(MotionFloorConfig())
    usual = batch([200], WIDTHS, labels=[0])
    detector.fit([usual])
    odd = batch([200], WIDTHS, labels=[0], seed=5)
    odd.features["frame-motion"][0, 0, 100:110, 300:320] += 20
    scores = detector(odd).snippet[0]
    assert scores[100:110].min() > 0.9
    assert scores[:60].max() < 0.8


def test_synthetic_and_anomalous_bags_do_not_enter_the_normal_statistics(batch):
    """Only real normal frames define what is usual."""
    detector = build(MotionFloorConfig())
    plain = batch([30], WIDTHS, labels=[0])
    detector.fit([plain])
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    more = batch([30, 30, 30], WIDTHS, labels=[0, 1, 0], synthetic=[False, False, True])
    more.features["frame-motion"][1:] *= 9
    detector.fit([more])
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(before[key], value)


def test_fitting_needs_the_bags_that_a_form_learns_from(batch):
    """No normal bags, or one class only, is an error that says so."""
    with pytest.raises(BagError, match="no real normal"):
        build(MotionFloorConfig()).fit([batch([5], WIDTHS, labels=[1])])
    with pytest.raises(BagError, match="both kinds"):
        build(MotionFloorConfig(form="logistic")).fit([batch([5, 5], WIDTHS, labels=[1, 1])])


def test_whole_frames_only(batch):
    """Crops of a moving scene are not what the floor is about."""
    detector, _ = fitted(batch, "logistic")
    with pytest.raises(BagError, match="crops"):
        detector(batch([5], WIDTHS, num_crops=2))


def test_logistic_regression_is_the_textbook_optimum():
    """Equal to scikit-learn's with the same penalty."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 12))
    y = (x[:, 0] + 0.5 * rng.normal(size=120) > 0.2).astype(float)
    found = logistic_regression(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(found[:-1], expected.coef_[0], atol=1e-5)
    np.testing.assert_allclose(found[-1], expected.intercept_[0], atol=1e-5)


def test_smoothing_ends_where_the_bag_ends():
    """A constant stays constant up to both ends, and padding does not leak in."""
    mask = torch.tensor([[True] * 30, [True] * 12 + [False] * 18])
    values = torch.where(mask, 2.0, 99.0).double()
    out = smooth(values, mask, 5.0)
    torch.testing.assert_close(out, torch.where(mask, 2.0, 0.0).double())


def test_clip_statistics_are_those_of_the_frames():
    """Mean, deviation and maximum over true frames only."""
    rows = torch.rand(2, 6, WIDTH, dtype=torch.float64)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    found = clip_stats(rows, mask)
    for i, n in enumerate((6, 2)):
        stats = rows[i, :n, NUM_CELLS:]
        expected = torch.cat([stats.mean(0), stats.std(0, correction=0), stats.amax(0)])
        torch.testing.assert_close(found[i], expected)


def grey_motion(path):
    """``frame-motion`` rows of a video, as far as the per-cell form needs them."""
    import av

    with av.open(str(path)) as container:
        frames = np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])
    difference = np.abs(np.diff(frames.astype(np.float32), axis=0))
    difference = np.concatenate([difference[:1], difference])
    num, height, width = difference.shape
    cells = difference.reshape(
        num, GRID_ROWS, height // GRID_ROWS, GRID_COLUMNS, width // GRID_COLUMNS
    )
    rows = np.zeros((1, num, WIDTH), dtype=np.float32)
    rows[0, :, :NUM_CELLS] = cells.mean(axis=(2, 4)).reshape(num, -1)
    return rows


@pytest.mark.media
@pytest.mark.slow
def test_the_floor_on_real_footage_is_the_measured_one(media, bag):
    """UCSD Ped2, pooled frame AUC 0.705 within 0.01: the figure its README gives for this rule."""
    import csv
    import dataclasses

    from sklearn.metrics import roc_auc_score

    from outspike.detectors.bags import collate

    root = media / "ucsd_ped2"

    def one(path):
        rows = grey_motion(path)
        blank = bag(path.stem, rows.shape[1], {"frame-motion": 1})
        return collate([dataclasses.replace(blank, features={"frame-motion": rows})])

    detector = build(MotionFloorConfig())
    detector.fit([one(path) for path in sorted((root / "train").glob("*.mp4"))])
    labels = {}
    with (root / "frame_labels.csv").open() as file:
        for row in csv.DictReader(file):
            labels.setdefault(row["clip"], []).append(int(row["label"]))
    scores = [detector(one(root / "test" / f"{clip}.mp4")).snippet[0].numpy() for clip in labels]
    auc = roc_auc_score(np.concatenate(list(labels.values())), np.concatenate(scores))
    assert auc == pytest.approx(0.705, abs=0.01)
