"""The evaluation published with IEF-VAD (``ief_vad.md`` section 6), from features to figures."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from outspike.config import IefVadConfig
from outspike.detectors.bags import collate
from outspike.detectors.ief_vad.detector import IefVad
from outspike.detectors.ief_vad.published import NAMES
from outspike.evaluate.detection import detection_map, non_maximum_suppression
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.perturbation import Outcome, StudyVideo, run_case, summarise
from outspike.evaluate.protocols import Protocol
from outspike.evaluate.results import Results
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.store.bags import Bag

SNIPPET = 16
PUBLISHED = Protocol(name="published", dataset="*", metrics=("auc", "ap", "auc_abnormal"))
#: Class codes and names of XD-Violence, in the order of its label map.
XD_CODES = {
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car_accident",
    "G": "explosion",
}
NORMAL_CODE = "A"


def build_detector(golden: Mapping[str, NDArray], window: int) -> IefVad:
    width = golden["in/img_0"].shape[1]
    detector = IefVad(
        IefVadConfig(
            image_width=width,
            event_width=width,
            width=width,
            num_layers=int(golden["in/num_layers"]),
            num_heads=int(golden["in/num_heads"]),
            refinement_steps=int(golden["in/num_refinement_steps"]),
            refinement_rate=float(golden["in/lambda_ref"]),
            noise_model="student_t" if str(golden["in/noise_model"]) == "StudentT" else "gaussian",
            nu=float(golden["in/nu"]),
            input_norm="none",
            window=window,
            compat="ief_vad_2025",
        )
    ).eval()
    names = NAMES.key_map(detector)
    prefix = "state/"
    detector.load_state_dict(
        {
            names[key.removeprefix(prefix)]: torch.from_numpy(golden[key])
            for key in golden
            if key.startswith(prefix)
        }
    )
    return detector


def intervals_of(labels: NDArray) -> tuple[tuple[int, int], ...]:
    edges = np.diff(np.concatenate([[0], labels.astype(int), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple((int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))


def labels_of_each(golden: Mapping[str, NDArray]) -> list[NDArray]:
    ends = np.cumsum(golden["in/n_snippets"] * SNIPPET)
    assert ends[-1] == len(golden["in/gt"])
    return np.split(golden["in/gt"], ends[:-1])


def bags_of(golden: Mapping[str, NDArray], config: IefVadConfig) -> list[Bag]:
    bags = []
    for index, labels in enumerate(labels_of_each(golden)):
        image, event = golden[f"in/img_{index}"], golden[f"in/evt_{index}"]
        name = str(golden["in/classes"][index])
        normal = name.casefold() == "normal" or name == NORMAL_CODE
        start = np.arange(len(image), dtype=np.int64) * SNIPPET
        bags.append(
            Bag(
                dataset="published",
                video_id=f"{index:03d}",
                features={config.image_set: image[None], config.event_set: event[None]},
                start=start,
                stop=start + SNIPPET,
                num_frames=len(labels),
                fps=Fraction(30),
                label=int(not normal),
                class_name=XD_CODES.get(name.split("-")[0], name),
                synthetic=False,
                intervals=intervals_of(labels),
                group=None,
                split="test",
            )
        )
    return bags


def scored(golden: Mapping[str, NDArray]) -> list[VideoScores]:
    detector = build_detector(golden, window=256)
    return score_bags(detector, bags_of(golden, detector.config))


def check_figures(golden: Mapping[str, NDArray], results: Results) -> None:
    expected = {"auc": "auc", "ap": "ap", "auc_abnormal": "ano_auc"}
    for name, key in expected.items():
        assert results.metrics[name].value == pytest.approx(float(golden[f"out/{key}"]), abs=1e-6)
    prefix = "out/classwise/ROC/"
    classes = {key.removeprefix(prefix) for key in golden if key.startswith(prefix)}
    rows = {row.name: row for row in results.per_class}
    assert classes == {name for name, row in rows.items() if row.auc.value is not None}
    for name in classes:
        auc, ap = float(golden[prefix + name]), float(golden[f"out/classwise/AP/{name}"])
        assert rows[name].auc.value == pytest.approx(auc, abs=1e-6), name
        assert rows[name].ap.value == pytest.approx(ap, abs=1e-6), name


@pytest.mark.golden("ief_vad/eval_*.npz")
def test_features_to_figures_repeat_the_reference(golden) -> None:
    """Windows, scores, AUC, AP, abnormal-only AUC and every class, through the detector."""
    videos = scored(golden)
    for index, video in enumerate(videos):
        np.testing.assert_allclose(video.scores, golden[f"out/prob_{index}"], atol=1e-5, rtol=1e-4)
    check_figures(golden, evaluate(videos, PUBLISHED, num_resamples=0))


@pytest.mark.golden("ief_vad/eval_*.npz")
def test_figures_of_the_stored_scores_repeat_the_reference(golden) -> None:
    """The metrics alone, on the reference's own probabilities."""
    detector_config = IefVadConfig()
    videos = []
    for index, bag in enumerate(bags_of(golden, detector_config)):
        videos.append(
            VideoScores(
                dataset=bag.dataset,
                video_id=bag.video_id,
                scores=golden[f"out/prob_{index}"],
                start=bag.start,
                stop=bag.stop,
                num_frames=bag.num_frames,
                fps=bag.fps,
                label=bag.label,
                class_name=bag.class_name,
                intervals=bag.intervals,
            )
        )
    check_figures(golden, evaluate(videos, PUBLISHED, num_resamples=0))


