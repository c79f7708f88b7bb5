"""The split lists and annotations that the package carries, one small CSV file a data set.

Columns: ``video_id, split, class, label, num_frames, intervals``, then one column for each further
split (``train``, ``test`` or empty: not part of it). Intervals are ``start:stop;start:stop`` in
half-open frames; ``num_frames`` is empty where it is not known. ``tables/README.md`` says where
the facts come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from outspike.datasets.files import parse_intervals, parse_table

_COLUMNS = ("video_id", "split", "class", "label", "num_frames", "intervals")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One listed recording. ``fields`` holds every column as text."""

    video_id: str
    split: str
    class_name: str
    label: int
    num_frames: int | None
    intervals: tuple[tuple[int, int], ...]
    fields: Mapping[str, str]


def read_rows(name: str) -> list[Row]:
    """Rows of ``tables/<name>.csv`` in published order."""
    return [
        Row(
            video_id=fields["video_id"],
            split=fields["split"],
            class_name=fields["class"],
            label=int(fields["label"]),
            num_frames=int(fields["num_frames"]) if fields["num_frames"] else None,
            intervals=parse_intervals(fields["intervals"], f"{name}: {fields['video_id']}"),
            fields=fields,
        )
        for fields in read_fields(name, _COLUMNS)
    ]


def read_fields(name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of ``tables/<name>.csv`` as text."""
    file = resources.files("outspike.datasets") / "tables" / f"{name}.csv"
    return parse_table(file.read_text(encoding="utf-8"), file.name, columns)
