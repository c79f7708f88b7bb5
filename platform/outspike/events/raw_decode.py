"""Decode EVT 2.0, 2.1 and 3.0 words into events, streaming, on one thread or several.

What carries over from word to word lives in one small array, so a recording can be cut into blocks
anywhere between two words and decodes to the same events. That is also how threads share the work:
:mod:`~outspike.events.raw_parallel` finds the state at each cut, then every part decodes alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events import raw_kernels as kernels
from outspike.events import raw_lanes
from outspike.events.codec import Piece, Source
from outspike.events.column_pool import ColumnPool
from outspike.events.columns import Events, concatenate
from outspike.events.raw_words import LOST, TIMED, Evt2, Evt3, State, TimeLayout, new_state

Words = NDArray[np.unsignedinteger[Any]]
#: ``(words, start, state, t, x, y, p, count) -> (next word, count, fault)``
Decode = Callable[..., tuple[int, int, int]]
#: ``(words, start, state) -> (next word, events passed over, fault)``
Skip = Callable[[Words, int, State], tuple[int, int, int]]

#: Words read at a time: they stay in the second cache while they are decoded.
WORDS_PER_BLOCK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class WordFormat:
    """One word format and its compiled loops.

    Args:
        word: little-endian unsigned integer with the type in its upper four bits.
        kinds: types that the format has.
        high_kind: type of high time words.
        high_shift: lowest bit of their value.
        time: how times are split.
        max_per_word: most events of a word.
        decode, skip: see :mod:`~outspike.events.raw_kernels`.
        in_order: whether times are decoded so that they never step back.
    """

    word: np.dtype[np.unsignedinteger[Any]]
    kinds: frozenset[int]
    high_kind: int
    high_shift: int
    time: TimeLayout
    max_per_word: int
    decode: Decode
    skip: Skip
    in_order: bool = False

    @property
    def kind_shift(self) -> int:
        """Where a word keeps its type: in the upper four bits."""
        return 8 * self.word.itemsize - 4


EVT3 = WordFormat(
    word=np.dtype("<u2"),
    kinds=frozenset(
        {
            *(Evt3.ADDR_Y, Evt3.ADDR_X, Evt3.VECT_BASE_X, Evt3.VECT_12, Evt3.VECT_8),
            *(Evt3.TIME_LOW, Evt3.TIME_HIGH, *Evt3.SILENT),
        }
    ),
    high_kind=Evt3.TIME_HIGH,
    high_shift=0,
    time=Evt3.TIME,
    max_per_word=kernels.MAX_PER_WORD,
    decode=raw_lanes.decode_evt3 if raw_lanes.USABLE3 else kernels.decode_evt3,
    skip=kernels.skip_evt3,
    in_order=True,
)
EVT2 = WordFormat(
    word=np.dtype("<u4"),
    kinds=frozenset({Evt2.CD_OFF, Evt2.CD_ON, Evt2.TIME_HIGH, *Evt2.SILENT}),
    high_kind=Evt2.TIME_HIGH,
    high_shift=0,
    time=Evt2.TIME,
    max_per_word=kernels.MAX_PER_WORD,
    decode=raw_lanes.decode_evt2 if raw_lanes.USABLE2 else kernels.decode_evt2,
    skip=kernels.skip_evt2,
)
EVT21 = WordFormat(
    word=np.dtype("<u8"),
    kinds=EVT2.kinds,
    high_kind=Evt2.TIME_HIGH,
    high_shift=32,
    time=Evt2.TIME,
    max_per_word=kernels.MAX_PER_WORD21,
    decode=kernels.decode_evt21,
    skip=kernels.skip_evt21,
)


def raw_pieces(
    source: Source, words: WordFormat, body: int, num_events: int, num_threads: int = 1
) -> Iterator[Piece]:
    """Consecutive events of the words from byte ``body`` on.

    Args:
        source: the open file, and where faults go.
        words: the format.
        body: first byte after the header.
        num_events: most events of a piece (but room for one word, which is up to 32).
        num_threads: parts of the recording that are decoded side by side; the events are the same,
            pieces are somewhat shorter and more words are held at a time.

    Faults, by kind: ``unknown_words`` (a type that the format does not have),
    ``time_words_backwards`` (a time before that of the word before it by more than jitter) with the
    ``lost_events`` from there to the next good time, ``vectors_past_columns``, ``truncated_bytes``.
    ``untimed_events`` before the first time word are no fault of the file: a recording may begin
    anywhere. They are left out and counted, because nobody knows when they were.
    """
    if num_threads > 1:
        from outspike.events.raw_parallel import parallel_pieces  # which builds on this module

        yield from parallel_pieces(source, words, body, num_events, num_threads)
        return
    columns = ColumnPool(num_events, words.max_per_word)
    part = PartDecoder(source, words, new_state(), columns)
    for offset, block in blocks(source, words, body, WORDS_PER_BLOCK):
        yield from part.push(block, offset)
    yield from part.finish()


def blocks(
    source: Source, words: WordFormat, body: int, num_words: int
) -> Iterator[tuple[int, Words]]:
    """Consecutive words with the byte each block begins at."""
    itemsize = words.word.itemsize
    source.file.seek(body)
    offset = body
    while data := source.file.read(num_words * itemsize):
        rest = len(data) % itemsize
        if rest:
            source.fault(
                "truncated_bytes",
                f"ends inside a word of {itemsize} bytes at byte {offset + len(data) - rest}; "
                "the file was cut short.",
                reason="truncated",
                count=rest,
            )
        yield offset, np.frombuffer(data, dtype=words.word, count=len(data) // itemsize)
        offset += len(data)


@dataclass(frozen=True)
class _Mark:
    """From which words, and in which state, the events from ``first`` on were decoded."""

    first: int
    offset: int
    words: Words
    state: State


@dataclass
class _Room:
    """Columns that fill up, and where their events came from."""

    space: Events
    max_per_word: int
    count: int = 0
    marks: list[_Mark] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether a word might not fit."""
        return self.count + self.max_per_word > len(self.space)

    def mark(self, offset: int, words: Words, state: State) -> None:
        if self.marks and self.marks[-1].first == self.count:
            self.marks.pop()  # it gave no event, so nobody will ask for it
        self.marks.append(_Mark(self.count, offset, words, state.copy()))

    def events(self) -> Events:
        """What was written; a copy where the rest of the columns would be held for little."""
        events = self.space.slice(0, self.count)
        if 4 * self.count < len(self.space):
            return concatenate([events])
        return events