@pytest.mark.golden("ief_vad/eval_*.npz")
def test_modality_weights_repeat_the_reference(golden) -> None:
    """Mean over the width of the frame stream's weight, for each snippet."""
    detector = build_detector(golden, window=256)
    for index, bag in enumerate(bags_of(golden, detector.config)):
        with torch.no_grad():
            extras = detector(collate([bag])).extras
        expected = golden[f"out/w_i_mean_{index}"]
        np.testing.assert_allclose(extras["image_weight"][0].numpy(), expected, atol=1e-5)


@pytest.mark.golden("ief_vad/detection_map*.npz")
def test_detection_map_repeats_the_reference(golden) -> None:
    """Every overlap, the flag that keeps the first 140 videos only, and the early return."""
    num_videos = sum(key.startswith("in/snippet_prob_") for key in golden)
    scores = [np.repeat(golden[f"in/snippet_prob_{i}"], SNIPPET, axis=0) for i in range(num_videos)]
    segments = [
        [(int(a), int(b), int(c)) for video, a, b, c in golden["in/segments"] if video == index]
        for index in range(num_videos)
    ]
    iou = golden["out/iou"].tolist()
    found = detection_map(scores, segments, iou, compat="ief_vad_2025")
    np.testing.assert_allclose(np.array(found) * 100, golden["out/map"], atol=1e-6)
    first = detection_map(scores[:140], segments[:140], iou, compat="ief_vad_2025")
    np.testing.assert_allclose(
        np.array(first) * 100, golden["out/map_exclude_normal_flag"], atol=1e-6
    )
    flat = [np.full_like(video, 0.5) for video in scores]
    np.testing.assert_array_equal(
        detection_map(flat, segments, iou, compat="ief_vad_2025"), golden["out/map_flat_scores"]
    )


@pytest.mark.golden("ief_vad/detection_map*.npz")
def test_suppression_repeats_the_reference(golden) -> None:
    """The same proposals are kept."""
    kept = non_maximum_suppression(golden["in/nms_dets"], golden.number("in/nms_thresh"))
    assert kept == golden["out/nms_keep"].tolist()


@pytest.mark.golden("ief_vad/perturbation_study*.npz")
def test_the_perturbation_study_repeats_the_reference(golden) -> None:
    """Clean run and every case: Brier, KL, AUC, AP, weights, and how the weights move."""
    window = golden.number("in/visual_length")
    detector = build_detector(golden, window)
    videos = study_videos(golden, window)

    def model(windows: Mapping[str, NDArray[np.float32]]) -> Outcome:
        with torch.no_grad():
            fused = detector.fusion(*(torch.from_numpy(windows[m]) for m in ("img", "ev")))
        return Outcome(
            probability=torch.sigmoid(fused.logits).numpy(),
            weights={"img": fused.image_weight.numpy(), "ev": fused.event_weight.numpy()},
        )

    clean = [model(video.windows) for video in videos]
    check_case(golden, "clean", summarise(videos, clean, clean, None, 0.0))
    cases = {key.split("/")[1] for key in golden if key.startswith("in/") and "/perm_" in key}
    assert cases
    for case in cases:
        modality = "img" if case.startswith("img") else "ev"
        fraction = float(case.removeprefix(modality))
        positions = [
            golden[f"in/{case}/perm_{j}"][: int(fraction * window)] for j in range(len(videos))
        ]
        result = run_case(videos, model, clean, modality, fraction, positions)
        check_case(golden, case, result)


def study_videos(golden: Mapping[str, NDArray], window: int) -> list[StudyVideo]:
    """Zero-padded windows of each video, an extra empty one after an exact multiple."""
    videos = []
    for index, labels in enumerate(labels_of_each(golden)):
        num_rows = int(golden["in/n_snippets"][index])
        num_windows = num_rows // window + 1 if num_rows >= window else 1
        windows = {}
        for name, key in (("img", "img"), ("ev", "evt")):
            rows = golden[f"in/{key}_{index}"]
            padded = np.zeros((num_windows * window, rows.shape[1]), dtype=np.float32)
            padded[:num_rows] = rows
            windows[name] = padded.reshape(num_windows, window, -1)
        videos.append(StudyVideo(name=str(index), windows=windows, labels=labels))
    return videos


def check_case(golden: Mapping[str, NDArray], case: str, result) -> None:
    for name in ("brier", "kl", "auc", "ap"):
        expected = float(golden[f"out/{case}/{name}"])
        assert getattr(result, name) == pytest.approx(expected, abs=1e-6), (case, name)
    for modality, suffix in (("img", "w_img"), ("ev", "w_ev")):
        pairs = {
            suffix: result.weight[modality],
            f"{suffix}_abnormal": result.weight_abnormal[modality],
            f"{suffix}_normal": result.weight_normal[modality],
        }
        for key, value in pairs.items():
            assert value == pytest.approx(float(golden[f"out/{case}/{key}"]), abs=1e-6), key
        np.testing.assert_allclose(
            result.weight_change[modality], golden[f"out/{case}/{suffix}_change"], atol=1e-6
        )
