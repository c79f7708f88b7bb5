"""A recording: one source file and what people say of it."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from outspike.errors import DatasetError

Modality = Literal["video", "events"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One video or event file, its labels, and what is needed to read it.

    ``video_id`` is unique inside ``dataset``. ``label`` is 1 for anomalous, 0 for normal, None when
    nobody has said. ``intervals`` are the half-open anomalous frame ranges: None where unknown,
    ``()`` where it is known that there are none. ``group`` names the source that several recordings
    were cut from; cross-validation keeps a group on one side. ``fps`` and ``size`` (width, height)
    are only given where the file itself does not tell, as with raw event recordings.
    """

    dataset: str
    video_id: str
    url: str
    modality: Modality = "video"
    split: str = "predict"
    label: int | None = None
    class_name: str | None = None
    synthetic: bool = False
    intervals: tuple[tuple[int, int], ...] | None = None
    group: str | None = None
    fps: Fraction | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.video_id or not self.dataset:
            raise DatasetError(f"{self.url!r}: a recording needs a dataset and a video_id.")
        if self.label not in (None, 0, 1):
            raise DatasetError(f"{self.key}: label {self.label!r}; expected 0, 1 or None.")
        if self.label == 0 and self.intervals:
            raise DatasetError(
                f"{self.key}: labelled normal, yet {len(self.intervals)} anomalous intervals are "
                "annotated; correct one of the two."
            )
        if self.synthetic and self.split != "train":
            raise DatasetError(
                f"{self.key}: generated recordings are admitted to the training split only, "
                f"found split {self.split!r}."
            )

    @property
    def key(self) -> str:
        """``dataset/video_id``, the name used in messages, files and progress."""
        return f"{self.dataset}/{self.video_id}"

    def to_document(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"fps": None if self.fps is None else str(self.fps)}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Recording":
        """Inverse of :meth:`to_document`."""
        fps, size, intervals = document["fps"], document["size"], document["intervals"]
        restored = {
            "fps": None if fps is None else Fraction(fps),
            "size": None if size is None else (int(size[0]), int(size[1])),
            "intervals": None
            if intervals is None
            else tuple((int(start), int(stop)) for start, stop in intervals),
        }
        return cls(**(document | restored))
