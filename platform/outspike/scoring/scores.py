"""What a detector says of one recording: a score per snippet, and the frames each one covers."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError
from outspike.timebase import scores_to_frames


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """Scores of one recording with what people said of it.

    ``scores`` ``[S]`` are probabilities in float32; ``start`` and ``stop`` ``[S]`` are the
    half-open frame ranges they cover: snippets, or single frames where a detector tells them apart.
    ``label``, ``class_name`` and ``intervals`` are None where nobody has said; ``intervals == ()``
    means that no frame is anomalous.
    """

    dataset: str
    video_id: str
    scores: NDArray[np.float32]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    num_frames: int
    fps: Fraction
    label: int | None = None
    class_name: str | None = None
    intervals: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.scores) == len(self.start) == len(self.stop) or self.scores.ndim != 1:
            raise AlignmentError(
                f"{self.key}: scores {self.scores.shape}, starts {self.start.shape} and stops "
                f"{self.stop.shape} must be one value per snippet."
            )
        if not np.isfinite(self.scores).all():
            raise AlignmentError(
                f"{self.key}: {int((~np.isfinite(self.scores)).sum())} of {len(self.scores)} "
                "scores are not finite; the detector or its input is broken."
            )

    @property
    def key(self) -> str:
        """``dataset/video_id``."""
        return f"{self.dataset}/{self.video_id}"

    def frame_scores(self) -> NDArray[np.float64]:
        """A score per frame ``[F]``: the mean of the snippets that cover it.

        Raises:
            AlignmentError: a frame has no score, or a range leaves the recording.
        """
        return scores_to_frames(self.scores, self.start, self.stop, self.num_frames)
