"""The compiled loops decode what a plain reading of the format gives, on any number of threads."""

import io
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import MediaError
from outspike.events import raw_decode, raw_parallel
from outspike.events.codec import OnError, Source
from outspike.events.columns import Events, concatenate
from outspike.events.raw_decode import EVT2, EVT3, EVT21, WordFormat, raw_pieces

FORMATS = {"evt2": EVT2, "evt21": EVT21, "evt3": EVT3}


def source_of(words: list[int], fmt: WordFormat, on_error: OnError = "raise") -> Source:
    data = np.array(words, dtype=fmt.word).tobytes()
    return Source(
        url="cam.raw", file=io.BytesIO(data), head=b"", num_bytes=len(data), on_error=on_error
    )


def decode(
    words: list[int],
    fmt: WordFormat,
    *,
    on_error: OnError = "raise",
    num_events: int = 1000,
    num_threads: int = 1,
) -> tuple[list[tuple[int, int, int, int]], Counter[str]]:
    source = source_of(words, fmt, on_error)
    events = concatenate([p.events for p in raw_pieces(source, fmt, 0, num_events, num_threads)])
    return rows(events), +source.skipped


def rows(events: Events) -> list[tuple[int, int, int, int]]:
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def plainly(words: list[int]) -> list[tuple[int, int, int, int]]:
    """EVT 3.0 read as its description says, one word after the other, for sound words."""
    high = low = row = base = polarity = 0
    epoch, timed, found = 0, False, []
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        now = ((epoch * 4096 + high) << 12) + low
        if kind == 8 and (not timed or value != high):
            epoch += timed and value < high
            high, low, timed = value, 0, True
        elif kind == 6:
            low = max(low, value)
        elif kind == 0:
            row = value & 0x7FF
        elif kind == 2 and timed:
            found.append((now, value & 0x7FF, row, value >> 11))
        elif kind == 3:
            base, polarity = value & 0x7FF, value >> 11
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            bits = [bit for bit in range(width) if value >> bit & 1]
            found += [(now, base + bit, row, polarity) for bit in bits if timed]
            base += width
    return found


@st.composite
def evt3_words(draw: st.DrawFn) -> list[int]:
    """Sound words: times go on, with jitter; a new base before vectors run out of columns."""
    words, high, low, base = [], draw(st.integers(0, 4095)), 0, 0
    for kind in draw(st.lists(st.sampled_from("thyyxxxbvvvws"), max_size=120)):
        if kind == "h":
            high, low = (high + draw(st.sampled_from([0, 1, 1, 500]))) % 4096, 0
            words.append(0x8000 | high)
        elif kind == "t":
            low = draw(st.integers(max(0, low - 11), min(4095, low + 300)))
            words.append(0x6000 | low)
        elif kind == "b" or (kind in "vw" and base > 1900):
            base = draw(st.integers(0, 1900))
            words.append(0x3000 | draw(st.sampled_from([0, 0x800])) | base)
        elif kind in "vw":
            words.append((0x4000 if kind == "v" else 0x5000) | draw(st.integers(0, 0xFFF)))
            base += 12
        elif kind == "s":
            words.append(draw(st.sampled_from([0x7001, 0xA101, 0xE000, 0xF003])))
        else:
            words.append((0x0000 if kind == "y" else 0x2000) | draw(st.integers(0, 0xFFF)))
    return words


def running_low(words: list[int]) -> list[int]:
    """Without the steps back that a repeated high word would turn into a lost time."""
    low, high, kept = 0, None, []
    for word in words:
        if word >> 12 == 8 and word != high:
            low, high = 0, word
        if word >> 12 == 6:
            if (word & 0xFFF) + 256 < low:
                continue
            low = max(low, word & 0xFFF)
        kept.append(word)
    return kept


@given(words=evt3_words(), num_events=st.integers(1, 50))
def test_evt3_decodes_as_its_description_reads(words: list[int], num_events: int) -> None:
    """Jitter, vectors, restarts of the counter and pieces of any length."""
    words = running_low(words)
    assert decode(words, EVT3, num_events=num_events)[0] == plainly(words)


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=60, deadline=None)
@given(data=st.data(), threads=st.integers(2, 4), part=st.sampled_from([4, 12, 64]))
def test_threads_give_the_same_events_and_the_same_tally(
    name: str, data: st.DataObject, threads: int, part: int
) -> None:
    """Whatever the words, damaged ones too: a wrong forecast is noticed and put right."""
    fmt = FORMATS[name]
    if name == "evt3":
        sound = evt3_words()
        wild = st.lists(st.integers(0, (1 << 16) - 1), max_size=100)
        words = data.draw(st.one_of(sound, wild))
    else:
        shift = fmt.kind_shift
        kinds = st.sampled_from([0, 0, 1, 1, 8, 8, 14, 3])
        word = st.builds(
            lambda kind, rest: kind << shift | rest, kinds, st.integers(0, (1 << shift) - 1)
        )
        words = data.draw(st.lists(word, max_size=100))
    before = raw_parallel.WORDS_PER_PART
    raw_parallel.WORDS_PER_PART = part
    try:
        split = decode(words, fmt, on_error="resync", num_threads=threads)
    finally:
        raw_parallel.WORDS_PER_PART = before
    assert split == decode(words, fmt, on_error="resync")


@given(words=st.lists(st.integers(0, (1 << 16) - 1), max_size=300))
def test_a_fault_names_its_byte_and_resync_goes_on_behind_it(words: list[int]) -> None:
    """``raise`` stops at the first fault; ``resync`` counts each of them and never goes back."""
    events, skipped = decode(words, EVT3, on_error="resync")
    times = [row[0] for row in events]
    assert times == sorted(times)
    faults = {kind for kind in skipped if kind not in ("untimed_events", "lost_events")}
    if faults:
        with pytest.raises(MediaError, match=r"cam.raw: .*at byte \d+"):
            decode(words, EVT3)
    else:
        assert decode(words, EVT3)[0] == events


