"""Prophesee ``.raw`` files: a text header, then words of EVT 2.0, 2.1 or 3.0.

The decoders (``raw_decode.py``) pass over words that carry no events of ours; this module looks
for the words that no camera sends, cuts the stream into blocks and finds the byte of a fault.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Piece, Source
from outspike.events.percent_header import read_header, sensor_size, whole_number
from outspike.events.raw_decode import Decoder, Evt2Decoder, Evt3Decoder
from outspike.events.raw_words import Evt2, Evt3

Words = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, kw_only=True)
class _Version:
    """One word format: how to decode it, which types it knows, where a word keeps its time."""

    title: str
    decoder: Callable[[], Decoder]
    kinds: frozenset[int]
    high_period: int


#: Types besides events and times: triggers, vendor's extensions and their continuations.
_VERSIONS = {
    "evt2": _Version(
        title="Prophesee EVT 2.0 raw",
        decoder=Evt2Decoder,
        kinds=frozenset({0x0, 0x1, 0x8, 0xA, 0xE, 0xF}),
        high_period=Evt2.TIME.period,
    ),
    "evt3": _Version(
        title="Prophesee EVT 3.0 raw",
        decoder=Evt3Decoder,
        kinds=frozenset({0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xA, 0xE, 0xF}),
        high_period=Evt3.TIME.period,
    ),
}


class PropheseeRaw:
    """EVT 2.0 and 3.0, told apart by the header."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """A header of ``%`` lines that is not a DAT file's."""
        return head.startswith(b"%")

    def open(self, source: Source) -> "RawStream":
        """Read the header.

        Raises:
            MediaError: no end of the header, or a version that is not read.
        """
        header = read_header(source.head)
        if not header.ended and header.body >= min(source.num_bytes, len(source.head)):
            source.fail(
                f"the header has no end within {header.body} bytes; expected a line '% end' or "
                "the words of events.",
                reason="truncated",
            )
        values = header.values
        named = values.get("format", "").split(";")[0].strip().upper()
        version = values.get("evt", "").strip() or named.removeprefix("EVT")
        name = _NAMES.get(version)
        if name is None:
            source.fail(
                f"Prophesee raw of version {version or 'unknown'}; EVT 2.0 and 3.0 are read.",
                reason="unknown_format",
            )
        facts = Facts(
            format=name,
            title=_VERSIONS[name].title,
            size=sensor_size(source, values),
            anchor_us=whole_number(source, "anchor_us", values.get("anchor_us")),
            duration_us=whole_number(source, "duration_us", values.get("duration_us")),
        )
        return RawStream(source, facts, header.body)


_NAMES = {"2.0": "evt2", "2": "evt2", "3.0": "evt3", "3": "evt3"}


class RawStream:
    """Words of one file, decoded block by block."""

    def __init__(self, source: Source, facts: Facts, body: int) -> None:
        self.facts = facts
        self._source = source
        self._body = body
        self._version = _VERSIONS[facts.format]

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Events of ``num_events`` words at a time."""
        decoder = self._version.decoder()
        itemsize = decoder.word.itemsize
        self._source.file.seek(self._body)
        offset, untimed, last_high = self._body, 0, np.full(1, -1, dtype=np.int64)
        while data := self._source.file.read(num_events * itemsize):
            words = self._whole_words(data, decoder.word, offset)
            self._check_words(words, offset, last_high)
            before = copy.deepcopy(decoder)
            yield Piece(decoder.decode(words), partial(_place, before, words, offset))
            self._source.skipped["untimed_events"] += decoder.num_untimed - untimed
            offset, untimed = offset + len(data), decoder.num_untimed

    def _whole_words(self, data: bytes, word: np.dtype[Any], offset: int) -> Words:
        rest = len(data) % word.itemsize
        if rest:
            self._source.fault(
                "truncated_bytes",
                f"ends inside a word of {word.itemsize} bytes at byte {offset + len(data) - rest}; "
                "the file was cut short.",
                reason="truncated",
                count=rest,
            )
        return np.frombuffer(data, dtype=word, count=len(data) // word.itemsize)

    def _check_words(self, words: Words, offset: int, last_high: NDArray[np.int64]) -> None:
        """Fault on types that the format does not have, and on high times that run back."""
        itemsize = words.itemsize
        shift = 8 * itemsize - 4
        unknown = np.zeros(16, dtype=np.bool_)
        unknown[[kind for kind in range(16) if kind not in self._version.kinds]] = True
        num_unknown, first_unknown, num_back, first_back = _scan(
            words, np.uint64(shift), unknown, self._version.high_period, last_high
        )
        if num_unknown:
            kind = int(words[first_unknown]) >> shift
            self._source.fault(
                "unknown_words",
                f"word of unknown type 0x{kind:X} at byte {offset + first_unknown * itemsize}; "
                f"expected one of {', '.join(f'0x{k:X}' for k in sorted(self._version.kinds))}.",
                count=num_unknown,
            )
        if num_back:
            self._source.fault(
                "time_words_backwards",
                f"a high time word at byte {offset + first_back * itemsize} steps back; expected "
                "times that do not decrease.",
                reason="time_backwards",
                count=num_back,
            )


def _place(before: Decoder, words: Words, offset: int, index: int) -> str:
    """The word that completes event ``index`` of a block, by decoding ever shorter parts of it."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high) // 2
        if len(copy.deepcopy(before).decode(words[: middle + 1])) > index:
            high = middle
        else:
            low = middle + 1
    return f"byte {offset + low * words.itemsize}"


@numba.njit(cache=True)
def _scan(
    words: Words,
    shift: np.uint64,
    unknown: NDArray[np.bool_],
    period: int,
    last_high: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Count and first position of unknown words, and of high time words that step back."""
    num_unknown, first_unknown, num_back, first_back = 0, -1, 0, -1
    for i in range(len(words)):
        kind = np.uint64(words[i]) >> shift
        if kind == 8:
            high = np.int64(words[i]) & np.int64(period - 1)
            forward = (high - last_high[0]) % period
            if last_high[0] >= 0 and forward >= period // 2:
                num_back += 1
                if first_back < 0:
                    first_back = i
            else:
                last_high[0] = high
        elif unknown[kind]:
            num_unknown += 1
            if first_unknown < 0:
                first_unknown = i
    return num_unknown, first_unknown, num_back, first_back
