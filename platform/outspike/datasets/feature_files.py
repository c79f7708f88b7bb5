"""Which recording a feature file is of: published lists by id, one's own by path or table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from outspike.datasets import lad2000
from outspike.datasets.catalog import DATASETS, PUBLISHED
from outspike.datasets.files import FileTree, read_table
from outspike.datasets.folder import TABLE, Facts, facts_from_folders, facts_from_table
from outspike.datasets.gv_vad import generated
from outspike.datasets.published import members, recording_of
from outspike.datasets.tables import read_fields
from outspike.errors import ConfigError, DatasetError
from outspike.recording import Recording


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Recordings found among feature files, by the id that the files carry."""

    recordings: dict[str, Recording]
    num_frames: dict[str, int]
    """Length of the recordings whose length is known."""
    unlisted: tuple[str, ...]
    """Ids of files that the split's list does not name."""
    missing: tuple[str, ...]
    """Listed recordings without a file."""


def match_files(dataset: str, split: str, urls: Mapping[str, str], tree: FileTree) -> Matched:
    """Say of every feature file which recording it is of.

    Args:
        dataset: a published data set, or ``folder`` for one's own: ids are then the paths below the
            root, labels come from ``labels.csv`` there or from class folders.
        split: named split of that data set.
        urls: file id (path below the root without its ending) to the address of its first file.
        tree: all files below the root.

    Raises:
        ConfigError: no such data set or split.
        DatasetError: two files of one recording, a table that contradicts the files, or lists that
            are absent.
    """
    known = ("folder", *PUBLISHED, *_LISTED)
    if dataset not in known:
        raise ConfigError(
            f"Features of {dataset!r} have no list to be matched with; there are "
            f"{', '.join(known)}."
        )
    splits = DATASETS[dataset].splits
    split = splits[0] if split == "official" else split
    if split not in splits:
        raise ConfigError(f"{dataset} has no split {split!r}; it has {', '.join(splits)}.")
    if dataset == "folder":
        return _own(urls, tree)
    listed = _LISTED[dataset](split, tree) if dataset in _LISTED else _published(dataset, split)
    return _by_name(urls, listed)


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """A recording of a list, and the file names it may go by."""

    recording: Recording
    names: tuple[str, ...]
    num_frames: int | None = None


def _published(dataset: str, split: str) -> list[_Listed]:
    known = PUBLISHED[dataset]
    return [
        _Listed(
            recording=recording_of(known, row, "", part, split),
            names=(row.video_id,),
            num_frames=row.num_frames,
        )
        for row, part in members(known, split)
    ]


def _generated(split: str, tree: FileTree) -> list[_Listed]:
    clips = [
        _Listed(
            recording=generated(row["id"], "", int(row["label"])),
            names=(row["id"], f"gen_{row['id']}"),
        )
        for row in read_fields("ucf_crime_generated", ("id", "label", split))
        if row[split] == "1"
    ]
    return [*_published("ucf_crime", "official"), *clips]


def _lad2000(split: str, tree: FileTree) -> list[_Listed]:
    return [
        _Listed(recording=recording, names=(recording.video_id,))
        for recording in lad2000.listed(tree)
    ]


_LISTED: dict[str, Callable[[str, FileTree], list[_Listed]]] = {
    "ucf_generated": _generated,
    "lad2000": _lad2000,
}


def _by_name(urls: Mapping[str, str], listed: list[_Listed]) -> Matched:
    """Listed recordings by the last component of the file id, whatever folders are around it."""
    by_name: dict[str, str] = {}
    for file_id in urls:
        name = PurePosixPath(file_id).name
        if name in by_name:
            raise DatasetError(
                f"{name}: features of it lie in {by_name[name]} and {file_id}; give a root that "
                "holds one of them."
            )
        by_name[name] = file_id
    recordings, num_frames, missing = {}, {}, []
    for entry in listed:
        file_id = next((by_name[name] for name in entry.names if name in by_name), "")
        if not file_id:
            missing.append(entry.recording.video_id)
            continue
        recordings[file_id] = replace(entry.recording, url=urls[file_id])
        if entry.num_frames is not None:
            num_frames[file_id] = entry.num_frames
    return Matched(
        recordings=recordings,
        num_frames=num_frames,
        unlisted=tuple(sorted(set(urls) - set(recordings))),
        missing=tuple(missing),
    )


def _own(urls: Mapping[str, str], tree: FileTree) -> Matched:
    num_frames: dict[str, int] = {}
    made: set[str] = set()
    if TABLE in tree.urls:
        facts = facts_from_table(tree.urls[TABLE], set(urls))
        for row in read_table(tree.urls[TABLE], ["video_id"]):
            if row.get("num_frames"):
                num_frames[row["video_id"]] = _count(row["num_frames"], tree.urls[TABLE])
            if row.get("synthetic") == "1":
                made.add(row["video_id"])
    else:
        facts = facts_from_folders(urls)
    return Matched(
        recordings={
            file_id: _own_recording(file_id, url, facts.get(file_id, Facts()), file_id in made)
            for file_id, url in urls.items()
        },
        num_frames=num_frames,
        unlisted=tuple(sorted(set(urls) - set(facts))) if facts else (),
        missing=(),
    )


def _own_recording(file_id: str, url: str, facts: Facts, synthetic: bool) -> Recording:
    return Recording(
        dataset="folder",
        video_id=file_id,
        url=url,
        split=facts.split,
        label=facts.label,
        class_name=facts.class_name,
        synthetic=synthetic,
        intervals=() if facts.label == 0 and facts.intervals is None else facts.intervals,
        group=facts.group,
        fps=facts.fps,
    )


def _count(text: str, url: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise DatasetError(f"{url}: num_frames {text!r}; expected a number of frames.")
    return int(text)
