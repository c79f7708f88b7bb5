"""Scores of recordings: what evaluation does with stored bags and prediction with raw files.

Both end in :func:`score_bags`, one bag at a time on one thread, so that a recording gets the same
bits whether its features come from a store or are made on the spot.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from outspike.datasets import load
from outspike.detectors.bags import collate
from outspike.detectors.base import Detector
from outspike.encoders.threads import fixed_threads
from outspike.errors import AlignmentError, DatasetError
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle
from outspike.scoring.encode import RecordingFacts, encode_recording
from outspike.scoring.reach import Reach
from outspike.scoring.scores import VideoScores
from outspike.store.bags import Bag


def score_bags(detector: Detector, bags: Iterable[Bag]) -> list[VideoScores]:
    """Score whole bags, every snippet of each; the detector's training mode is left as found.

    Raises:
        BagError: naming the bag that the detector cannot take.
        AlignmentError: a score is not finite.
    """
    device = next(iter(detector.state_dict().values()), torch.zeros(0)).device
    was_training = detector.training
    detector.eval()
    try:
        with torch.inference_mode(), fixed_threads(1):
            return [_score_bag(detector, bag, device) for bag in bags]
    finally:
        detector.train(was_training)


def score_recording(
    recording: Recording,
    bundle: Bundle,
    *,
    isolate: bool = True,
    timeout_s: float = 3600.0,
    memory_mb: int = 4096,
    reach: Reach = lambda footage_s: None,
) -> VideoScores:
    """Decode, encode and score one recording; ``reach`` hears of the footage that is read.

    Raises:
        MediaError: the recording cannot be read or encoded.
        ConfigError, CheckpointError: the bundle does not fit this installation.
    """
    detector = bundle.detector
    encoders = [e for e in bundle.built_encoders if e.name in detector.feature_sets]
    collected = _Collected()
    facts = encode_recording(
        recording,
        encoders,
        emit=collected.emit,
        isolate=isolate,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        reach=reach,
    )
    return score_bags(detector, [collected.bag(recording, facts)])[0]


def score_url(url: str, bundle: Bundle) -> VideoScores:
    """Score the recording at a local path or ``s3://`` address, known by its ending."""
    recordings = load("folder", url, "official").recordings
    if len(recordings) != 1:
        raise DatasetError(f"{url}: {len(recordings)} recordings there, expected one file.")
    return score_recording(recordings[0], bundle)


def _score_bag(detector: Detector, bag: Bag, device: torch.device) -> VideoScores:
    batch = collate([bag], widths=detector.feature_sets).to(device)
    found = detector(batch)
    values = found.snippet[0] if found.frames is None else found.frames[0]
    scores = values.float().cpu().numpy().astype(np.float32)
    start, stop = bag.start, bag.stop
    if found.frames is not None:
        scores, start, stop = _frame_rows(scores, start, stop)
    return VideoScores(
        dataset=bag.dataset,
        video_id=bag.video_id,
        scores=scores,
        start=start,
        stop=stop,
        num_frames=bag.num_frames,
        fps=bag.fps,
        label=bag.label,
        class_name=bag.class_name,
        intervals=bag.intervals,
    )


def _frame_rows(
    scores_SF: NDArray[np.float32], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """One row for each frame of each snippet: scores, and the single frames that they cover."""
    frames = start[:, None] + np.arange(scores_SF.shape[1])
    inside = frames < stop[:, None]
    return scores_SF[inside], frames[inside], frames[inside] + 1


class _Collected:
    """Rows of one recording gathered per feature set."""

    def __init__(self) -> None:
        self.rows: dict[str, list[NDArray[np.floating]]] = defaultdict(list)
        self.start: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
        self.stop: dict[str, list[NDArray[np.int64]]] = defaultdict(list)

    def emit(
        self,
        name: str,
        rows: NDArray[np.floating],
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> None:
        self.rows[name].append(rows)
        self.start[name].append(start)
        self.stop[name].append(stop)

    def bag(self, recording: Recording, facts: RecordingFacts) -> Bag:
        ranges = {
            name: (np.concatenate(self.start[name]), np.concatenate(self.stop[name]))
            for name in self.rows
        }
        start, stop = next(iter(ranges.values()))
        for name, (other_start, other_stop) in ranges.items():
            if not (np.array_equal(start, other_start) and np.array_equal(stop, other_stop)):
                raise AlignmentError(
                    f"{recording.key}: {name} has {len(other_start)} rows on other frames than "
                    f"the {len(start)} rows of {next(iter(ranges))}."
                )
        return Bag(
            dataset=recording.dataset,
            video_id=recording.video_id,
            features={n: np.concatenate(rows).swapaxes(0, 1) for n, rows in self.rows.items()},
            start=start,
            stop=stop,
            num_frames=facts.num_frames,
            fps=facts.fps,
            label=recording.label,
            class_name=recording.class_name,
            synthetic=recording.synthetic,
            intervals=recording.intervals,
            group=recording.group,
            split=recording.split,
        )
