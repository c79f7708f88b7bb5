"""Finding recordings under a local folder or an ``s3://`` prefix.

A root is listed once. Published data sets are then looked up by path suffix, so that it does not
matter how many folders a download has put around the official layout.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from outspike import urls
from outspike.datasets.manifest import some_names
from outspike.errors import DatasetError, MissingUrlError
from outspike.recording import Modality

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
)
EVENT_SUFFIXES = frozenset({".raw", ".npz", ".aedat4", ".dat", ".es", ".bin"})


def suffix_of(path: str) -> str:
    """Ending of a path or url in lower case, with its dot."""
    return PurePosixPath(path).suffix.lower()


def modality_of(path: str) -> Modality | None:
    """What a file's ending says it holds; None for anything that is not a recording."""
    suffix = suffix_of(path)
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "events" if suffix in EVENT_SUFFIXES else None


@dataclass(frozen=True)
class FileTree:
    """All files under a root: path relative to it -> url."""

    root: str
    urls: dict[str, str]

    @classmethod
    def scan(cls, root: str) -> "FileTree":
        """List ``root`` once; a root that is a file is a tree of that file.

        Raises:
            DatasetError: there is nothing under it, or no such folder.
        """
        base = absolute(root)
        try:
            found = urls.list_files(base)
        except MissingUrlError as error:
            raise DatasetError(f"{root}: no such folder or prefix; check the data root.") from error
        if not found:
            raise DatasetError(f"{root}: no files there; check the data root.")
        tree = {url.removeprefix(base).lstrip("/") or _name(url): url for url in found}
        return cls(root=base, urls=tree)

    def index(self, suffixes: Iterable[str]) -> "FileIndex":
        """Files with one of these endings, ready to be looked up by stem."""
        wanted = frozenset(suffixes)
        by_stem: dict[str, list[str]] = defaultdict(list)
        for path in self.urls:
            if suffix_of(path) in wanted:
                by_stem[PurePosixPath(path).stem].append(path)
        return FileIndex(self, dict(by_stem))


@dataclass(frozen=True)
class Place:
    """Where a recording may lie: a file name without its ending, and the folder it is in."""

    stem: str
    parent: str | None = None
    """End of the folder's path (``Abuse``, ``events_np/train/3``); None is any folder."""

    def holds(self, path: str) -> bool:
        """Whether ``path``, relative to the root, lies in the folder."""
        if self.parent is None:
            return True
        return f"/{PurePosixPath(path).parent}".endswith(f"/{self.parent}")


@dataclass(frozen=True)
class FileIndex:
    """Files of a tree by stem (file name without its ending)."""

    tree: FileTree
    by_stem: dict[str, list[str]]

    def find(self, places: Iterable[Place]) -> str | None:
        """Url of the file in the first of ``places`` that holds one; None where none does.

        Raises:
            DatasetError: several files fit equally well.
        """
        for place in places:
            paths = [path for path in self.by_stem.get(place.stem, []) if place.holds(path)]
            if len(paths) > 1:
                raise DatasetError(
                    f"{place.stem}: found {len(paths)} times under {self.tree.root} "
                    f"({some_names(paths, 3)}); keep one, or give a root that holds only one."
                )
            if paths:
                return self.tree.urls[paths[0]]
        return None


def read_table(url: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; the named columns must be there.

    Raises:
        DatasetError: the file is not UTF-8 CSV, lacks a column, or a row has too many fields.
    """
    try:
        text = urls.read_bytes(url).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{url}: not a UTF-8 text table ({error}).") from error
    return parse_table(text, url, columns)


def parse_table(text: str, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of CSV text as dictionaries, checked as :func:`read_table` says."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise DatasetError(
            f"{name}: no column {', '.join(absent)}; the first line has "
            f"{', '.join(reader.fieldnames or ()) or 'nothing'}."
        )
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise DatasetError(
                f"{name}: line {reader.line_num} has another number of fields than the header "
                f"({len(reader.fieldnames or ())})."
            )
        rows.append({key: value.strip() for key, value in row.items()})
    return rows


def parse_intervals(text: str, where: str) -> tuple[tuple[int, int], ...]:
    """Half-open frame ranges written as ``start:stop;start:stop``; an empty text means none.

    Raises:
        DatasetError: a range is malformed, empty or negative.
    """
    intervals = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        fields = part.split(":")
        try:
            start, stop = (int(field) for field in fields)
        except ValueError as error:
            raise DatasetError(
                f"{where}: interval {part!r}; expected START:STOP in frames, half-open."
            ) from error
        if not 0 <= start < stop:
            raise DatasetError(
                f"{where}: interval {part!r} is empty or negative; ranges are half-open frames "
                "[START, STOP), so one frame is written 7:8."
            )
        intervals.append((start, stop))
    return tuple(intervals)


def absolute(root: str) -> str:
    """``root`` as it means the same in every worker: without links and dots if it is local."""
    return str(Path(urls.path_in(root)).resolve()) if urls.is_local(root) else root.rstrip("/")


def _name(url: str) -> str:
    return url.rpartition("/")[2]
