"""``outspike datasets import-labels``: label files into a table, or onto a store's recordings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from outspike import urls
from outspike.datasets.event_frames import convert
from outspike.datasets.files import FileTree
from outspike.datasets.frame_labels import Intervals
from outspike.datasets.label_files import VideoLabels, joined, read_labels, write_labels
from outspike.datasets.manifest import some_names
from outspike.errors import AlignmentError, ConfigError, DatasetError
from outspike.recording import Recording
from outspike.store.store import FeatureStore

Rows = list[tuple[str, object]]

#: Labels and stored features of one video may differ in length by less than a snippet at the end.
_SLACK_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class LabelImport:
    """Which label files, and what to do with them."""

    source: str
    order: str | None = None
    """Table of names and lengths that cuts a vector of labels."""
    classes: str | None = None
    """Second file, of class numbers by video."""
    class_names: tuple[str, ...] = ()
    """Names of class 0, 1, ...; without them the table keeps numbers."""
    out: str | None = None
    """Table to write."""
    store: str | None = None
    dataset: str | None = None
    """Data set of the store's recordings that the labels are of."""
    training: bool = False
    """Put ranges on training recordings too: for fully supervised splits only."""


def import_labels(wanted: LabelImport) -> Rows:
    """Read labels and write them where they are wanted; returns the table that ends the command.

    Raises:
        ConfigError: nowhere to write them, or a store without a data set.
        DatasetError, AlignmentError: the labels cannot be read, or contradict the recordings.
    """
    if wanted.out is None and wanted.store is None:
        raise ConfigError("Say where the labels go: out= a table, store= a feature store.")
    labels = read_labels(wanted.source, wanted.order)
    if wanted.classes is not None:
        labels = joined(labels, read_labels(wanted.classes))
    _check_classes(labels, wanted.class_names)
    frames = sum(found.num_frames or 0 for found in labels)
    anomalous = sum(stop - start for found in labels for start, stop in found.intervals or ())
    rows: Rows = [
        ("videos", len(labels)),
        ("with an anomalous frame", sum(found.label == 1 for found in labels)),
        ("frames", frames),
        ("anomalous frames", anomalous),
    ]
    if wanted.out is not None:
        write_labels(wanted.out, labels, wanted.class_names)
        rows.append(("table", wanted.out))
    if wanted.store is not None:
        if wanted.dataset is None:
            raise ConfigError("Labels for a store need dataset=, the one its recordings are of.")
        rows += _into_store(wanted.store, wanted.dataset, labels, wanted)
    return rows


def import_event_frames(source: str, out: str, *, window_us: int | None = None) -> Rows:
    """Convert one event-frame file, or all below a folder, into event recordings.

    Raises:
        ConfigError, DatasetError: see :func:`outspike.datasets.event_frames.convert`; ``out`` must
            be a local folder.
    """
    folder = urls.local_path(out)
    tree = FileTree.scan(source)
    files = {path: url for path, url in tree.urls.items() if path.endswith(".npz")}
    if not files:
        raise DatasetError(f"{source}: no .npz file of event frames.")
    names = [PurePosixPath(path).name for path in files]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DatasetError(f"{source}: {some_names(twice)} found twice; convert one split at once.")
    num_windows = num_events = 0
    for path, url in files.items():
        done = convert(url, folder / PurePosixPath(path).name, window_us=window_us)
        num_windows += done.num_windows
        num_events += done.num_events
    return [
        ("recordings", len(files)),
        ("windows", num_windows),
        ("events", num_events),
        ("folder", out),
    ]


def _into_store(
    store_url: str, dataset: str, labels: Sequence[VideoLabels], wanted: LabelImport
) -> Rows:
    store = FeatureStore.open(store_url)
    lengths = _lengths(store, dataset)
    known = {
        video_id: recording
        for (name, video_id), recording in store.recordings_by_key().items()
        if name == dataset
    }
    if not known:
        raise DatasetError(f"{store_url}: no recording of {dataset!r} is registered.")
    changed, clipped, withheld, absent = [], 0, 0, []
    for found in labels:
        recording = known.get(found.video_id)
        if recording is None:
            absent.append(found.video_id)
            continue
        ranges, was_clipped = _fitted(found, lengths.get(found.video_id), recording)
        clipped += was_clipped
        if recording.split == "train" and ranges and not wanted.training:
            withheld += 1
            ranges = None
        changed.append(_labelled(recording, found, ranges, wanted.class_names))
    if not changed:
        raise DatasetError(
            f"{store_url}: none of the {len(labels)} labelled videos is a recording of {dataset!r} "
            f"({some_names(absent)})."
        )
    store.put_recordings(changed)
    return [
        ("labelled in the store", len(changed)),
        ("not in the store", len(absent)),
        ("ranges clipped at the end", clipped),
        ("training ranges withheld", withheld),
        ("recordings version", store.recordings_version),
    ]


def _lengths(store: FeatureStore, dataset: str) -> dict[str, int]:
    """Frames of every recording with features."""
    rows = store.extents.select(["dataset", "video_id", "num_frames"]).to_pylist()
    return {row["video_id"]: int(row["num_frames"]) for row in rows if row["dataset"] == dataset}


def _fitted(
    found: VideoLabels, num_frames: int | None, recording: Recording
) -> tuple[Intervals | None, bool]:
    """Ranges inside the frames that the features cover, and whether any had to be clipped."""
    if found.intervals is None or found.num_frames is None or num_frames is None:
        return found.intervals, False
    if abs(found.num_frames - num_frames) >= _SLACK_FRAMES:
        raise AlignmentError(
            f"{recording.key}: {found.num_frames} labels, its features cover {num_frames} frames; "
            "labels and features are not of the same video, or of another frame rate."
        )
    inside = tuple((a, min(b, num_frames)) for a, b in found.intervals if a < num_frames)
    return inside, inside != found.intervals


def _labelled(
    recording: Recording, found: VideoLabels, ranges: Intervals | None, names: Sequence[str]
) -> Recording:
    label = recording.label if found.label is None else found.label
    if recording.label is not None and found.label is not None and recording.label < found.label:
        raise DatasetError(
            f"{recording.key}: registered as normal, the labels mark anomalous frames in it; one "
            "of the two is of another video."
        )
    if recording.label == 1:
        label = 1  # an anomalous video may have no anomalous frame left (TAD, a dropped tail)
    class_name = recording.class_name
    if found.class_id is not None and names:
        class_name = names[found.class_id]
    intervals = () if label == 0 else ranges
    if found.intervals is None:
        intervals = recording.intervals
    return replace(recording, label=label, class_name=class_name, intervals=intervals)


def _check_classes(labels: Sequence[VideoLabels], names: Sequence[str]) -> None:
    outside = [
        found
        for found in labels
        if names and found.class_id is not None and found.class_id >= len(names)
    ]
    if outside:
        raise DatasetError(
            f"{outside[0].video_id}: class {outside[0].class_id}, there are names for "
            f"{len(names)} classes (0 to {len(names) - 1})."
        )
