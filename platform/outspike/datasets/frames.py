"""Data sets published as folders of pictures, packed into one clip a folder.

UCSD Ped2 comes as TIFF frames, the test part of ShanghaiTech as JPEG frames. A recording is one
file everywhere else in this package, so such folders are encoded once, nearly without loss, and
found under their folder's name from then on.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from outspike import urls
from outspike.datasets.files import FileTree
from outspike.errors import DatasetError, MediaError
from outspike.video.write import write_mp4

PICTURE_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp")


def pack_folders(source: str, target: str | Path, *, fps: Fraction, crf: int = 10) -> list[Path]:
    """Write ``TARGET/<folder>.mp4`` for every folder of pictures under ``source``.

    Pictures are ordered by the number in their name. A clip that exists already is left as it is,
    so an interrupted run goes on where it stopped.

    Args:
        source: Local folder or ``s3://`` prefix, searched at any depth.
        target: Local folder; made if absent.
        fps: Frame rate to write; the pictures carry none (Ped2: 10, ShanghaiTech: 24).
        crf: Quality of the H.264 encoding: smaller is nearer to the pictures, and larger on disk.

    Returns:
        Path of every clip, in order of folder.

    Raises:
        DatasetError: no pictures there, two folders of one name, or names without a number.
        MediaError: a picture that cannot be decoded.
    """
    folders = _picture_folders(FileTree.scan(source))
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, pictures in folders.items():
        path = target / f"{name}.mp4"
        if not path.exists():
            write_mp4(path, _decoded(pictures), fps=fps, crf=crf)
        written.append(path)
    return written


def _picture_folders(tree: FileTree) -> dict[str, list[str]]:
    """Folder name to the urls of its pictures in frame order; masks (``*_gt``) are left out."""
    by_folder: dict[PurePosixPath, list[str]] = defaultdict(list)
    for path in tree.urls:
        parent = PurePosixPath(path).parent
        if path.lower().endswith(PICTURE_SUFFIXES) and not parent.name.endswith("_gt"):
            by_folder[parent].append(path)
    if not by_folder:
        raise DatasetError(f"{tree.root}: no folder with pictures ({', '.join(PICTURE_SUFFIXES)}).")
    folders: dict[str, list[str]] = {}
    for folder, paths in sorted(by_folder.items()):
        name = folder.name or PurePosixPath(tree.root).name
        if name in folders:
            raise DatasetError(
                f"{tree.root}: two folders of pictures are called {name!r}; pack them one by one."
            )
        folders[name] = [tree.urls[path] for path in sorted(paths, key=_frame_number)]
    return folders


def _frame_number(path: str) -> int:
    digits = re.findall(r"\d+", PurePosixPath(path).stem)
    if not digits:
        raise DatasetError(f"{path}: a frame's name must hold its number.")
    return int(digits[-1])


def _decoded(pictures: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
    for url in pictures:
        try:
            with av.open(io.BytesIO(urls.read_bytes(url)), mode="r") as container:
                frame = next(container.decode(video=0))
        except (FFmpegError, StopIteration) as error:
            raise MediaError(
                f"{url}: not a readable picture ({type(error).__name__}).", reason="corrupt"
            ) from error
        yield cast(NDArray[np.uint8], frame.to_ndarray(format="rgb24"))
