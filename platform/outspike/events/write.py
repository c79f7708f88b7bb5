"""Write event recordings: Prophesee EVT 2.0 and EVT 3.0 raw files, and npz."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError
from outspike.events.columns import Events
from outspike.events.raw_words import MAX_SIDE, Evt2, Evt3, TimeLayout

EventFormat = Literal["evt2", "evt3", "npz"]

#: Later times (51 days) are wall-clock times whose anchor was not subtracted.
_MAX_RAW_US = 1 << 42
_EVENTS_PER_WRITE = 1 << 20


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
        events: sorted by time (equal times keep their order).
        format: ``evt3``, ``evt2`` or ``npz``.
        size: width and height of the sensor, stored with the events.
        anchor_us: start of the recording on the clock of ``events.t``, where it is known.
        duration_us: length of the recording, where it is known (there may be silence at the end).

    Raises:
        ConfigError: times go backwards or are out of range, or a pixel lies outside ``size``.
    """
    path = Path(path)
    _check(path, events, size, raw=format != "npz")
    facts = {"anchor_us": anchor_us, "duration_us": duration_us}
    known = {key: value for key, value in facts.items() if value is not None}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if format == "npz":
            _write_npz(partial, events, size, known)
        else:
            _write_raw(partial, events, format, size, known)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path, events: Events, size: tuple[int, int], *, raw: bool) -> None:
    width, height = size
    if raw and max(size) > MAX_SIDE:
        raise ConfigError(
            f"{path}: {width}x{height} exceeds the format's {MAX_SIDE} pixels a side."
        )
    if not len(events):
        return
    if int(events.x.max()) >= width or int(events.y.max()) >= height:
        raise ConfigError(
            f"{path}: events reach pixel ({events.x.max()}, {events.y.max()}), outside "
            f"{width}x{height}."
        )
    if (np.diff(events.t) < 0).any():
        raise ConfigError(f"{path}: event times go backwards; sort them (stably) first.")
    if raw and not 0 <= int(events.t[0]) <= int(events.t[-1]) < _MAX_RAW_US:
        raise ConfigError(
            f"{path}: times {events.t[0]}..{events.t[-1]} us do not fit the format; subtract the "
            "start of the recording."
        )


def _write_npz(path: Path, events: Events, size: tuple[int, int], facts: dict[str, int]) -> None:
    scalars: dict[str, Any] = {"width": size[0], "height": size[1], **facts}
    columns: dict[str, Any] = {"t": events.t, "x": events.x, "y": events.y, "p": events.p}
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **columns, **scalars)


def _write_raw(
    path: Path, events: Events, format: str, size: tuple[int, int], facts: dict[str, int]
) -> None:
    width, height = size
    version = {"evt2": 2, "evt3": 3}[format]
    encode = _ENCODERS[format]
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


def _encode_evt3(events: Events, before: Events | None) -> NDArray[np.uint16]:
    """Words of consecutive events; ``before`` is the one event written last."""
    owner, high = _high_words(events.t, before, Evt3.TIME)
    num_high = np.bincount(owner, minlength=len(events))
    new_time = (_shifted_difference(events.t, before.t if before else None) != 0) | (num_high > 0)
    new_row = _shifted_difference(events.y, before.y if before else None) != 0
    stop = np.cumsum(num_high + new_time + new_row + 1)
    words = np.empty(int(stop[-1]), dtype="<u2")
    # An event's words end with its column; row, low time and high times come before it.
    words[stop - 1] = Evt3.ADDR_X << 12 | events.p.astype(np.uint16) << 11 | events.x
    words[(stop - 2)[new_row]] = Evt3.ADDR_Y << 12 | events.y[new_row]
    low = (events.t & 0xFFF).astype(np.uint16)
    words[(stop - 2 - new_row)[new_time]] = Evt3.TIME_LOW << 12 | low[new_time]
    first = stop - 1 - new_row - new_time - num_high
    words[first[owner] + _rank_in_group(owner, num_high)] = Evt3.TIME_HIGH << 12 | high
    return words


def _encode_evt2(events: Events, before: Events | None) -> NDArray[np.uint32]:
    owner, high = _high_words(events.t, before, Evt2.TIME)
    num_high = np.bincount(owner, minlength=len(events))
    stop = np.cumsum(num_high + 1)
    words = np.empty(int(stop[-1]), dtype="<u4")
    low = (events.t & 0x3F).astype(np.uint32)
    kind = events.p.astype(np.uint32)  # CD_OFF is 0, CD_ON is 1
    words[stop - 1] = kind << 28 | low << 22 | events.x.astype(np.uint32) << 11 | events.y
    first = stop - 1 - num_high
    words[first[owner] + _rank_in_group(owner, num_high)] = Evt2.TIME_HIGH << 28 | high
    return words


_ENCODERS: dict[str, Callable[[Events, Events | None], NDArray[Any]]] = {
    "evt2": _encode_evt2,
    "evt3": _encode_evt3,
}


def _high_words(
    t_us: NDArray[np.int64], before: Events | None, layout: TimeLayout
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """High time words as (index of the event that each precedes, value).

    The counter starts again after ``layout.period`` words. A reader can only follow that if it
    never jumps by half a period or more, so long gaps, and a late start, get words in between.
    """
    step = layout.period // 4
    high = t_us >> layout.low_bits
    previous = np.empty_like(high)
    previous[1:] = high[:-1]
    previous[:1] = before.t >> layout.low_bits if before else 0
    count = -(-(high - previous) // step)
    if before is None:
        count[0] = max(count[0], 1)
    owner = np.repeat(np.arange(len(high)), count)
    between = previous[owner] + step * (_rank_in_group(owner, count) + 1)
    return owner, np.minimum(between, high[owner]) % layout.period


def _rank_in_group(owner: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal ``owner``."""
    start = np.cumsum(count) - count
    ranks: NDArray[np.int64] = np.arange(len(owner)) - start[owner]
    return ranks


def _shifted_difference(values: NDArray[Any], before: NDArray[Any] | None) -> NDArray[np.int64]:
    """Difference to the value before; the very first one always counts as changed."""
    difference = np.ones(len(values), dtype=np.int64)
    wide = values.astype(np.int64)
    difference[1:] = np.diff(wide)
    if before is not None:
        difference[0] = wide[0] - int(before[0])
    return difference