def test_an_unknown_type_is_told_with_its_byte() -> None:
    words = [0x8001, 0x6001, 0x2005, 0x9123, 0x2006]
    with pytest.raises(MediaError, match="unknown type 0x9 at byte 6; expected one of 0x0, 0x2"):
        decode(words, EVT3)
    events, skipped = decode(words, EVT3, on_error="resync")
    assert [row[1] for row in events] == [5, 6]
    assert skipped == {"unknown_words": 1}


def test_events_are_left_out_from_a_backward_time_to_the_next_good_one() -> None:
    """Jitter is none; 2,000 us are. The events between are counted, not given a made-up time."""
    words = [0x8002, 0x67D0, 0x2001, 0x6000, 0x2002, 0x4003, 0x67D1, 0x2003, 0x8001, 0x2004, 0x8002]
    with pytest.raises(MediaError, match="low time word at byte 6 steps back"):
        decode(words, EVT3)
    events, skipped = decode([*words, 0x2005], EVT3, on_error="resync")
    assert [(row[0], row[1]) for row in events] == [(10192, 1), (10193, 3), (10193, 5)]
    assert skipped == {"time_words_backwards": 2, "lost_events": 4}


def test_a_vector_past_the_last_column_is_a_fault() -> None:
    """The columns behind 2,047 cannot be named; nothing wraps around."""
    words = [0x8000, 0x37FA, 0x403F, 0x4001]
    with pytest.raises(MediaError, match="vector word at byte 6"):
        decode(words, EVT3)
    events, skipped = decode(words, EVT3, on_error="resync")
    assert [row[1] for row in events] == list(range(2042, 2048))
    assert skipped == {"vectors_past_columns": 1}


def test_evt21_marks_up_to_32_columns() -> None:
    """High time in the upper half, events of one row, time and polarity in the lower."""
    high = 8 << 60 | 5 << 32
    event = 1 << 60 | 7 << 54 | 64 << 43 | 9 << 32 | 0x80000003
    assert decode([high, event], EVT21)[0] == [
        (5 * 64 + 7, 64, 9, 1),
        (5 * 64 + 7, 65, 9, 1),
        (5 * 64 + 7, 95, 9, 1),
    ]


class _BreaksOff(io.BytesIO):
    """A file that can be read ``num_reads`` times."""

    num_reads = 3

    def read(self, size: int | None = -1) -> bytes:
        self.num_reads -= 1
        if self.num_reads < 0:
            raise OSError("the cable was pulled")
        return super().read(size)


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_what_was_read_before_a_fault_comes_first(
    num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that breaks off, or ends inside a word, gives all events before that and then fails,
    whichever thread came upon it."""
    monkeypatch.setattr(raw_parallel, "WORDS_PER_PART", 10)
    monkeypatch.setattr(raw_decode, "WORDS_PER_BLOCK", 10)
    words = np.array([0x8000, 0x6001, *[0x2000 | i for i in range(48)]], dtype="<u2")
    whole = source_of([], EVT3)
    broken = replace(whole, file=_BreaksOff(words.tobytes()))
    cut = replace(whole, file=io.BytesIO(words[:30].tobytes() + b"\x07"))
    for source, wrong in ((broken, OSError), (cut, MediaError)):
        columns: list[int] = []
        pieces = raw_pieces(source, EVT3, 0, 8, num_threads)
        with pytest.raises(wrong):
            columns.extend(x for piece in pieces for x in piece.events.x.tolist())
        # One thread holds back what is not a whole piece yet.
        assert columns == list(range(len(columns)))
        assert len(columns) == 28 or num_threads == 1


def test_a_reader_that_is_left_early_leaves_no_thread_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does one that nobody closes keep the interpreter from its end."""
    monkeypatch.setattr(raw_parallel, "WORDS_PER_PART", 10)
    words = [0x8000, *[0x2000 | i for i in range(1000)]]
    before = set(threading.enumerate())
    pieces = raw_pieces(source_of(words, EVT3), EVT3, 0, 8, 3)
    next(iter(pieces))
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    assert all(thread.daemon for thread in started)
    pieces.close()  # type: ignore[attr-defined]
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", list(FORMATS))
def test_an_event_is_found_again_in_its_file(name: str, num_threads: int) -> None:
    """A piece tells for each event at which byte the word stands that gave it."""
    fmt = FORMATS[name]
    shift = fmt.kind_shift
    event = {
        "evt3": lambda i: 0x2000 | i,
        "evt2": lambda i: 1 << 28 | i << 11,
        "evt21": lambda i: 1 << 60 | (i << 43) | 1,
    }[name]
    words = [fmt.high_kind << shift, *(event(i) for i in range(100))]
    pieces = list(raw_pieces(source_of(words, fmt), fmt, 0, 40, num_threads))
    places = [piece.place(i) for piece in pieces for i in range(len(piece.events))]
    assert places == [f"byte {(1 + i) * fmt.word.itemsize}" for i in range(100)]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("num_events", [1, 32, 33, 100])
def test_a_piece_holds_no_more_events_than_asked_for(num_events: int, num_threads: int) -> None:
    """But for the room of one word."""
    words = [0x8000, 0x6001, *[0x3000, 0x4FFF, 0x4FFF, 0x5FFF] * 50]
    source = source_of(words, EVT3)
    pieces = raw_pieces(source, EVT3, 0, num_events, num_threads)
    lengths = [len(piece.events) for piece in pieces]
    assert sum(lengths) == 50 * 32
    assert max(lengths) <= max(num_events, 32)
