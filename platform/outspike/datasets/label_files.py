"""Published frame labels in their many forms, as one table: video, length, anomalous ranges.

Forms: one vector for all videos in a given order (``gt-*.npy``), or with names and lengths beside
it (``.npz``); dictionaries in pickles, per frame or per video; one MATLAB or ``.npy`` file a video.
A concatenated vector says nothing of its videos: it is only ever cut by a list of names and lengths
whose sum is exactly its own.
"""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.datasets.files import FileTree, read_table
from outspike.datasets.frame_labels import Intervals, read_mat_labels, to_intervals
from outspike.datasets.manifest import some_names
from outspike.datasets.safe_pickle import load_plain
from outspike.errors import DatasetError
from outspike.store.npy_layouts import load_array

_COLUMNS = ("video_id", "label", "class", "num_frames", "intervals")


@dataclass(frozen=True, kw_only=True)
class VideoLabels:
    """What a label file says of one video; what it does not say is None."""

    video_id: str
    num_frames: int | None = None
    intervals: Intervals | None = None
    class_id: int | None = None

    @property
    def label(self) -> int | None:
        """1 with an anomalous frame, 0 without."""
        return None if self.intervals is None else int(bool(self.intervals))


def read_labels(url: str, order: str | None = None) -> list[VideoLabels]:
    """Labels from a file or folder, by its form.

    Args:
        url: ``.npy`` (one vector), ``.npz`` (vector, names, lengths), ``.pickle`` or ``.pkl``
            (dictionary), ``.mat``, or a folder of ``.mat`` or ``.npy`` files, one a video.
        order: names and lengths that cut a vector: a table with columns ``video_id`` and
            ``num_frames``, in the order of the vector.

    Raises:
        DatasetError: the file is of no known form, holds something else than labels, or a vector
            does not go with its list.
    """
    suffix = PurePosixPath(url).suffix.lower()
    if suffix == ".npz":
        return _from_archive(url)
    if suffix == ".npy":
        if order is None:
            raise DatasetError(
                f"{url}: a vector of labels does not say whose they are; give order=, a table of "
                "video_id and num_frames in the order it was made in."
            )
        rows = read_table(order, ["video_id", "num_frames"])
        names = [row["video_id"] for row in rows]
        lengths = [_whole(row["num_frames"], order) for row in rows]
        return cut(load_array(url), names, lengths, url)
    if order is not None:
        raise DatasetError(f"{url}: order= belongs to a vector (.npy); this file names its videos.")
    if suffix in (".pickle", ".pkl"):
        return _from_dictionary(load_plain(urls.read_bytes(url), url), url)
    tree = FileTree.scan(url)
    files = tree.index([".mat", ".npy"]).by_stem
    if not files:
        raise DatasetError(
            f"{url}: no labels there; expected .npy, .npz, .pickle, .mat, or a folder of .mat or "
            ".npy files."
        )
    found = [_of_one_video(tree.urls[path]) for paths in files.values() for path in sorted(paths)]
    return _unique(found, url)


def cut(
    vector: NDArray[Any], names: Sequence[str], lengths: Sequence[int], where: str
) -> list[VideoLabels]:
    """Cut a concatenated vector ``[F]`` into its videos.

    Raises:
        DatasetError: the lengths do not add up to it, or it holds other values than 0 and 1.
    """
    flat = _binary(vector, where)
    if len(names) != len(lengths):
        raise DatasetError(f"{where}: {len(names)} names and {len(lengths)} lengths.")
    total = int(sum(lengths))
    if total != len(flat):
        raise DatasetError(
            f"{where}: {len(flat)} labels, the {len(names)} videos of the list have {total} frames "
            f"({len(flat) - total:+d}). Lengths differ between feature extractors; take the list "
            "that belongs to this vector."
        )
    edges = np.cumsum([0, *lengths])
    found = [
        VideoLabels(
            video_id=name,
            num_frames=int(stop - start),
            intervals=to_intervals(flat[start:stop]),
        )
        for name, start, stop in zip(names, edges[:-1], edges[1:], strict=True)
    ]
    return _unique(found, where)


