"""LAD2000: two thousand videos in fourteen categories, each with normal and anomalous videos.

Split lists and labels come with the download only, so they are read from the root:
``train_split.txt`` and ``test_split.txt`` (one video name a line), videos
``<Category>/v_<rest>.<ending>``, labels ``gt_<rest>.mat``. A normal video, too, carries the class
of the category that it was collected for; it is normal when the third last ``_``-separated token
of its name is ``n``.
"""

from collections import Counter
from pathlib import PurePosixPath

from outspike import urls
from outspike.config.classes import LAD2000_CLASSES
from outspike.datasets.files import VIDEO_SUFFIXES, FileIndex, FileTree, Place
from outspike.datasets.frame_labels import read_mat
from outspike.datasets.manifest import Manifest
from outspike.errors import DatasetError
from outspike.recording import Recording

_COUNTS = {("train", 0): 958, ("train", 1): 482, ("test", 0): 280, ("test", 1): 280}


def load(root: str, split: str) -> Manifest:
    """Videos named in the two split lists, with frame ranges where label files were found.

    Raises:
        DatasetError: a split list is absent, no video is there, or a label file cannot be read.
    """
    tree = FileTree.scan(root)
    lists, videos, labels = tree.index([".txt"]), tree.index(VIDEO_SUFFIXES), tree.index([".mat"])
    recordings, missing, counts = [], [], Counter[tuple[str, int]]()
    for part in ("train", "test"):
        for name in _names(lists, part, root):
            counts[part, label_of(name)] += 1
            url = videos.find([Place(name)])
            if url is None:
                missing.append(name)
            else:
                recordings.append(_recording(name, url, part, labels))
    if not recordings:
        raise DatasetError(
            f"{root}: found none of the {len(missing)} videos in the split lists; expected "
            "ROOT/<Category>/v_<rest>.avi."
        )
    return Manifest(
        name="lad2000",
        split=split,
        recordings=tuple(recordings),
        missing=tuple(missing),
        warnings=_warnings(counts, recordings),
    )


def listed(tree: FileTree) -> list[Recording]:
    """Videos named in the split lists, with no file yet; for features of them.

    Raises:
        DatasetError: a split list is absent.
    """
    lists, labels = tree.index([".txt"]), tree.index([".mat"])
    return [
        _recording(name, "", part, labels)
        for part in ("train", "test")
        for name in _names(lists, part, tree.root)
    ]


def label_of(name: str) -> int:
    """0 for a normal video, 1 for an anomalous one, told from its name.

    Raises:
        DatasetError: the name has fewer than three tokens.
    """
    tokens = name.split("_")
    if len(tokens) < 3:
        raise DatasetError(f"{name!r} is not named as LAD2000 names videos (v_..._n_..._...).")
    return int(tokens[-3] != "n")


def _names(lists: FileIndex, part: str, root: str) -> list[str]:
    url = lists.find([Place(f"{part}_split")])
    if url is None:
        raise DatasetError(
            f"{root}: no {part}_split.txt. LAD2000's lists come with its download only; put them "
            "under the root."
        )
    lines = urls.read_bytes(url).decode("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _recording(name: str, url: str, part: str, labels: FileIndex) -> Recording:
    label = label_of(name)
    annotation = labels.find([Place(f"gt_{name.removeprefix('v_')}")]) if label else None
    folders = PurePosixPath(url).parts
    return Recording(
        dataset="lad2000",
        video_id=name,
        url=url,
        split=part,
        label=label,
        class_name=next((c for c in LAD2000_CLASSES if c in folders), None),
        intervals=read_mat(annotation) if annotation else (None if label else ()),
    )


def _warnings(counts: Counter[tuple[str, int]], recordings: list[Recording]) -> tuple[str, ...]:
    warnings = [
        "A normal video carries the class of the category it was collected for: the class says "
        "what family of scene it is, not whether it is anomalous.",
    ]
    if counts != _COUNTS:
        found = ", ".join(f"{part} {label}: {counts[part, label]}" for part, label in _COUNTS)
        warnings.append(
            f"The split lists are not the published ones (train 958+482, test 280+280): {found}."
        )
    bare = sum(recording.intervals is None for recording in recordings)
    if bare:
        warnings.append(f"{bare} anomalous videos have no gt_<rest>.mat and so no frame labels.")
    return tuple(warnings)
