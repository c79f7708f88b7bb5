"""Decode parts of a raw recording side by side, to the same events as one after the other.

A part can be decoded once it is known what carries over into it, and foretelling that
(:mod:`~outspike.events.raw_forecast`) is far cheaper than decoding. The forecast is then checked
against the state in which the part before really ended. Where they differ, which takes damaged
words, the part is decoded again from the true state, so the events never depend on the forecast.

The thread that asks for the events is one of those that decode: it takes a part itself whenever the
one whose turn it is has not come back from another thread.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from threading import Condition, Lock, Semaphore, Thread

import numpy as np

from outspike.events.codec import Piece, Source
from outspike.events.column_pool import ColumnPool
from outspike.events.raw_decode import PartDecoder, WordFormat, Words, blocks
from outspike.events.raw_forecast import state_after
from outspike.events.raw_words import State, new_state

#: Words that a thread takes at a time: handing them over costs some 100 us, decoding them 400.
WORDS_PER_PART = 1 << 18


def parallel_pieces(
    source: Source, words: WordFormat, body: int, num_events: int, num_threads: int
) -> Iterator[Piece]:
    """As :func:`~outspike.events.raw_decode.raw_pieces`, on ``num_threads``, this one included."""
    state = new_state()
    with _Team(source, words, body, num_threads) as team:
        while (part := team.next_part()) is not None:
            pieces, state = part.result(state, team.columns)
            part = None  # or it would hold columns that could be used again
            while pieces:
                yield from _cut(pieces.popleft(), num_events)


def _cut(piece: Piece, num_events: int) -> Iterator[Piece]:
    """The piece in pieces of at most ``num_events``; a part is decoded whole, in few calls,
    because at the end of each a thread waits for the interpreter's lock."""
    for start in range(0, len(piece.events), num_events):
        events = piece.events.slice(start, start + num_events)
        yield Piece(events, partial(_place_behind, piece, start), in_order=piece.in_order)


def _place_behind(piece: Piece, start: int, index: int) -> str:
    return piece.place(start + index)


class _Team:
    """Threads that take parts of a recording in turn, and hand them on in the recording's order.

    Whoever takes a part reads it and foretells what carries over behind it, while the others wait
    for their turn; decoding, which takes longer, goes on side by side. A part is taken only while
    few others wait to be used, so that they stay in the caches and memory is bounded.
    """

    def __init__(self, source: Source, words: WordFormat, body: int, num_threads: int) -> None:
        self._source = source
        self._words = words
        self._blocks = blocks(source, words, body, WORDS_PER_PART)
        self._forecast = new_state()
        self._turn = Lock()
        self._room = Semaphore(num_threads + 1)
        self._changed = Condition()
        # Columns stay with a thread, and so in its processor's cache.
        pools = [ColumnPool(WORDS_PER_PART, words.max_per_word) for _ in range(num_threads)]
        self.columns = pools[0]
        # Daemons, because a reader that nobody closes must not keep the interpreter from its end.
        self._threads = [Thread(target=self._work, args=(c,), daemon=True) for c in pools[1:]]
        self._done: dict[int, _Part] = {}
        self._num_taken = self._num_given = 0
        self._at_end = self._stopped = False

    def __enter__(self) -> "_Team":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._room.release(len(self._threads))
        for thread in self._threads:
            thread.join()

    def next_part(self) -> "_Part | None":
        """The next part of the recording; until it is decoded, this thread decodes others."""
        number = self._num_given

        def is_known() -> bool:
            return number in self._done or (self._at_end and number == self._num_taken)

        while True:
            with self._changed:
                if is_known():
                    break
            if not (self._room.acquire(blocking=False) and self._take_and_decode(self.columns)):
                with self._changed:
                    self._changed.wait_for(is_known)
        if number not in self._done:
            return None
        self._num_given += 1
        self._room.release()
        return self._done.pop(number)

    def _work(self, columns: ColumnPool) -> None:
        """What the other threads do."""
        while self._room.acquire():
            if self._stopped or not self._take_and_decode(columns):
                return

    def _take_and_decode(self, columns: ColumnPool) -> bool:
        """Decode the next part that nobody has; whether there was one."""
        with self._turn:
            if self._at_end:
                return False
            part = self._read()
            with self._changed:
                number = self._num_taken
                self._num_taken += part is not None
                self._at_end = part is None or part.fault is not None
                self._changed.notify()
        if part is None:
            return False
        part.decode(columns)
        with self._changed:
            self._done[number] = part
            self._changed.notify()
        return True

    def _read(self) -> "_Part | None":
        """The next part and its forecast; in the thread whose turn it is."""
        forecast = self._forecast
        try:
            offset, block = next(self._blocks, (0, None))
            if block is None:
                return None
            self._forecast = state_after(block, forecast, self._words)
        except Exception as error:  # raised when the turn of this part comes
            nothing = np.empty(0, dtype=self._words.word)
            return _Part(self._source, self._words, nothing, 0, forecast, fault=error)
        return _Part(self._source, self._words, block, offset, forecast)


class _Part:
    """Some words that any thread may decode, from a state that is only foretold.

    With a ``fault`` there are none: they could not be read.
    """

    def __init__(
        self,
        source: Source,
        words: WordFormat,
        part: Words,
        offset: int,
        forecast: State,
        *,
        fault: Exception | None = None,
    ) -> None:
        self.fault = fault
        self._source = source
        self._words = words
        self._part = part
        self._offset = offset
        self._forecast = forecast
        self._found: _Decoded | Exception | None = None

    def decode(self, columns: ColumnPool) -> None:
        """Decode from the forecast."""
        if self.fault is None:
            try:
                self._found = self._decode(self._forecast, columns)
            except Exception as error:  # raised where the part's turn comes, if its forecast holds
                self._found = error

    def result(self, state: State, columns: ColumnPool) -> tuple[deque[Piece], State]:
        """Pieces of the part, and the state after it, given the true state before it.

        Raises:
            MediaError: what the part's words are at fault for.
        """
        if self.fault is not None:
            raise self.fault
        found = self._found
        if not np.array_equal(self._forecast, state):
            found = self._decode(state, columns)
        if isinstance(found, Exception):
            raise found
        assert found is not None
        self._source.skipped.update(found.skipped)
        return found.pieces, found.state

    def _decode(self, state: State, columns: ColumnPool) -> "_Decoded":
        source = replace(self._source, skipped=Counter())
        decoder = PartDecoder(source, self._words, state.copy(), columns)
        pieces = deque([*decoder.push(self._part, self._offset), *decoder.finish()])
        return _Decoded(pieces, decoder.state, source.skipped)


@dataclass(frozen=True)
class _Decoded:
    pieces: deque[Piece]
    state: State
    skipped: Counter[str]
