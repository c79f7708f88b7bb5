"""What a prediction leaves behind: one table, one list of intervals, one curve, one overlay."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from outspike import urls
from outspike.predict.curve import score_curve_png
from outspike.predict.overlay import write_overlay
from outspike.recording import Recording
from outspike.scoring.scores import VideoScores

COLUMNS = ("video_id", "frame_start", "frame_stop", "score")


class Interval(TypedDict):
    """Half-open range of frames, and the highest score in it."""

    frame_start: int
    frame_stop: int
    score: float


def write_prediction(
    recording: Recording,
    scores: VideoScores,
    out: str,
    *,
    threshold: float,
    overlay: bool,
    timeout_s: float = 3600.0,
    memory_mb: int = 4096,
) -> list[str]:
    """Write ``<video_id>.csv``, ``.json``, ``.png`` and, if wanted, ``.mp4`` below ``out``.

    An id with slashes makes subfolders. Each file appears under its name only when complete.

    Args:
        recording: what was scored; the overlay shows its frames.
        scores: of the recording.
        out: local folder or s3:// prefix.
        threshold: snippets scored at least this form the intervals.
        overlay: write the ``.mp4``.
        timeout_s, memory_mb: limits of decoding for the overlay.

    Returns:
        Addresses of the files.

    Raises:
        MediaError: the recording cannot be read any more.
    """
    base = urls.join(out, scores.video_id)
    found = intervals(scores, threshold)
    urls.write_bytes(f"{base}.csv", _csv(scores).encode())
    document = {"video_id": scores.video_id, "fps": float(scores.fps), "intervals": found}
    urls.write_bytes(f"{base}.json", (json.dumps(document, indent=1) + "\n").encode())
    with _local_file(f"{base}.png") as path:
        score_curve_png(scores, path, [(i["frame_start"], i["frame_stop"]) for i in found])
    if overlay:
        with _local_file(f"{base}.mp4") as path:
            write_overlay(
                recording,
                scores,
                path,
                threshold=threshold,
                timeout_s=timeout_s,
                memory_mb=memory_mb,
            )
    suffixes = (".csv", ".json", ".png", ".mp4") if overlay else (".csv", ".json", ".png")
    return [f"{base}{suffix}" for suffix in suffixes]


def intervals(scores: VideoScores, threshold: float) -> list[Interval]:
    """Runs of snippets at or above ``threshold`` that follow each other without a gap."""
    found: list[Interval] = []
    is_open = False
    for start, stop, score in zip(scores.start, scores.stop, scores.scores, strict=True):
        first, last, value = int(start), int(stop), float(score)
        if value < threshold:
            is_open = False
        elif is_open and first <= found[-1]["frame_stop"]:
            found[-1]["frame_stop"] = max(last, found[-1]["frame_stop"])
            found[-1]["score"] = max(value, found[-1]["score"])
        else:
            found.append({"frame_start": first, "frame_stop": last, "score": value})
            is_open = True
    return found


def _csv(scores: VideoScores) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for start, stop, score in zip(scores.start, scores.stop, scores.scores, strict=True):
        # Nine digits give back the very float32 that the detector computed.
        table.writerow([scores.video_id, int(start), int(stop), f"{float(score):.9g}"])
    return text.getvalue()


@contextmanager
def _local_file(url: str) -> Iterator[Path]:
    """A local file to write for ``url``: itself, or one that is uploaded when it is complete."""
    if urls.is_local(url):
        path = urls.local_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="outspike-predict-") as folder:
        path = Path(folder) / url.rpartition("/")[2]
        yield path
        urls.write_bytes(url, path.read_bytes())
