"""Event-frame downloads of UCF-Crime-DVS, turned into event recordings that everything here reads.

A download holds ``frames`` ``[T, 2, H, W]``: counts of OFF and ON events per window and pixel, as
doubles, hundreds of megabytes a recording (``ucf_crime_dvs_msf.md`` section 1.3). Each count
becomes as many events at the beginning of its window; the times inside a window are lost for good.
So features that look inside a snippet (event-pyramid, a spiking network with several steps a
snippet) mean little on them; Spikingformer in its published form takes a window as one step and
loses nothing.
"""

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import ConfigError, DatasetError

_COLUMNS = {"t": np.int64, "x": np.uint16, "y": np.uint16, "p": np.uint8}
_MOST_COUNTS = np.iinfo(np.uint16).max
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Converted:
    """What one conversion has shown."""

    num_windows: int
    num_events: int
    size: tuple[int, int]
    """Width, height."""


def window_of(url: str) -> int:
    """Microseconds of a window, from the folder that the download keeps its frames in.

    Raises:
        ConfigError: windows of equally many events, which lie on no clock, or an unknown folder.
    """
    folders = "/".join(PurePosixPath(url).parts)
    if match := re.search(r"(?:^|/)duration_(\d+)(?:/|$)", folders):
        return int(match[1])
    if re.search(r"(?:^|/)frames_number_\d+_split_by_", folders):
        raise ConfigError(
            f"{url}: windows of a fixed number a recording do not lie on the frame clock, so no "
            "label can be laid on them; use the duration_<microseconds> frames or the events."
        )
    raise ConfigError(
        f"{url}: no folder duration_<microseconds> tells how long a window is; give window_us."
    )


def convert(url: str, target: str | Path, *, window_us: int | None = None) -> Converted:
    """Write the events that event frames stand for as ``.npz`` with columns t, x, y, p.

    One window is held at a time. Counts are checked, and the file appears once it is whole.

    Raises:
        ConfigError: no length of a window; see :func:`window_of`.
        DatasetError: not such a file, or counts that are negative, broken or not whole.
    """
    window_us = window_of(url) if window_us is None else window_us
    if window_us < 1:
        raise ConfigError(f"window_us={window_us}: at least one microsecond.")
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".frames-") as folder:
        spools = {name: Path(folder) / name for name in _COLUMNS}
        num_events = num_windows = 0
        height = width = 0
        files = {name: path.open("wb") for name, path in spools.items()}
        try:
            for counts in _windows(url):
                height, width = counts.shape[1:]
                columns = _events(counts, num_windows * window_us)
                for name, file in files.items():
                    file.write(columns[name].tobytes())
                num_events += len(columns["t"])
                num_windows += 1
        finally:
            for file in files.values():
                file.close()
        facts = {
            "width": width,
            "height": height,
            "anchor_us": 0,
            "duration_us": num_windows * window_us,
        }
        whole = Path(folder) / "whole.npz"
        _zip(whole, spools, num_events, facts)
        whole.replace(target)
    return Converted(num_windows, num_events, (width, height))


def _windows(url: str) -> Iterator[NDArray[np.int64]]:
    """Counts ``[2, H, W]`` of each window, checked."""
    with urls.open_url(url) as file:
        try:
            archive = zipfile.ZipFile(file)
            names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise DatasetError(f"{url}: not an .npz file ({error}).") from error
        if "frames.npy" not in names:
            raise DatasetError(
                f"{url}: no array 'frames', only {', '.join(names) or 'nothing'}; a file of events "
                "(t, x, y, p) needs no conversion."
            )
        with archive.open("frames.npy") as entry:
            shape, dtype = _header(url, entry)
            size = int(np.prod(shape[1:])) * dtype.itemsize
            for window in range(shape[0]):
                data = _read(url, entry, size, window)
                yield _counts(np.frombuffer(data, dtype=dtype).reshape(shape[1:]), url, window)


def _header(url: str, entry: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(entry)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(entry)
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DatasetError(f"{url}: 'frames' is no array ({error}).") from error
    if len(shape) != 4 or shape[1] != 2 or 0 in shape or dtype.kind not in "iuf" or is_fortran:
        raise DatasetError(
            f"{url}: 'frames' is {dtype} of shape {shape}; expected counts [T, 2, H, W]."
        )
    return shape, dtype


def _read(url: str, entry: IO[bytes], size: int, window: int) -> bytes:
    try:
        data = entry.read(size)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DatasetError(f"{url}: window {window} is damaged ({error}).") from error
    if len(data) != size:
        raise DatasetError(f"{url}: the file ends in window {window}; it was not copied whole.")
    return data


def _counts(values: NDArray[Any], url: str, window: int) -> NDArray[np.int64]:
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= _MOST_COUNTS):  # NaN fails both
        raise DatasetError(
            f"{url}: window {window} has counts from {lowest} to {highest}; expected 0 to "
            f"{_MOST_COUNTS}."
        )
    counts = values.astype(np.int64)
    if not (counts == values).all():
        raise DatasetError(f"{url}: window {window} has counts that are not whole numbers.")
    return counts


def _events(counts_PHW: NDArray[np.int64], start_us: int) -> dict[str, NDArray[Any]]:
    polarity, row, column = np.nonzero(counts_PHW)
    times = counts_PHW[polarity, row, column]
    values = {"x": column, "y": row, "p": polarity}
    columns: dict[str, NDArray[Any]] = {
        name: np.repeat(value, times).astype(_COLUMNS[name]) for name, value in values.items()
    }
    columns["t"] = np.full(int(times.sum()), start_us, dtype=np.int64)
    return columns


def _zip(target: Path, spools: dict[str, Path], length: int, facts: dict[str, int]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in spools.items():
            descr = npy.dtype_to_descr(np.dtype(_COLUMNS[name]))
            header = {"descr": descr, "fortran_order": False, "shape": (length,)}
            with (
                archive.open(f"{name}.npy", "w", force_zip64=True) as entry,
                path.open("rb") as raw,
            ):
                npy.write_array_header_1_0(entry, header)
                shutil.copyfileobj(raw, entry, _COPY_BYTES)
        for name, value in facts.items():
            with archive.open(f"{name}.npy", "w") as entry:
                npy.write_array(entry, np.array(value, dtype=np.int64), allow_pickle=False)