def joined(labels: Iterable[VideoLabels], classes: Iterable[VideoLabels]) -> list[VideoLabels]:
    """Frame labels with the class numbers of another file, by video.

    Raises:
        DatasetError: a video has a class and no frame labels.
    """
    by_name: Mapping[str, int | None] = {found.video_id: found.class_id for found in classes}
    known = list(labels)
    absent = sorted(set(by_name) - {found.video_id for found in known})
    if absent:
        raise DatasetError(f"No frame labels of {some_names(absent)}, which have a class.")
    return [
        VideoLabels(
            video_id=found.video_id,
            num_frames=found.num_frames,
            intervals=found.intervals,
            class_id=by_name.get(found.video_id, found.class_id),
        )
        for found in known
    ]


def write_labels(url: str, labels: Iterable[VideoLabels], classes: Sequence[str] = ()) -> int:
    """Write the table ``labels.csv`` that data set ``folder`` reads; returns its number of rows.

    Args:
        url: the table.
        labels: its rows.
        classes: names of class numbers; without them the number stands in the table.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    num_rows = 0
    for found in labels:
        name = found.class_id
        writer.writerow(
            {
                "video_id": found.video_id,
                "label": "" if found.label is None else found.label,
                "class": "" if name is None else (classes[name] if classes else name),
                "num_frames": "" if found.num_frames is None else found.num_frames,
                "intervals": ";".join(f"{a}:{b}" for a, b in found.intervals or ()),
            }
        )
        num_rows += 1
    urls.write_bytes(url, table.getvalue().encode())
    return num_rows


def _from_archive(url: str) -> list[VideoLabels]:
    try:
        with np.load(io.BytesIO(urls.read_bytes(url)), allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{url}: not an archive of plain arrays ({error}).") from error
    absent = {"names", "lengths", "labels"} - content.keys()
    if absent:
        raise DatasetError(
            f"{url}: no {', '.join(sorted(absent))}, only {', '.join(content) or 'nothing'}; "
            "expected names, lengths and labels (for event frames say import-labels event-frames)."
        )
    names = [str(name) for name in content["names"]]
    return cut(content["labels"], names, content["lengths"].tolist(), url)


def _from_dictionary(content: Any, url: str) -> list[VideoLabels]:
    """``{video: labels per frame}``, or ``{video: class number}``."""
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DatasetError(
            f"{url}: holds a {type(content).__name__}; expected a dict from video to labels."
        )
    if not content:
        raise DatasetError(f"{url}: an empty dict.")
    found = []
    for name, value in content.items():
        video_id = name.removesuffix(".mp4")
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 0:
                raise DatasetError(f"{url}: {name}: class {value}; expected 0 or more.")
            found.append(VideoLabels(video_id=video_id, class_id=value))
            continue
        found.append(_per_frame(video_id, value, f"{url}: {name}"))
    return _unique(found, url)


def _of_one_video(url: str) -> VideoLabels:
    name = PurePosixPath(url).stem
    if url.lower().endswith(".npy"):
        return _per_frame(name, load_array(url), url)
    labels = read_mat_labels(url)
    return VideoLabels(video_id=name, num_frames=len(labels), intervals=to_intervals(labels))


def _per_frame(video_id: str, value: Any, where: str) -> VideoLabels:
    labels = _binary(value, where)
    return VideoLabels(video_id=video_id, num_frames=len(labels), intervals=to_intervals(labels))


def _binary(value: Any, where: str) -> NDArray[Any]:
    """A vector ``[F]`` of 0 and 1 from a list, ``[F]``, ``[1, F]`` or ``[F, 1]``."""
    try:
        labels = np.asarray(value)
    except ValueError as error:
        raise DatasetError(f"{where}: not one list of labels ({error}).") from error
    if labels.dtype.kind not in "biuf" or labels.size != max(labels.shape, default=0):
        raise DatasetError(
            f"{where}: {labels.dtype} of shape {labels.shape}; expected 0 or 1 for every frame."
        )
    flat = labels.reshape(-1)
    if not np.isin(flat, (0, 1)).all():
        wrong = flat[~np.isin(flat, (0, 1))]
        raise DatasetError(f"{where}: labels like {wrong[0]}; expected 0 and 1.")
    return flat


def _unique(found: list[VideoLabels], where: str) -> list[VideoLabels]:
    counts = Counter(labels.video_id for labels in found)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DatasetError(f"{where}: {some_names(twice)} named twice.")
    return found


def _whole(text: str, where: str) -> int:
    if not text.isdigit():
        raise DatasetError(f"{where}: num_frames {text!r}; expected a whole number.")
    return int(text)
