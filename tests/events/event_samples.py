"""Small recordings in every format, packed here by the formats' descriptions and not by our code.

Tests read them, the fuzz driver damages them. Rows count from the top in ``events``; the packers
turn them where a format counts from the bottom.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import lz4.frame
import numpy as np
import zstandard
from numcodecs import blosc

from outspike.events.columns import Events

SIZE = (346, 260)

#: A sensor on which a few hundred events meet each other.
SMALL = (16, 12)


@dataclass(frozen=True)
class Sample:
    """A file, what it holds, and the size to give where its header tells none."""

    data: bytes
    events: Events
    size: tuple[int, int] | None


def make_events(num: int = 40, size: tuple[int, int] = SIZE, seed: int = 0) -> Events:
    """Random events in order of time; several share a time stamp."""
    rng = np.random.default_rng(seed)
    return Events(
        100 + np.cumsum(rng.choice([0, 0, 1, 9, 300], num)),
        rng.integers(0, size[0], num).astype(np.uint16),
        rng.integers(0, size[1], num).astype(np.uint16),
        rng.integers(0, 2, num).astype(np.uint8),
    )


def random_events(
    num: int, seed: int = 0, span_us: int = 1_000_000, size: tuple[int, int] = SMALL
) -> Events:
    """Events at random times within ``span_us``, in order."""
    rng = np.random.default_rng(seed)
    return Events(
        np.sort(rng.integers(0, span_us, num)),
        rng.integers(0, size[0], num).astype(np.uint16),
        rng.integers(0, size[1], num).astype(np.uint16),
        rng.integers(0, 2, num).astype(np.uint8),
    )


def evt2(events: Events) -> bytes:
    words, high = [], -1
    for t, x, y, p in rows(events):
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    return b"% evt 2.0\n% end\n" + struct.pack(f"<{len(words)}I", *words)


def evt21(events: Events, *, swapped: bool = False) -> bytes:
    """One vector of 32 columns for each event; ``swapped`` as the IMX636 sends them."""
    words, high = [], -1
    for t, x, y, p in rows(events):
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 60 | (high & 0xFFFFFFF) << 32)
        words.append(p << 60 | (t & 63) << 54 | (x & ~31) << 43 | y << 32 | 1 << (x & 31))
    halves = np.array(words, dtype="<u8").view("<u4").reshape(-1, 2)
    kind = "legacy" if swapped else "little"
    header = f"% format EVT21;height=260;width=346;endianness={kind}\n% end\n".encode()
    return header + (halves[:, ::-1] if swapped else halves).tobytes()


def evt3(events: Events) -> bytes:
    words, high, low, row = [], -1, -1, -1
    for t, x, y, p in rows(events):
        if t >> 12 != high:
            high, low = t >> 12, -1
            words.append(8 << 12 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(6 << 12 | low)
        if y != row:
            row = y
            words.append(y)
        if x % 3:
            words.append(2 << 12 | p << 11 | x)
        else:
            words += [3 << 12 | p << 11 | x, 4 << 12 | 1, 5 << 12]
    return b"% evt 3.0\n% geometry 346x260\n" + struct.pack(f"<{len(words)}H", *words)


def dat(events: Events) -> bytes:
    records = [
        struct.pack("<II", t & 0xFFFFFFFF, p << 28 | y << 14 | x) for t, x, y, p in rows(events)
    ]
    header = b"% Data file containing CD events.\n% Version 2\n% Height 260\n% Width 346\n"
    return header + b"\x0c\x08" + b"".join(records)


def nmnist(events: Events) -> bytes:
    return b"".join(
        struct.pack(">BB", x, y) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in rows(events)
    )


def es(events: Events, height: int = SIZE[1]) -> bytes:
    parts, now = [b"Event Stream\x02\x00\x00\x01" + struct.pack("<HH", *SIZE)], 0
    for t, x, y, p in rows(events):
        whole, rest = divmod(t - now, 127)
        parts.append(b"\xff" * whole + struct.pack("<BHH", rest << 1 | p, x, height - 1 - y))
        now = t
    return b"".join(parts)


def aedat2(events: Events, *, chip: str = "eu.seebetter.ini.chips.davis.Davis346blue") -> bytes:
    width, height = (128, 128) if "DVS128" in chip else SIZE
    parts = [f"#!AER-DAT2.0\r\n# AEChip: {chip}\r\n# end of preferences\r\n".encode()]
    for index, (t, x, y, p) in enumerate(rows(events)):
        x, y = width - 1 - x, height - 1 - y
        if "DVS128" in chip:
            address = y << 8 | x << 1 | (1 - p)
        else:
            address = y << 22 | x << 12 | p << 11
            if index % 7 == 0:  # a sample of a frame between the events
                parts.append(struct.pack(">II", 1 << 31 | 12345, t & 0xFFFFFFFF))
        parts.append(struct.pack(">II", address, t & 0xFFFFFFFF))
    return b"".join(parts)


def aedat4(events: Events, compression: int = 1, *, table: bool = True) -> bytes:
    """Packets of seven events, with packets of another stream between them."""
    pack: Callable[[bytes], bytes] = {
        0: lambda data: data,
        1: lz4.frame.compress,
        3: zstandard.ZstdCompressor().compress,
    }[compression]
    packets = []
    for start in range(0, len(events), 7):
        part = events.slice(start, start + 7)
        packets.append((0, pack(_events_buffer(part))))
        packets.append((1, pack(b"not for us")))
    body = b"".join(struct.pack("<ii", key, len(data)) + data for key, data in packets)
    xml = (
        b'<dv version="2.0"><node name="outInfo" path="/o/">'
        b'<node name="0" path="/o/0/"><attr key="typeIdentifier" type="string">EVTS</attr>'
        b'<node name="info" path="/o/0/info/"><attr key="sizeX" type="int">346</attr>'
        b'<attr key="sizeY" type="int">260</attr></node></node>'
        b'<node name="1" path="/o/1/"><attr key="typeIdentifier" type="string">IMUS</attr></node>'
        b"</node></dv>"
    )
    version = b"#!AER-DAT4.0\r\n"
    header_bytes = len(_header_buffer(compression, 0, xml))
    end = len(version) + header_bytes + len(body) if table else -1
    header = _header_buffer(compression, end, xml)
    return version + header + body + (struct.pack("<I", 0) if table else b"")


def _header_buffer(compression: int, end: int, xml: bytes) -> bytes:
    """A table of compression (i32), position (i64) and text, its slots in front."""
    vtable = struct.pack("<HHHHH", 10, 20, 4, 8, 16)
    table = struct.pack("<iiqI", 12, compression, end, 4) + struct.pack("<I", len(xml)) + xml
    table += b"\0" * (-len(table) % 4)
    return _buffer(b"IOHE", vtable + b"\0\0", table, 12)


def _events_buffer(events: Events) -> bytes:
    vtable = struct.pack("<HHH", 6, 8, 4)
    items = b"".join(struct.pack("<qhhB3x", t, x, y, p) for t, x, y, p in rows(events))
    table = struct.pack("<iI", 8, 4) + struct.pack("<I", len(events)) + items
    return _buffer(b"EVTS", vtable + b"\0\0", table, 8)


def _buffer(identifier: bytes, vtable: bytes, table: bytes, vtable_bytes: int) -> bytes:
    assert len(vtable) == vtable_bytes
    body = struct.pack("<I", 8 + vtable_bytes) + identifier + vtable + table
    return struct.pack("<I", len(body)) + body


def npz(events: Events, *, compressed: bool = False, **beside: int) -> bytes:
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, t=events.t, x=events.x, y=events.y, p=events.p.astype(np.int16), **beside)
    return file.getvalue()


def mat(events: Events, *, compressed: bool = True, structure: bool = True) -> bytes:
    """Version 5: a structure ``TD`` of columns, or variables beside a text."""
    columns = {
        "x": events.x.astype("<u2"),
        "y": events.y.astype("<u2"),
        "ts": events.t.astype("<f8"),
        "p": events.p.astype("<i2"),
    }
    if structure:
        names = b"".join(name.encode().ljust(8, b"\0") for name in columns)
        fields = b"".join(_mat_matrix(b"", column) for column in columns.values())
        content = _element(5, struct.pack("<I", 8)) + _element(1, names) + fields
        elements = [_mat_head(2, (1, 1), b"TD") + content]
    else:
        elements = [_mat_matrix(name.encode(), column)[8:] for name, column in columns.items()]
        elements.insert(0, _mat_head(4, (1, 2), b"note") + _element(4, b"a\0b\0"))
    whole = [struct.pack("<II", 14, len(data)) + data for data in elements]
    if compressed:
        packed = [zlib.compress(data) for data in whole]
        whole = [struct.pack("<II", 15, len(data)) + data for data in packed]
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(whole)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def _mat_head(kind: int, dims: tuple[int, int], name: bytes) -> bytes:
    flags = _element(6, struct.pack("<II", kind, 0))
    return flags + _element(5, struct.pack("<ii", *dims)) + _element(1, name)


def _mat_matrix(name: bytes, column: np.ndarray) -> bytes:
    kind, stored = {"<u2": (11, 4), "<f8": (6, 9), "<i2": (10, 3)}[column.dtype.str]
    data = _mat_head(kind, (len(column), 1), name) + _element(stored, column.tobytes())
    return struct.pack("<II", 14, len(data)) + data


def hdf5_prophesee(events: Events) -> bytes:
    table = np.zeros(len(events), dtype=[("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for key in "txyp":
        table[key] = getattr(events, key)
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root.attrs["geometry"] = "346x260"
        root.create_dataset("CD/events", data=table, chunks=(16,), compression="gzip")
    return file.getvalue()


def hdf5_dsec(events: Events) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for key in "txyp":
            column = getattr(events, key)
            root.create_dataset(
                f"events/{key}", data=column.astype("<u4") if key == "t" else column, chunks=(16,)
            )
        root["t_offset"] = np.int64(49_599_300_523)
        root["ms_to_idx"] = np.zeros(2, dtype=np.uint64)
    return file.getvalue()


def hdf5_layouts(events: Events) -> bytes:
    """In the format of HDF5 1.10, each column in a layout of its own."""
    file = io.BytesIO()
    with h5py.File(file, "w", libver=("v110", "v110")) as root:
        group = root.create_group("events")
        for number in range(6):  # too much for one block of an object header
            group.attrs[f"note {number}"] = np.bytes_(b"x" * 60)
        packed = {"chunks": (len(events),), "compression": "gzip", "shuffle": True}
        group.create_dataset("t", data=events.t, fletcher32=True, **packed)
        group.create_dataset("x", data=events.x, chunks=(len(events),))
        group.create_dataset("y", data=events.y)
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((len(events),))
        column = h5py.h5d.create(group.id, b"p", h5py.h5t.STD_U8LE, space, plan)
        column.write(h5py.h5s.ALL, h5py.h5s.ALL, events.p)
    return file.getvalue()


def hdf5_blosc(events: Events) -> bytes:
    """Columns of 64-bit numbers in chunks of sixteen through Blosc, as DSEC publishes them."""
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as root:
        root.attrs["geometry"] = np.bytes_(b"346x260")
        for number in range(12):  # too much for one block of an object header
            root.attrs[f"note {number}"] = "of no interest here"
        for key in "txyp":
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((16,))
            plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 8, 128, 5, 1, 1))
            space = h5py.h5s.create_simple((len(events),))
            group = root.require_group("events")
            column = h5py.h5d.create(group.id, key.encode(), h5py.h5t.STD_I64LE, space, plan)
            values = getattr(events, key).astype("<i8")
            for start in range(0, len(events), 16):
                chunk = np.zeros(16, "<i8")
                chunk[: len(values) - start] = values[start : start + 16]
                column.write_direct_chunk((start,), blosc.compress(chunk.tobytes(), b"lz4", 5))
    return file.getvalue()


def rows(events: Events) -> list[tuple[int, int, int, int]]:
    """Events one by one as plain numbers."""
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def samples() -> dict[str, list[Sample]]:
    """By codec."""
    wide, small = make_events(), make_events(size=(128, 128))
    tiny = make_events(size=(34, 34))
    return {
        "evt2": [Sample(evt2(wide), wide, SIZE)],
        "evt21": [
            Sample(evt21(wide), wide, None),
            Sample(evt21(wide, swapped=True), wide, None),
        ],
        "evt3": [Sample(evt3(wide), wide, None)],
        "dat": [Sample(dat(wide), wide, None)],
        "nmnist": [Sample(nmnist(tiny), tiny, (34, 34))],
        "es": [Sample(es(wide), wide, None)],
        "aedat2": [
            Sample(aedat2(wide), wide, None),
            Sample(aedat2(small, chip="ch.unizh.ini.jaer.chip.retina.DVS128"), small, None),
        ],
        "aedat4": [
            Sample(aedat4(wide, 0), wide, None),
            Sample(aedat4(wide, 1), wide, None),
            Sample(aedat4(wide, 3, table=False), wide, None),
        ],
        "npz": [
            Sample(npz(wide), wide, SIZE),
            Sample(npz(wide, compressed=True), wide, SIZE),
            Sample(npz(wide, width=346, height=260, anchor_us=90), wide, None),
        ],
        "mat": [
            Sample(mat(wide, compressed=False), wide, SIZE),
            Sample(mat(wide), wide, SIZE),
            Sample(mat(wide, structure=False, compressed=False), wide, SIZE),
        ],
        "hdf5": [
            Sample(hdf5_prophesee(wide), wide, None),
            Sample(hdf5_dsec(wide), wide, SIZE),
            Sample(hdf5_layouts(wide), wide, SIZE),
            Sample(hdf5_blosc(wide), wide, SIZE),
        ],
    }
