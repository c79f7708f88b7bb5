"""Published data sets: the lists that the package carries, matched with files under a root.

A :class:`Published` says which table, which splits, where the official layout puts a recording
and what is known to be wrong; :func:`load_published` does the rest the same way for all of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from outspike.datasets.files import VIDEO_SUFFIXES, FileIndex, FileTree, Place
from outspike.datasets.frame_labels import Intervals
from outspike.datasets.manifest import Manifest
from outspike.datasets.tables import Row, read_rows
from outspike.errors import DatasetError
from outspike.recording import Modality, Recording


def by_class(row: Row) -> tuple[Place, ...]:
    """In a folder called after its class, else anywhere under the root."""
    return (Place(row.video_id, row.class_name), Place(row.video_id))


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is known of one published data set."""

    name: str
    table: str
    layout: str
    """The official layout in one line, for messages."""
    places: Callable[[Row], tuple[Place, ...]] = by_class
    """Where a recording may lie, tried in order."""
    suffixes: frozenset[str] = VIDEO_SUFFIXES
    modality: Modality = "video"
    fps: Fraction | None = None
    size: tuple[int, int] | None = None
    warnings: tuple[str, ...] = ()
    split_warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    painted: dict[str, Callable[[Intervals], Intervals]] = field(default_factory=dict)
    """Splits whose published labels differ from the annotation, and how."""
    annotated: bool = True
    """Whether frame ranges of anomalous test recordings are known."""
    supervised: frozenset[str] = frozenset()
    """Splits that train on frame labels; in all others anomalous training ranges are withheld."""


def load_published(known: Published, tree: FileTree, split: str) -> Manifest:
    """Recordings of one split found in ``tree``, and the ids of those that were not.

    Raises:
        DatasetError: nothing of the data set is there, or a file is there twice.
    """
    index = tree.index(known.suffixes)
    recordings, missing = match(known, index, split)
    if not recordings:
        raise DatasetError(
            f"{tree.root}: found none of the {len(missing)} recordings of {known.name} ({split}); "
            f"expected {known.layout}."
        )
    return Manifest(
        name=known.name,
        split=split,
        recordings=tuple(recordings),
        missing=tuple(missing),
        warnings=warnings_of(known, split),
    )


def match(known: Published, index: FileIndex, split: str) -> tuple[list[Recording], list[str]]:
    """Listed recordings that have a file, and the ids of those without."""
    recordings, missing = [], []
    for row, part in members(known, split):
        url = index.find(known.places(row))
        if url is None:
            missing.append(row.video_id)
        else:
            recordings.append(recording_of(known, row, url, part, split))
    return recordings, missing


def members(known: Published, split: str) -> Iterable[tuple[Row, str]]:
    """Rows that belong to ``split``, each with its part (``train`` or ``test``)."""
    column = "split" if split == "official" else split
    for row in read_rows(known.table):
        if row.fields[column]:
            yield row, row.fields[column]


def warnings_of(known: Published, split: str) -> tuple[str, ...]:
    """What a result on this split has to be read with."""
    return known.warnings + known.split_warnings.get(split, ())


def recording_of(known: Published, row: Row, url: str, part: str, split: str) -> Recording:
    """The recording that a listed row is, with what may be known of it in that split."""
    return Recording(
        dataset=known.name,
        video_id=row.video_id,
        url=url,
        modality=known.modality,
        split=part,
        label=row.label,
        class_name=row.class_name,
        intervals=_intervals(known, row, part, split),
        fps=known.fps,
        size=known.size,
    )


def _intervals(known: Published, row: Row, part: str, split: str) -> Intervals | None:
    if row.label == 0:
        return ()
    withheld = part == "train" and split not in known.supervised
    if withheld or not known.annotated:
        return None
    paint = known.painted.get(split)
    return paint(row.intervals) if paint else row.intervals
