"""Files that events are appended to, one class a format."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from outspike.events import dat
from outspike.events.columns import Events
from outspike.events.raw_encode import RAW_ENCODERS

Size = tuple[int, int]
Facts = dict[str, int]

_COLUMNS = {"t": np.int64, "x": np.uint16, "y": np.uint16, "p": np.uint8}
_COPY_BYTES = 1 << 20


class EventFile(Protocol):
    """A file of one format that grows."""

    def push(self, events: Events) -> None:
        """Append the next events, at least one."""

    def close(self, complete: bool) -> None:
        """Finish the file, or only let go of it."""


class RawFile:
    """EVT 2.0 or EVT 3.0 words behind a text header."""

    def __init__(self, path: Path, size: Size, facts: Facts, format: str) -> None:
        version = {"evt2": 2, "evt3": 3}[format]
        lines = [
            f"evt {version}.0",
            f"format EVT{version};height={size[1]};width={size[0]}",
            f"geometry {size[0]}x{size[1]}",
            *(f"{key} {value}" for key, value in facts.items()),
            "end",
        ]
        self._encode = RAW_ENCODERS[format]
        self._before: Events | None = None
        self._file = open(path, "wb")  # noqa: SIM115  # close() closes it
        self._file.write("".join(f"% {line}\n" for line in lines).encode())

    def push(self, events: Events) -> None:
        """Append the words of the next events."""
        self._file.write(self._encode(events, self._before).tobytes())
        self._before = events.slice(len(events) - 1, len(events))

    def close(self, complete: bool) -> None:
        """Let go of the file; words need no end."""
        self._file.close()


class DatFile:
    """DAT records of contrast detection events behind a text header."""

    def __init__(self, path: Path, size: Size, facts: Facts) -> None:
        lines = [
            "Data file containing CD events.",
            "Version 2",
            f"Height {size[1]}",
            f"Width {size[0]}",
            *(f"{key} {value}" for key, value in facts.items()),
        ]
        self._file = open(path, "wb")  # noqa: SIM115  # close() closes it
        self._file.write("".join(f"% {line}\n" for line in lines).encode())
        self._file.write(bytes([dat.EVENT_CD, dat.EVENT_SIZE]))

    def push(self, events: Events) -> None:
        """Append the records of the next events."""
        self._file.write(_dat_records(events).tobytes())

    def close(self, complete: bool) -> None:
        """Let go of the file; records need no end."""
        self._file.close()


def _dat_records(events: Events) -> NDArray[Any]:
    records = np.empty(len(events), dtype=dat.RECORD)
    records["t"] = events.t & 0xFFFFFFFF
    y, p = events.y.astype(np.uint32), events.p.astype(np.uint32)
    records["address"] = p << 2 * dat.ADDRESS_BITS | y << dat.ADDRESS_BITS | events.x
    return records


class NpzFile:
    """Columns of an npz archive. They wait in files of their own, as each must know its length."""

    def __init__(self, path: Path, size: Size, facts: Facts) -> None:
        self._path = path
        self._scalars = {"width": size[0], "height": size[1], **facts}
        self._num_events = 0
        self._parts = {key: path.with_name(f"{path.name}.{key}") for key in _COLUMNS}
        self._closing = ExitStack()
        for part in self._parts.values():
            self._closing.callback(part.unlink, missing_ok=True)
        self._files = {
            key: self._closing.enter_context(part.open("w+b")) for key, part in self._parts.items()
        }

    def push(self, events: Events) -> None:
        """Append the next events to the waiting columns."""
        for key, dtype in _COLUMNS.items():
            self._files[key].write(np.ascontiguousarray(getattr(events, key), dtype=dtype).data)
        self._num_events += len(events)

    def close(self, complete: bool) -> None:
        """Make the archive, and remove the waiting columns."""
        with self._closing:
            if complete:
                with zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED) as archive:
                    self._fill(archive)

    def _fill(self, archive: zipfile.ZipFile) -> None:
        for key, dtype in _COLUMNS.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                npy.write_array_header_1_0(entry, _header((self._num_events,), np.dtype(dtype)))
                self._files[key].seek(0)
                shutil.copyfileobj(self._files[key], entry, _COPY_BYTES)
        for key, value in self._scalars.items():
            with archive.open(f"{key}.npy", "w") as entry:
                npy.write_array_header_1_0(entry, _header((), np.dtype(np.int64)))
                entry.write(np.int64(value).tobytes())


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}


#: ``(path, size, facts) -> file``, by format.
EVENT_FILES: dict[str, Callable[[Path, Size, Facts], EventFile]] = {
    "evt2": lambda path, size, facts: RawFile(path, size, facts, "evt2"),
    "evt3": lambda path, size, facts: RawFile(path, size, facts, "evt3"),
    "dat": DatFile,
    "npz": NpzFile,
}


def blocks(events: Events, num_events: int) -> Iterator[Events]:
    """Consecutive parts of at most ``num_events`` events."""
    for start in range(0, len(events), num_events):
        yield events.slice(start, start + num_events)
