"""Anyone's own recordings: every video and event file under a folder, with or without labels.

Three layouts are understood, and may lie on disk or under an ``s3://`` prefix::

    ROOT/a.mp4  ROOT/cam1/b.mp4              unlabelled, to be scored (split "predict")
    ROOT/normal/a.mp4  ROOT/theft/b.mp4      a folder called "normal" makes folders the classes
    ROOT/train/normal/a.mp4  ROOT/test/...   the same, with the split as first folder

A table ``ROOT/labels.csv`` overrides all of that. Only ``video_id`` (path under the root without
its ending) is required of it; ``label`` (0, 1 or empty), ``class``, ``split``, ``intervals``
(``start:stop;start:stop`` in half-open frames), ``group``, ``fps``, ``width``, ``height`` are
read where present.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath

from outspike.datasets.files import FileTree, modality_of, parse_intervals, read_table
from outspike.datasets.manifest import Manifest, some_names
from outspike.errors import DatasetError
from outspike.recording import Recording
from outspike.timebase import DVS_FPS

TABLE = "labels.csv"
_SPLITS = ("train", "test", "predict")
_NORMAL = "normal"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a table or the folders say of one recording."""

    split: str = "predict"
    label: int | None = None
    class_name: str | None = None
    intervals: tuple[tuple[int, int], ...] | None = None
    group: str | None = None
    fps: Fraction | None = None
    size: tuple[int, int] | None = None


def load(root: str, split: str) -> Manifest:
    """Every recording under ``root`` (or that one file), labelled by ``labels.csv`` or its folders.

    Event files tell no frame rate; unless the table gives one they are put on the 33,333
    microsecond frame of UCF-Crime-DVS.

    Raises:
        DatasetError: no recording is there, two share an id, or the table names an unknown video,
            names one twice, or holds a value that cannot be read.
    """
    tree = FileTree.scan(root)
    paths = _recording_paths(tree)
    if TABLE in tree.urls:
        facts = facts_from_table(tree.urls[TABLE], set(paths))
        unlisted = [video_id for video_id in paths if video_id not in facts]
        warnings = _unlisted_warning(tree.urls[TABLE], unlisted)
    else:
        facts = facts_from_folders(paths)
        warnings = ()
    recordings = tuple(
        _recording(video_id, tree.urls[path], facts.get(video_id, Facts()))
        for video_id, path in paths.items()
    )
    return Manifest(name="folder", split=split, recordings=recordings, warnings=warnings)


def _recording_paths(tree: FileTree) -> dict[str, str]:
    paths: dict[str, str] = {}
    for path in tree.urls:
        if modality_of(path) is None:
            continue
        video_id = str(PurePosixPath(path).with_suffix(""))
        if video_id in paths:
            raise DatasetError(
                f"{tree.root}: {paths[video_id]} and {path} would share the id {video_id!r}; "
                "rename one, or keep videos and events in folders of their own."
            )
        paths[video_id] = path
    if not paths:
        raise DatasetError(
            f"{tree.root}: {len(tree.urls)} files, none of them a video or event recording."
        )
    return paths


def _recording(video_id: str, url: str, facts: Facts) -> Recording:
    modality = modality_of(url)
    assert modality is not None
    return Recording(
        dataset="folder",
        video_id=video_id,
        url=url,
        modality=modality,
        split=facts.split,
        label=facts.label,
        class_name=facts.class_name,
        intervals=() if facts.label == 0 and facts.intervals is None else facts.intervals,
        group=facts.group,
        fps=DVS_FPS if modality == "events" and facts.fps is None else facts.fps,
        size=facts.size,
    )


def facts_from_folders(video_ids: Iterable[str]) -> dict[str, Facts]:
    """Labels by class folders; none where no folder is called "normal"."""
    folders = {video_id: _split_and_class(video_id) for video_id in video_ids}
    if not any((name or "").lower() == _NORMAL for _, name in folders.values()):
        return {}
    facts = {}
    for video_id, (split, name) in folders.items():
        if name is None:
            facts[video_id] = Facts(split=split or "predict")
            continue
        label = int(name.lower() != _NORMAL)
        facts[video_id] = Facts(split=split or "train", label=label, class_name=name)
    return facts


def _split_and_class(video_id: str) -> tuple[str | None, str | None]:
    """Split and class folder of ``[split/]class/name``; deeper folders belong to the name."""
    folders = PurePosixPath(video_id).parts[:-1]
    split = folders[0] if folders and folders[0] in _SPLITS else None
    rest = folders[1:] if split else folders
    return split, rest[0] if rest else None


def facts_from_table(url: str, known: set[str]) -> dict[str, Facts]:
    """Rows of a ``labels.csv`` by video id.

    Raises:
        DatasetError: a video that is not ``known``, one listed twice, or a value that cannot be
            read.
    """
    facts: dict[str, Facts] = {}
    unknown: list[str] = []
    for number, row in enumerate(read_table(url, ["video_id"]), start=2):
        video_id = row["video_id"]
        where = f"{url} line {number} ({video_id!r})"
        if video_id in facts:
            raise DatasetError(f"{where}: this video is listed twice; keep one line.")
        if video_id not in known:
            unknown.append(video_id)
        facts[video_id] = _facts_of_row(row, where)
    if unknown:
        raise DatasetError(
            f"{url}: {len(unknown)} listed videos have no file beside the table: "
            f"{some_names(unknown)}; ids are paths under the root without their ending."
        )
    return facts


def _facts_of_row(row: Mapping[str, str], where: str) -> Facts:
    label_text = row.get("label", "")
    if label_text not in ("", "0", "1"):
        raise DatasetError(f"{where}: label {label_text!r}; expected 0 (normal), 1 or nothing.")
    label = int(label_text) if label_text else None
    split = row.get("split", "") or ("predict" if label is None else "train")
    if split not in _SPLITS:
        raise DatasetError(f"{where}: split {split!r}; expected one of {', '.join(_SPLITS)}.")
    intervals = parse_intervals(row["intervals"], where) if row.get("intervals") else None
    if intervals and label != 1:
        raise DatasetError(f"{where}: has anomalous intervals, so its label must be 1.")
    return Facts(
        split=split,
        label=label,
        class_name=row.get("class") or None,
        intervals=intervals,
        group=row.get("group") or None,
        fps=_fps(row["fps"], where) if row.get("fps") else None,
        size=_size(row, where),
    )


def _fps(text: str, where: str) -> Fraction:
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise DatasetError(f"{where}: fps {text!r}; expected a number or a ratio.") from error
    if fps <= 0:
        raise DatasetError(f"{where}: fps {text!r} must be positive.")
    return fps


def _size(row: Mapping[str, str], where: str) -> tuple[int, int] | None:
    width, height = row.get("width", ""), row.get("height", "")
    if not width and not height:
        return None
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise DatasetError(f"{where}: width {width!r}, height {height!r}; give both, in pixels.")
    return int(width), int(height)


def _unlisted_warning(url: str, unlisted: list[str]) -> tuple[str, ...]:
    if not unlisted:
        return ()
    return (
        f"{len(unlisted)} recordings are not in {url} and stay unlabelled: {some_names(unlisted)}",
    )
