"""The perturbation study of a real detector: its windows, its curves, and the files it leaves."""

import csv
import dataclasses
import io
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from outspike.config import IefVadConfig
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.ief_vad.detector import MODALITIES, IefVad
from outspike.errors import AlignmentError
from outspike.evaluate.perturbation import run_study
from outspike.evaluate.study import curves, study_model, study_video
from outspike.evaluate.study_report import curve_plots, study_plot, tables
from outspike.store.bags import Bag

SMALL = IefVadConfig(
    image_set="frames",
    event_set="changes",
    image_width=6,
    event_width=4,
    width=8,
    num_heads=2,
    refinement_steps=2,
    window=12,
    input_norm="standardise",
)
PUBLISHED = dataclasses.replace(
    SMALL, image_width=8, event_width=8, input_norm="none", compat="ief_vad_2025"
)


def made(config: IefVadConfig = SMALL) -> IefVad:
    torch.manual_seed(0)
    detector = build(config)
    assert isinstance(detector, IefVad)
    bags = [make_bag(f"fit{i}", 9, detector) for i in range(4)]
    detector.fit_inputs([collate(bags)])
    return detector.eval()


def make_bag(name: str, num_rows: int, detector: IefVad, **changes: object) -> Bag:
    """Rows of 16 frames every 8; anomalous in frames 16 to 39."""
    rng = np.random.default_rng([num_rows, *name.encode()])
    start = np.arange(num_rows, dtype=np.int64) * 8
    bag = Bag(
        dataset="made-up",
        video_id=name,
        features={
            key: rng.normal(size=(1, num_rows, width)).astype(np.float32)
            for key, width in detector.feature_sets.items()
        },
        start=start,
        stop=start + 16,
        num_frames=8 * num_rows + 8,
        fps=Fraction(25),
        label=1,
        class_name="Fall",
        synthetic=False,
        intervals=((16, 40),),
        group=None,
        split="test",
    )
    return dataclasses.replace(bag, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["default", "published"])
@pytest.mark.parametrize("num_rows", [1, 7, 12])
def test_undisturbed_rows_score_as_the_detector_scores_them(config, num_rows) -> None:
    """Up to one window both forms agree with a plain forward, weights and all."""
    detector = made(config)
    bag = make_bag("v", num_rows, detector, label=0, intervals=())
    video = study_video(detector, bag)
    found = curves(detector, video)
    with torch.no_grad():
        scores = detector(collate([bag]))
    np.testing.assert_allclose(found.probability, scores.snippet[0], atol=1e-6)
    for m in MODALITIES:
        np.testing.assert_allclose(found.weight[m], scores.extras[f"{m}_weight"][0], atol=1e-6)
    outcome = study_model(detector)(video.windows)
    np.testing.assert_allclose(
        outcome.probability.reshape(-1)[:num_rows], found.probability, atol=1e-6
    )


def test_long_recordings_are_cut_side_by_side_and_padding_is_nobody() -> None:
    """30 rows in windows of 12: three by default, masked; the published form attends to zeros."""
    for config, num_attended in ((SMALL, 30), (PUBLISHED, 36)):
        detector = made(config)
        windows = study_video(detector, make_bag("v", 30, detector)).windows
        assert {values.shape[:2] for values in windows.values()} == {(3, 12)}
        assert windows["inside"].sum() == num_attended


def test_labels_are_those_of_the_frames_before_the_next_row() -> None:
    """Eight frames a row; a last row that lacks some has no part in the figures."""
    detector = made()
    whole = study_video(detector, make_bag("v", 7, detector))
    assert (whole.frames_per_row, whole.num_rows) == (8, 7)
    np.testing.assert_array_equal(np.flatnonzero(whole.labels), np.arange(16, 40))
    short = study_video(detector, make_bag("v", 7, detector, num_frames=52))
    assert short.num_rows == 6


def test_what_the_study_cannot_judge_is_refused() -> None:
    """Crops, uneven rows and missing frame labels, with the recording's name."""
    detector = made()
    bag = make_bag("v", 7, detector)
    crops = {name: rows.repeat(10, axis=0) for name, rows in bag.features.items()}
    wrong = {
        "one crop": {"features": crops},
        "frames apart": {"start": bag.start + (np.arange(7) == 6)},
        "no annotated frames": {"intervals": None},
    }
    for told, change in wrong.items():
        with pytest.raises(AlignmentError, match=f"made-up/v: .*{told}"):
            study_video(detector, dataclasses.replace(bag, **change))  # type: ignore[arg-type]


def test_the_files_hold_every_case() -> None:
    """A row for each stream and share in all tables, and pictures that show something."""
    detector = made()
    bags = [make_bag("a", 20, detector), make_bag("b", 25, detector, label=0, intervals=())]
    videos = [study_video(detector, bag) for bag in bags]
    results = run_study(videos, study_model(detector), modalities=MODALITIES)
    written = tables(results, MODALITIES)
    assert set(written) == {
        "perturbation.csv",
        "weight_change_image.csv",
        "weight_change_event.csv",
    }
    for data in written.values():
        rows = list(csv.reader(io.StringIO(data.decode())))
        assert len(rows) == 1 + 12
        assert {len(row) for row in rows} == {len(rows[0])}
    header, *rows = csv.reader(io.StringIO(written["perturbation.csv"].decode()))
    half = dict(zip(header, rows[5], strict=True))
    assert (half["perturbed"], half["fraction"]) == ("image", "0.5")
    assert float(half["kl"]) == results[5].kl > 0
    change = list(csv.reader(io.StringIO(written["weight_change_event.csv"].decode())))
    assert [float(value) for value in change[12][2:]] == results[10].weight_change["event"].tolist()
    classes = {"Fall": [(videos[0], curves(detector, videos[0]))]}
    pictures = {"study": study_plot(results, MODALITIES), **dict(curve_plots(classes))}
    assert set(pictures) == {"study", "weights-Fall-1.png", "closeness-Fall-1.png"}
    for data in pictures.values():
        with Image.open(io.BytesIO(data)) as image:
            colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
        assert len(colours) > 20


def test_a_class_of_many_frames_takes_several_pictures() -> None:
    """3,000 frames each."""
    detector = made()
    videos = [study_video(detector, make_bag(f"v{i}", 200, detector)) for i in range(2)]
    classes = {"a/b": [(video, curves(detector, video)) for video in videos]}
    assert [name for name, _ in curve_plots(classes)] == [
        "weights-a_b-1.png",
        "weights-a_b-2.png",
        "closeness-a_b-1.png",
        "closeness-a_b-2.png",
    ]
