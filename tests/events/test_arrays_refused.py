"""Arrays in npz and HDF5 files that are no columns of events are refused by name."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import event_samples as packed
import h5py
import numpy as np
import pytest
from event_samples import make_events

from outspike.errors import MediaError
from outspike.events.reader import open_events

EVENTS = make_events(40)
COLUMNS = {key: getattr(EVENTS, key) for key in "txyp"}


def npz(**changed: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{**COLUMNS, **changed})
    return file.getvalue()


def rezipped(method: int = zipfile.ZIP_STORED, cut: str = "", kind: bytes = b"|u1") -> bytes:
    """Columns packed by ``method``, an entry without its values, polarities said to be ``kind``."""
    file = io.BytesIO()
    whole = zipfile.ZipFile(io.BytesIO(npz(width=346, height=260)))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in whole.namelist():
            data = whole.read(name).replace(b"|u1", kind)
            archive.writestr(name, data[:128] if name == cut else data)
    return file.getvalue()


def hdf5(change: Callable[[h5py.File], None], libver: str = "earliest", **changed: Any) -> bytes:
    """Columns as they are or as changed, and what else ``change`` does to the file."""
    file = io.BytesIO()
    with h5py.File(file, "w", libver=(libver, "v110")) as root:
        for key, column in {**COLUMNS, **changed}.items():
            chunks = tuple(min(side, 16) for side in np.shape(column)) or None
            root.create_dataset(f"events/{key}", data=column, chunks=chunks)
        change(root)
    return file.getvalue()


def prophesee(geometry: str = "346x260", polarity: str = "<i2") -> bytes:
    file = io.BytesIO()
    kinds = [("x", "<u2"), ("y", "<u2"), ("p", polarity), ("t", "<i8")]
    with h5py.File(file, "w") as root:
        root.attrs["geometry"] = geometry
        root["CD/events"] = np.zeros(5, dtype=kinds)
    return file.getvalue()


def put(key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(root: h5py.File) -> None:
        if key in root:
            del root[key]
        root[key] = value

    return change


def many(root: h5py.File) -> None:
    for number in range(20):
        root.create_group(f"group {number}")


def packed_by_lzf(root: h5py.File) -> None:
    del root["events/t"]
    root.create_dataset("events/t", data=EVENTS.t, compression="lzf")


def unchanged(root: h5py.File) -> None:
    pass


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "npz, a fraction of a pixel": (
        lambda: npz(width=346.5, height=260),
        "'width' is no single whole number",
    ),
    "npz, two widths": (lambda: npz(width=[1, 2], height=260), "'width' is no single whole number"),
    "npz, a width without its value": (
        lambda: rezipped(cut="width.npy"),
        "'width' is damaged: it ends early, 0 of 8 bytes",
    ),
    "npz, a single time": (lambda: npz(t=5), "'t' is a single number; expected one for every"),
    "npz, columns of two dimensions": (
        lambda: npz(x=EVENTS.x.reshape(2, -1)),
        "'x' is no array of numbers of one dimension",
    ),
    "npz, another compression": (
        lambda: rezipped(zipfile.ZIP_BZIP2),
        "compressed by method 12; expected 0 or 8",
    ),
    "npz, a type that NumPy does not have": (
        lambda: rezipped(kind=b"<b2"),
        "'p' is no array of numbers",
    ),
    "npz, a column short": (
        lambda: npz(y=EVENTS.y[:30]),
        "columns have lengths {'t': 40, 'x': 40, 'y': 30, 'p': 40}",
    ),
    "hdf5, two clock offsets": (
        lambda: hdf5(put("t_offset", np.zeros(2, np.int64))),
        "'t_offset' is no single whole number",
    ),
    "hdf5, columns of two dimensions": (
        lambda: hdf5(unchanged, x=np.zeros((40, 3), np.uint16)),
        "array 'x' has shape (40, 3)",
    ),
    "hdf5, a column of words": (
        lambda: hdf5(put("events/p", np.array([b"on"] * 40))),
        "'p' is no array of numbers",
    ),
    "hdf5, a column elsewhere": (
        lambda: hdf5(put("events/p", h5py.SoftLink("/polarities"))),
        "no column p; expected t, x, y and p",
    ),
    "hdf5, no events": (
        lambda: hdf5(put("events", np.zeros(3))),
        "no column t, x, y, p",
    ),
    "hdf5, LZF": (lambda: hdf5(packed_by_lzf), "HDF5 filter 32000 (LZF; rewrite the file"),
    "hdf5, an index of the newest kind": (
        lambda: hdf5(unchanged, "v110"),
        "in a layout of the newest kind",
    ),
    "hdf5, a group of many links": (
        lambda: hdf5(many, "v110", t=5),
        "a group of many links",
    ),
    "hdf5, a compound with fractions": (
        lambda: prophesee(polarity="<f4"),
        "field 'p' is of float32; expected whole numbers",
    ),
    "hdf5, a compound with words": (lambda: prophesee(polarity="S3"), "is no number inside it"),
    "hdf5, a sensor of no pixels": (lambda: prophesee("0x0"), "a sensor of 0x0 pixels"),
}


@pytest.mark.parametrize("name", CASES)
def test_arrays_that_are_no_columns_are_refused_by_name(tmp_path: Path, name: str) -> None:
    make, says = CASES[name]
    path = tmp_path / "file"
    path.write_bytes(make())
    with pytest.raises(MediaError) as caught:
        list(open_events(str(path)).chunks())
    assert says in str(caught.value)


def test_a_geometry_that_says_nothing_leaves_the_size_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(prophesee("as usual"))
    assert open_events(str(path)).info.size_source == "unknown"


def test_a_chunk_that_does_not_unpack_costs_what_follows(tmp_path: Path) -> None:
    """The checksum of deflate tells; events of the chunks before are read."""
    data = bytearray(packed.hdf5_prophesee(EVENTS))
    start = [at for at in range(len(data)) if data.startswith(b"\x78\x5e", at)][1]
    data[start + 2 : start + 12] = bytes(10)
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=f"chunk at byte {start} does not unpack"):
        list(open_events(str(path)).chunks())
    reader = open_events(str(path), on_error="resync")
    assert sum(len(chunk) for chunk in reader.chunks(8)) == 16
    assert reader.skipped == {"unreadable_events": 24}
