"""What a prediction leaves behind: one table, one list of intervals, one curve, one overlay."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.predict.curve import score_curve_png
from outspike.predict.overlay import write_overlay
from outspike.recording import Recording
from outspike.scoring.scores import VideoScores

COLUMNS = ("video_id", "frame_start", "frame_stop", "score")


def write_prediction(
    recording: Recording,
    scores: VideoScores,
    folder: Path,
    *,
    threshold: float,
    overlay: bool,
) -> list[Path]:
    """Write ``<video_id>.csv``, ``.json``, ``.png`` and, if wanted, ``.mp4`` below ``folder``.

    An id with slashes makes subfolders. Each file appears under its name only when complete.
    """
    base = folder / scores.video_id
    base.parent.mkdir(parents=True, exist_ok=True)
    found = intervals(scores, threshold)
    written = [_named(base, suffix) for suffix in (".csv", ".json", ".png")]
    _write_csv(written[0], scores)
    document = {"video_id": scores.video_id, "fps": float(scores.fps), "intervals": found}
    _replace_text(written[1], json.dumps(document, indent=1) + "\n")
    score_curve_png(
        scores, written[2], [(int(i["frame_start"]), int(i["frame_stop"])) for i in found]
    )
    if overlay:
        written.append(_named(base, ".mp4"))
        write_overlay(recording, scores, written[3], threshold=threshold)
    return written


def intervals(scores: VideoScores, threshold: float) -> list[dict[str, Any]]:
    """Runs of snippets at or above ``threshold``: frame range and highest score of each."""
    above = scores.scores >= threshold
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    return [
        {
            "frame_start": int(scores.start[first]),
            "frame_stop": int(_last_stop(scores.stop, first, last)),
            "score": float(scores.scores[first:last].max()),
        }
        for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]


def _last_stop(stop: NDArray[np.int64], first: int, last: int) -> int:
    return int(stop[first:last].max())


def _write_csv(path: Path, scores: VideoScores) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for start, stop, score in zip(scores.start, scores.stop, scores.scores, strict=True):
            # Nine digits give back the very float32 that the detector computed.
            table.writerow([scores.video_id, int(start), int(stop), f"{float(score):.9g}"])
    partial.replace(path)


def _replace_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _named(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)
