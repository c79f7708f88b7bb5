"""Columns are used again only when nothing refers to them any more."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from outspike.events.codec import Source
from outspike.events.column_pool import ColumnPool
from outspike.events.columns import Events
from outspike.events.raw_decode import EVT2, raw_pieces


def address(events: Events) -> int:
    return int(events.t.ctypes.data)


def test_columns_come_back_when_they_are_dropped() -> None:
    pool = ColumnPool(100)
    first = pool.take()
    place = address(first)
    del first
    assert address(pool.take()) == place


def test_a_slice_of_one_column_keeps_all_four() -> None:
    """Whatever is made of the columns refers to them: views, Arrow arrays, memoryviews."""
    pool = ColumnPool(100)
    for keep in (
        lambda events: events.slice(3, 4),
        lambda events: events.p[10:20],
        lambda events: pa.array(events.x),
        lambda events: memoryview(events.y),
        lambda events: events.t.view(np.uint64).reshape(10, 10),
    ):
        taken = pool.take()
        place, kept = address(taken), keep(taken)
        del taken
        other = pool.take()
        assert address(other) != place
        del kept, other


def test_pieces_that_are_kept_are_not_written_over() -> None:
    """More of them than the pool watches, one after the other and on two threads."""
    words = np.arange(20_000, dtype="<u4") % 2048 << 11
    words[0] = 8 << 28
    for threads in (1, 2):
        data = words.tobytes()
        source = Source(url="cam.raw", file=io.BytesIO(data), head=b"", num_bytes=len(data))
        kept = [piece.events for piece in raw_pieces(source, EVT2, 0, 64, threads)]
        assert len(kept) > 100
        columns = np.concatenate([events.x for events in kept])
        assert np.array_equal(columns, np.arange(1, 20_000) % 2048)


def test_threads_never_share_columns() -> None:
    pool = ColumnPool(1000)

    def use(number: int) -> bool:
        events = pool.take()
        events.x[:] = number
        events.t[:] = number
        return bool((events.x == number).all() and (events.t == number).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(2000)))
