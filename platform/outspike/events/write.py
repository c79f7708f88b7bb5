"""Write event recordings: Prophesee EVT 2.0 and EVT 3.0 raw files, DAT, and npz."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError
from outspike.events import dat
from outspike.events.columns import Events
from outspike.events.raw_encode import RAW_ENCODERS
from outspike.events.raw_words import MAX_JITTER_US, MAX_SIDE
from outspike.events.records import LONGEST_US

EventFormat = Literal["evt2", "evt3", "dat", "npz"]

#: Later times (51 days) are wall-clock times whose anchor was not subtracted.
_MAX_RAW_US = 1 << 42
_EVENTS_PER_WRITE = 1 << 20

#: Pixels a side that an address holds; npz has none of its own.
_SIDES = {"evt2": MAX_SIDE, "evt3": MAX_SIDE, "dat": 1 << dat.ADDRESS_BITS}


def write_events(
    path: str | Path,
    events: Events,
    *,
    format: EventFormat,
    size: tuple[int, int],
    anchor_us: int | None = None,
    duration_us: int | None = None,
) -> None:
    """Write a whole recording to a local file, which appears under its name only when complete.

    Args:
        path: local file.
        events: sorted by time (equal times keep their order); DAT and npz also take the small
            steps back of readout jitter, which raw words cannot tell from damage.
        format: ``evt3``, ``evt2``, ``dat`` or ``npz``.
        size: width and height of the sensor, stored with the events.
        anchor_us: start of the recording on the clock of ``events.t``, where it is known.
        duration_us: length of the recording, where it is known (there may be silence at the end).

    Raises:
        ConfigError: times go backwards or are out of range, or a pixel lies outside ``size``.
    """
    path = Path(path)
    _check(path, events, size, format)
    facts = {"anchor_us": anchor_us, "duration_us": duration_us}
    known = {key: value for key, value in facts.items() if value is not None}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if format == "npz":
            _write_npz(partial, events, size, known)
        elif format == "dat":
            _write_dat(partial, events, size, known)
        else:
            _write_raw(partial, events, format, size, known)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path, events: Events, size: tuple[int, int], format: EventFormat) -> None:
    width, height = size
    if max(size) > _SIDES.get(format, max(size)):
        raise ConfigError(
            f"{path}: {width}x{height} exceeds the format's {_SIDES[format]} pixels a side."
        )
    if not len(events):
        return
    if int(events.x.max()) >= width or int(events.y.max()) >= height:
        raise ConfigError(
            f"{path}: events reach pixel ({events.x.max()}, {events.y.max()}), outside "
            f"{width}x{height}."
        )
    if int(events.p.max()) > 1:
        raise ConfigError(f"{path}: polarities reach {events.p.max()}; expected 0 and 1.")
    _check_times(path, events.t, format)


def _check_times(path: Path, t_us: NDArray[np.int64], format: EventFormat) -> None:
    raw = format in RAW_ENCODERS
    late_us = int((np.maximum.accumulate(t_us) - t_us).max())
    if late_us > (0 if raw else MAX_JITTER_US):
        raise ConfigError(
            f"{path}: event times go backwards by {late_us} us; sort them (stably) first."
        )
    limit_us = {"npz": 1 << 62, "dat": 1 << 62}.get(format, _MAX_RAW_US)
    lowest_us = -limit_us if format == "npz" else 0
    if not lowest_us <= int(t_us.min()) <= int(t_us.max()) < limit_us:
        raise ConfigError(
            f"{path}: times {t_us.min()}..{t_us.max()} us do not fit the format; subtract the "
            "start of the recording."
        )
    if format == "dat" and (
        int(t_us[0]) >= 1 << 32 or int(np.diff(t_us).max(initial=0)) >= LONGEST_US
    ):
        raise ConfigError(
            f"{path}: DAT counts times in 32 bits, so it holds no start past 71 minutes and no "
            "silence of 17; subtract the start of the recording, or write evt3 or npz."
        )


def _write_npz(path: Path, events: Events, size: tuple[int, int], facts: dict[str, int]) -> None:
    scalars: dict[str, Any] = {"width": size[0], "height": size[1], **facts}
    columns: dict[str, Any] = {"t": events.t, "x": events.x, "y": events.y, "p": events.p}
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **columns, **scalars)


def _write_dat(path: Path, events: Events, size: tuple[int, int], facts: dict[str, int]) -> None:
    lines = [
        "Data file containing CD events.",
        "Version 2",
        f"Height {size[1]}",
        f"Width {size[0]}",
        *(f"{key} {value}" for key, value in facts.items()),
    ]
    with open(path, "wb") as file:
        file.write("".join(f"% {line}\n" for line in lines).encode())
        file.write(bytes([dat.EVENT_CD, dat.EVENT_SIZE]))
        for start in range(0, len(events), _EVENTS_PER_WRITE):
            file.write(_encode_dat(events.slice(start, start + _EVENTS_PER_WRITE)).tobytes())


def _encode_dat(events: Events) -> NDArray[Any]:
    records = np.empty(len(events), dtype=dat.RECORD)
    records["t"] = events.t & 0xFFFFFFFF
    y, p = events.y.astype(np.uint32), events.p.astype(np.uint32)
    records["address"] = p << 2 * dat.ADDRESS_BITS | y << dat.ADDRESS_BITS | events.x
    return records


def _write_raw(
    path: Path, events: Events, format: str, size: tuple[int, int], facts: dict[str, int]
) -> None:
    width, height = size
    version = {"evt2": 2, "evt3": 3}[format]
    encode = RAW_ENCODERS[format]
    lines = [
        f"evt {version}.0",
        f"format EVT{version};height={height};width={width}",
        f"geometry {width}x{height}",
        *(f"{key} {value}" for key, value in facts.items()),
        "end",
    ]
    with open(path, "wb") as file:
        file.write("".join(f"% {line}\n" for line in lines).encode())
        for start in range(0, len(events), _EVENTS_PER_WRITE):
            before = events.slice(start - 1, start) if start else None
            words = encode(events.slice(start, start + _EVENTS_PER_WRITE), before)
            file.write(words.tobytes())
