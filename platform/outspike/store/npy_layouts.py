"""The ways in which published features lie on disk, as folders of ``.npy`` files.

A layout says how a recording's files are called and which axis is which; :meth:`Layout.group` finds
the recordings among many paths, :meth:`Layout.read` and :meth:`Layout.write` turn their arrays into
``[S, K, D]`` and back. Arrays are never unpickled.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import DatasetError

#: More crops than any published set has: an axis longer than this is taken for snippets.
_MOST_CROPS = 16
_CROP = re.compile(r"(?P<id>.+?)(?:__(?P<crop>\d+))?")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of keeping the features of a recording.

    ``ending`` follows the recording's id in the path. ``axes`` are those of one file: ``SD``, or
    with the crops first (``KSD``) or second (``SKD``). ``crop_files`` keep one ``SD`` file a crop,
    ``<id>__<crop>``; ``bare_first`` leaves the number off crop 0 when writing, reading takes both.
    """

    summary: str
    ending: str = ".npy"
    axes: Literal["SD", "KSD", "SKD"] = "SD"
    crop_files: Literal["no", "numbered", "bare_first"] = "no"

    def group(self, paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Recording id to its files, crops in order; other files are left out.

        Raises:
            DatasetError: a crop is there twice or left out.
        """
        if self.crop_files == "no":
            found = [p for p in paths if p.endswith(self.ending) and p != self.ending]
            return {path.removesuffix(self.ending): (path,) for path in sorted(found)}
        crops: dict[str, dict[int, str]] = {}
        for path in sorted(paths):
            match = _CROP.fullmatch(path.removesuffix(self.ending))
            if not path.endswith(self.ending) or match is None:
                continue
            known = crops.setdefault(match["id"], {})
            crop = int(match["crop"] or 0)
            if crop in known:
                raise DatasetError(f"{path}: crop {crop} of {match['id']} is also {known[crop]}.")
            known[crop] = path
        for video_id, known in crops.items():
            if sorted(known) != list(range(len(known))):
                raise DatasetError(
                    f"{video_id}: crop files {sorted(known)}; expected 0 to {max(known)}, none "
                    "left out."
                )
        return {name: tuple(known[crop] for crop in sorted(known)) for name, known in crops.items()}

    def read(self, files: Sequence[str]) -> NDArray[np.floating]:
        """The features of one recording from the addresses of its files, ``[S, K, D]``.

        Raises:
            DatasetError: a file is no plain array of floats of this layout, or crops differ.
        """
        arrays = [load_array(url) for url in files]
        for url, array in zip(files, arrays, strict=True):
            self._check(url, array)
        if self.crop_files != "no":
            shapes = {array.shape for array in arrays}
            if len(shapes) > 1:
                raise DatasetError(f"{files[0]}: its crops have shapes {sorted(shapes)}.")
            return np.stack(arrays, axis=1)
        (array,) = arrays
        if self.axes == "SD":
            return array[:, None]
        return array.transpose(1, 0, 2) if self.axes == "KSD" else array

    def write(self, features_SKD: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
        """What follows the id in the path of each file, and the array to put there.

        Raises:
            DatasetError: several crops, where the layout keeps one.
        """
        num_crops = features_SKD.shape[1]
        if self.crop_files != "no":
            bare = self.crop_files == "bare_first"
            return {
                ("" if bare and k == 0 else f"__{k}") + self.ending: features_SKD[:, k]
                for k in range(num_crops)
            }
        if self.axes == "SD" and num_crops > 1:
            raise DatasetError(
                f"{num_crops} crops do not fit a layout of one row a snippet ({self.summary}); "
                "choose another one."
            )
        arrays = {
            "SD": features_SKD[:, 0],
            "KSD": features_SKD.transpose(1, 0, 2),
            "SKD": features_SKD,
        }
        return {self.ending: arrays[self.axes]}

    def _check(self, url: str, array: NDArray[Any]) -> None:
        if array.dtype.kind != "f" or array.ndim != len(self.axes):
            raise DatasetError(
                f"{url}: {array.dtype} of shape {array.shape}; this layout keeps floats "
                f"[{', '.join(self.axes)}] ({self.summary})."
            )
        if "K" in self.axes and array.shape[self.axes.index("K")] > _MOST_CROPS:
            raise DatasetError(
                f"{url}: shape {array.shape} has {array.shape[self.axes.index('K')]} crops; are "
                "the snippets on that axis? Choose crops-first or snippets-first accordingly."
            )


LAYOUTS: Mapping[str, Layout] = {
    "rows": Layout(summary="<id>.npy [n, D]: Spikingformer, one crop"),
    "crops-first": Layout(summary="<id>.npy [K, n, D]", axes="KSD"),
    "snippets-first": Layout(summary="<id>.npy [n, K, D]: I3D of RTFM", axes="SKD"),
    "crop-files": Layout(
        summary="<id>__0.npy .. __9.npy, [n, D] each: CLIP and event-CLIP of IEF-VAD",
        crop_files="numbered",
    ),
    "crop-files-bare": Layout(
        summary="<id>.npy, <id>__1.npy .. __9.npy, [n, D] each: I3D of UCF-Crime",
        crop_files="bare_first",
    ),
    "lad": Layout(summary="<id>/feature.npy [n, D]: I3D of LAD2000", ending="/feature.npy"),
    "clip": Layout(summary="<id>_clip.npy [K, n, D]: GV-VAD", ending="_clip.npy", axes="KSD"),
    "emb": Layout(summary="<id>_emb.npy [n, D]: text of GV-VAD", ending="_emb.npy"),
}


def load_array(url: str) -> NDArray[Any]:
    """A ``.npy`` array; objects in it are refused.

    Raises:
        DatasetError: not a ``.npy`` file of plain numbers, or cut short.
    """
    try:
        array: NDArray[Any] = np.load(io.BytesIO(urls.read_bytes(url)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and getattr(error, "filename", None):
            raise
        raise DatasetError(f"{url}: not a .npy array of plain numbers ({error}).") from error
    return array


def save_array(url: str, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file in C order."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    urls.write_bytes(url, buffer.getvalue())
