"""One recording after another through one model; what a bad one is told by."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.config import PredictConfig
from outspike.errors import AlignmentError, BagError, DatasetError, MediaError, OutspikeError
from outspike.predict.write import intervals, write_prediction
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle
from outspike.scoring.reach import Reach, now_and_then
from outspike.scoring.score import score_recording

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of one recording: its highest score and alarms, or why it has none."""

    video_id: str
    seconds: float
    num_frames: int = 0
    highest: float = 0.0
    num_intervals: int = 0
    reason: str | None = None
    detail: str = ""
    """Names the file and the cause."""

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self.video_id}: not scored, {self.reason}: {self.detail}"
        found = f"{self.num_intervals} interval{'' if self.num_intervals == 1 else 's'}"
        return (
            f"{self.video_id}: highest score {self.highest:.3f}, {found}, "
            f"{self.num_frames} frames in {self.seconds:.1f} s"
        )


class Scorer:
    """Scores recordings and writes their files; picklable parts only, so that actors can be made.

    Args:
        config: of the job.
        bundle: the model.
    """

    def __init__(self, config: PredictConfig, bundle: Bundle) -> None:
        self._config = config
        self._bundle = bundle

    def score(self, recording: Recording) -> Prediction:
        """Score and write one recording; a bad input becomes a reason, not an exception."""
        began = time.monotonic()
        try:
            done = self._score(recording)
        except (MediaError, BagError, DatasetError, AlignmentError) as error:
            return Prediction(
                video_id=recording.video_id,
                seconds=time.monotonic() - began,
                reason=_reason(error),
                detail=" ".join(str(error).split()),
            )
        return Prediction(**done, video_id=recording.video_id, seconds=time.monotonic() - began)

    def __call__(self, batch: dict[str, Any]) -> dict[str, NDArray[np.object_]]:
        """The same as a Ray Data batch of JSON recordings."""
        done = [self.score(Recording.from_document(json.loads(text))) for text in batch["item"]]
        return {"prediction": np.array([json.dumps(asdict(p)) for p in done], dtype=object)}

    def _score(self, recording: Recording) -> dict[str, Any]:
        config = self._config
        scores = score_recording(
            recording,
            self._bundle,
            timeout_s=config.decode_timeout_s,
            memory_mb=config.decode_memory_mb,
            reach=_reached(recording.video_id),
        )
        write_prediction(
            recording,
            scores,
            config.out,
            threshold=config.threshold,
            overlay=config.overlay,
            timeout_s=config.decode_timeout_s,
            memory_mb=config.decode_memory_mb,
        )
        return {
            "num_frames": scores.num_frames,
            "highest": float(scores.scores.max()),
            "num_intervals": len(intervals(scores, config.threshold)),
        }


def _reached(video_id: str) -> Reach:
    """A line every 10 s while a long recording is read."""
    began = time.monotonic()

    def tell(footage_s: float) -> None:
        speed = footage_s / (time.monotonic() - began)
        logger.info("%s: %.2f hours read, %.1fx real time", video_id, footage_s / 3600, speed)

    return now_and_then(tell, _TELL_EVERY_S)


def _reason(error: OutspikeError) -> str:
    if isinstance(error, MediaError):
        return error.reason
    words: dict[type[OutspikeError], str] = {
        BagError: "bag",
        DatasetError: "annotation",
        AlignmentError: "inconsistent",
    }
    return words[type(error)]
