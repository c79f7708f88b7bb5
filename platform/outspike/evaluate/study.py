"""Recordings and a fusion detector as the perturbation study takes them, and curves of streams.

Windows are those in which IEF-VAD scores: published, of the configured length with zeros behind the
last row, which are attended to; by default side by side, no longer than the recording, padding
masked. Beside the two streams they hold ``inside``, 1 where a row may be attended to.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from outspike.detectors.base import probabilities
from outspike.detectors.ief_vad.detector import MODALITIES, IefVad
from outspike.detectors.ief_vad.fusion import Fused
from outspike.encoders.threads import fixed_threads
from outspike.errors import AlignmentError
from outspike.evaluate.perturbation import Model, Outcome, StudyVideo, Windows
from outspike.store.bags import Bag

_INSIDE = "inside"


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a detector says of the rows of one recording, ``[S]`` each."""

    probability: NDArray[np.float64]
    weight: dict[str, NDArray[np.float64]]
    """Mean weight of each stream over the width."""
    similarity: dict[str, NDArray[np.float64]]
    """Cosine between the fused vector and each stream's mean."""
    distance: dict[str, NDArray[np.float64]]
    """Euclidean distance between them."""


def study_video(detector: IefVad, bag: Bag) -> StudyVideo:
    """A recording of one crop with frame labels, cut into windows.

    A row stands for the frames up to the first of the next row. A last row with fewer frames than
    the others is attended to but has no part in any figure.

    Raises:
        AlignmentError: several crops, rows that are not evenly spaced, or no frame labels.
    """
    names = dict(
        zip(MODALITIES, (detector.config.image_set, detector.config.event_set), strict=True)
    )
    crops = {name: bag.features[name].shape[0] for name in names.values()}
    if set(crops.values()) != {1}:
        raise AlignmentError(
            f"{bag.key}: the study looks at one crop, the features have {crops}; take a protocol "
            "that scores one, such as those named '...-as-trained'."
        )
    windows = {m: _windows(detector, bag.features[name][0]) for m, name in detector.names.items()}
    windows[_INSIDE] = _windows(detector, np.ones((bag.num_snippets, 1), dtype=np.float32))
    if detector.config.compat is not None:
        windows[_INSIDE][:] = 1.0
    labels, frames_per_row = _labels(bag)
    return StudyVideo(
        name=bag.video_id, windows=windows, labels=labels, frames_per_row=frames_per_row
    )


def study_model(detector: IefVad) -> Model:
    """The detector on windows; it must be in eval mode."""

    def run(windows: Windows) -> Outcome:
        fused = _fused(detector, windows)
        return Outcome(
            probability=probabilities(fused.logits).numpy(),
            weights={"image": fused.image_weight.numpy(), "event": fused.event_weight.numpy()},
        )

    return run


def curves(detector: IefVad, video: StudyVideo) -> Curves:
    """Scores, weights and closeness of both streams, row by row."""
    fused = _fused(detector, video.windows)

    def rows(values: torch.Tensor) -> NDArray[np.float64]:
        return values.double().flatten()[: video.num_rows].numpy()

    means = {"image": fused.image_mu, "event": fused.event_mu}
    return Curves(
        probability=rows(probabilities(fused.logits)),
        weight={
            "image": rows(fused.image_weight.mean(dim=2)),
            "event": rows(fused.event_weight.mean(dim=2)),
        },
        similarity={
            m: rows(F.cosine_similarity(fused.features, mu, dim=2)) for m, mu in means.items()
        },
        distance={
            m: rows(torch.linalg.vector_norm(fused.features - mu, dim=2)) for m, mu in means.items()
        },
    )


def _fused(detector: IefVad, windows: Windows) -> Fused:
    device = detector.fusion.classifier.weight.device
    inside = torch.from_numpy(windows[_INSIDE][..., 0] > 0).to(device)
    with torch.inference_mode(), fixed_threads(1):
        image, event = (
            detector.prepare(m, torch.from_numpy(windows[m])[:, None].to(device))
            for m in MODALITIES
        )
        fused = detector.fusion(image, event, mask_BT=None if bool(inside.all()) else inside)
    return Fused(**{name: value.float().cpu() for name, value in vars(fused).items()})


def _windows(detector: IefVad, rows_SD: NDArray[np.floating]) -> NDArray[np.float32]:
    """``[W, T, D]``, zeros behind the last row."""
    num_rows, length = len(rows_SD), detector.config.window
    if detector.config.compat is None:
        length = min(length, num_rows)
        num_windows = -(-num_rows // length)
    else:
        num_windows = num_rows // length + 1
    padded = np.zeros((num_windows * length, rows_SD.shape[1]), dtype=np.float32)
    padded[:num_rows] = rows_SD
    return padded.reshape(num_windows, length, -1)


def _labels(bag: Bag) -> tuple[NDArray[np.uint8], int]:
    """Frame labels of the rows that have all their frames, and how many frames a row has."""
    steps = set(np.diff(bag.start).tolist()) or {int(bag.stop[0] - bag.start[0])}
    if len(steps) > 1:
        raise AlignmentError(f"{bag.key}: rows {sorted(steps)} frames apart; the study needs one.")
    (frames_per_row,) = steps
    known = np.zeros(bag.num_frames, dtype=np.uint8) if bag.label == 0 else bag.frame_labels()
    if known is None:
        raise AlignmentError(f"{bag.key}: no annotated frames, which the study needs.")
    first = int(bag.start[0])
    num_rows = min(bag.num_snippets, (bag.num_frames - first) // frames_per_row)
    return known[first : first + num_rows * frames_per_row], frames_per_row
