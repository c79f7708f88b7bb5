"""What figures of a run are drawn from: metrics by step, and scores of a few recordings.

Kept as ``history.json`` beside the checkpoints and written with each of them, so that a resumed run
goes on with the curves that it had.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from outspike import urls
from outspike.errors import MissingUrlError
from outspike.recording import Recording
from outspike.scoring.scores import VideoScores

NAME = "history.json"
_MAX_POINTS = 600
_SHOWN = {1: 3, 0: 1}


class History:
    """Metrics of rank 0 and timelines of the same few held-out recordings at each evaluation."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.timelines: dict[str, dict[str, Any]] = {}

    @classmethod
    def load(cls, run_url: str, *, up_to: int | None = None) -> "History":
        """What a run has written, without what lies past a step; empty where there is nothing."""
        history = cls()
        try:
            document = json.loads(urls.read_bytes(urls.join(run_url, NAME)))
        except MissingUrlError:
            return history
        last = np.inf if up_to is None else up_to
        for name, points in document["metrics"].items():
            history.metrics[name] = [(step, value) for step, value in points if step <= last]
        for key, shown in document["timelines"].items():
            scores = {step: row for step, row in shown["scores"].items() if int(step) <= last}
            if scores:
                history.timelines[key] = {**shown, "scores": scores}
        return history

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of one step."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append((step, value))

    def show(self, step: int, videos: Iterable[VideoScores]) -> None:
        """Scores of the shown recordings at an evaluation; the first one and the last are kept."""
        for video in videos:
            places = _places(len(video.scores))
            shown = self.timelines.setdefault(
                video.key,
                {
                    "label": video.label,
                    "num_frames": video.num_frames,
                    "intervals": video.intervals,
                    "frames": [int(video.start[place]) for place in places[:-1]],
                    "scores": {},
                },
            )
            scores = shown["scores"]
            for late in sorted(scores, key=int)[1:]:
                del scores[late]
            row = [float(video.scores[a:b].max()) for a, b in pairwise(places)]
            scores[str(step)] = row

    def save(self, run_url: str) -> None:
        """Write it beside the checkpoints."""
        document = {"metrics": self.metrics, "timelines": self.timelines}
        urls.write_bytes(urls.join(run_url, NAME), json.dumps(document).encode())


def shown_of(held_out: Sequence[Recording]) -> set[str]:
    """Keys of the recordings whose timelines are shown: three anomalous ones and a normal one."""
    by_key = sorted(held_out, key=lambda recording: recording.key)
    return {
        recording.key
        for label, number in _SHOWN.items()
        for recording in [r for r in by_key if r.label == label][:number]
    }


def _places(num_rows: int) -> list[int]:
    """Borders of at most ``_MAX_POINTS`` runs of rows, each shown by its highest score."""
    count = min(num_rows, _MAX_POINTS)
    return [round(i * num_rows / count) for i in range(count + 1)]