class PartDecoder:
    """Decodes consecutive blocks of words into pieces, from a given state.

    Args:
        source: where faults go.
        words: the format.
        state: what carries over; changed as words are taken.
        columns: where from to take room for the events of a piece.
    """

    def __init__(
        self, source: Source, words: WordFormat, state: State, columns: ColumnPool
    ) -> None:
        self.state = state
        self._source = source
        self._words = words
        self._columns = columns
        self._room: _Room | None = None

    def push(self, block: Words, offset: int) -> Iterator[Piece]:
        """Pieces that the next words complete; ``offset`` is the byte of the first of them."""
        position = 0
        itemsize = block.itemsize
        while position < len(block):
            room = self._room = self._room or _Room(self._columns.take(), self._words.max_per_word)
            if self.state[TIMED] and not self.state[LOST]:
                room.mark(offset + position * itemsize, block[position:], self.state)
                position, room.count, fault = self._words.decode(
                    block, position, self.state, *room.space.columns, room.count
                )
            else:
                kind = "lost_events" if self.state[TIMED] else "untimed_events"
                position, passed, fault = self._words.skip(block, position, self.state)
                self._source.skipped[kind] += int(passed)
            if fault:
                self._fault(fault, int(block[position]), offset + position * itemsize)
                position += 1
            if room.full:
                yield from self.finish()

    def finish(self) -> Iterator[Piece]:
        """What is left over."""
        room, self._room = self._room, None
        if room is not None and room.count:
            place = _Place(self._words, room.marks)
            yield Piece(room.events(), place, in_order=self._words.in_order)

    def _fault(self, fault: int, word: int, offset: int) -> None:
        kind = word >> self._words.kind_shift
        if fault == kernels.UNKNOWN_TYPE:
            expected = ", ".join(f"0x{known:X}" for known in sorted(self._words.kinds))
            self._source.fault(
                "unknown_words",
                f"word of unknown type 0x{kind:X} at byte {offset}; expected one of {expected}.",
            )
        elif fault == kernels.PAST_COLUMNS:
            self._source.fault(
                "vectors_past_columns",
                f"the vector word at byte {offset} has events past the last column a word can "
                "name (2047); expected a new base before it.",
            )
        else:
            kernels.lose_time(kind, self.state)
            name = "high" if kind == self._words.high_kind else "low"
            self._source.fault(
                "time_words_backwards",
                f"a {name} time word at byte {offset} steps back by more than readout jitter; "
                "expected times that do not decrease.",
                reason="time_backwards",
            )


@dataclass(frozen=True)
class _Place:
    """Where in the file an event of a piece stands, found by decoding again."""

    words: WordFormat
    marks: list[_Mark]

    def __call__(self, index: int) -> str:
        mark = next(mark for mark in reversed(self.marks) if mark.first <= index)
        wanted = index - mark.first + 1
        low, high = 0, len(mark.words)
        while low < high:
            middle = (low + high) // 2
            if self._count(mark, middle + 1, wanted) >= wanted:
                high = middle
            else:
                low = middle + 1
        return f"byte {mark.offset + low * mark.words.itemsize}"

    def _count(self, mark: _Mark, num_words: int, wanted: int) -> int:
        scratch = Events.room(wanted + 2 * self.words.max_per_word)
        _, count, _ = self.words.decode(
            mark.words[:num_words], 0, mark.state.copy(), *scratch.columns, 0
        )
        return count
