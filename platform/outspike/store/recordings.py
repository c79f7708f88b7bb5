"""What people say of recordings: labels, classes, splits, annotated intervals.

Kept apart from the catalog, so that correcting a label never means extracting again.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from outspike.errors import StoreError
from outspike.recording import Recording
from outspike.store.delta import change, read_table
from outspike.store.layout import RECORDINGS

RECORDINGS_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("class_name", pa.string()),
        pa.field("synthetic", pa.bool_(), nullable=False),
        pa.field("intervals", pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64())]))),
        pa.field("source_group", pa.string()),
        pa.field("fps", pa.string()),
        pa.field("sensor_width", pa.int32()),
        pa.field("sensor_height", pa.int32()),
    ]
)

_MERGE_ON = "target.dataset = source.dataset AND target.video_id = source.video_id"


def to_row(recording: Recording) -> dict[str, Any]:
    """A recording as a row of the ``recordings`` table."""
    intervals = recording.intervals
    width, height = recording.size or (None, None)
    return {
        "dataset": recording.dataset,
        "video_id": recording.video_id,
        "url": recording.url,
        "modality": recording.modality,
        "split": recording.split,
        "label": recording.label,
        "class_name": recording.class_name,
        "synthetic": recording.synthetic,
        "intervals": None
        if intervals is None
        else [{"start": start, "stop": stop} for start, stop in intervals],
        "source_group": recording.group,
        "fps": None if recording.fps is None else str(recording.fps),
        "sensor_width": width,
        "sensor_height": height,
    }


def from_row(row: dict[str, Any]) -> Recording:
    """The recording a row describes."""
    intervals, fps, width = row["intervals"], row["fps"], row["sensor_width"]
    return Recording(
        dataset=row["dataset"],
        video_id=row["video_id"],
        url=row["url"],
        modality=row["modality"],
        split=row["split"],
        label=row["label"],
        class_name=row["class_name"],
        synthetic=row["synthetic"],
        intervals=None
        if intervals is None
        else tuple((interval["start"], interval["stop"]) for interval in intervals),
        group=row["source_group"],
        fps=None if fps is None else Fraction(fps),
        size=None if width is None else (width, row["sensor_height"]),
    )


def put(store_url: str, recordings: Sequence[Recording]) -> int:
    """Insert recordings, or replace those of the same dataset and video; returns the version.

    Rows that say the same already are left alone, so that a repeated call makes no new version.

    Raises:
        StoreError: two of the recordings share a key.
    """
    rows = {(recording.dataset, recording.video_id): to_row(recording) for recording in recordings}
    if len(rows) != len(recordings):
        count = Counter(recording.key for recording in recordings)
        twice = sorted(key for key, times in count.items() if times > 1)
        raise StoreError(f"Recordings given twice: {', '.join(twice[:10])}; keys must be unique.")

    def attempt(table: DeltaTable) -> None:
        there = {
            (row["dataset"], row["video_id"]): row
            for row in read_table(table, RECORDINGS_SCHEMA.names).to_pylist()
        }
        changed = [row for key, row in rows.items() if there.get(key) != row]
        if changed:
            source = pa.Table.from_pylist(changed, schema=RECORDINGS_SCHEMA)
            merge = table.merge(source, _MERGE_ON, source_alias="source", target_alias="target")
            merge.when_matched_update_all().when_not_matched_insert_all().execute()

    return change(store_url, RECORDINGS, attempt)
