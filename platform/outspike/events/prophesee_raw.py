"""Prophesee ``.raw`` files: a text header, then words of EVT 2.0, 2.1 or 3.0.

The header says which; :mod:`~outspike.events.raw_decode` does the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np

from outspike.events.codec import Facts, Piece, Source
from outspike.events.percent_header import read_header, sensor_size, whole_number
from outspike.events.raw_decode import EVT2, EVT3, EVT21, WordFormat, raw_pieces
from outspike.events.raw_words import MAX_SIDE


@dataclass(frozen=True, kw_only=True)
class _Version:
    """One version of the format."""

    title: str
    words: WordFormat


_VERSIONS = {
    "evt2": _Version(title="Prophesee EVT 2.0 raw", words=EVT2),
    "evt21": _Version(title="Prophesee EVT 2.1 raw", words=EVT21),
    "evt3": _Version(title="Prophesee EVT 3.0 raw", words=EVT3),
}


class PropheseeRaw:
    """EVT 2.0, 2.1 and 3.0, told apart by the header."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """A header of ``%`` lines that is not a DAT file's."""
        return head.startswith(b"%")

    def open(self, source: Source) -> "RawStream":
        """Read the header.

        Raises:
            MediaError: no end of the header, or a version that is not read.
        """
        header = read_header(source.head)
        header.demand_end(source, "the words of events")
        values = header.values
        named = values.get("format", "").split(";")[0].strip().upper()
        version = values.get("evt", "").strip() or named.removeprefix("EVT")
        name = _NAMES.get(version)
        if name is None:
            source.fail(
                f"Prophesee raw of version {version or 'unknown'}; EVT 2.0, 2.1 and 3.0 are read.",
                reason="unknown_format",
            )
        facts = Facts(
            format=name,
            title=_VERSIONS[name].title,
            size=sensor_size(source, values),
            anchor_us=whole_number(source, "anchor_us", values.get("anchor_us")),
            duration_us=whole_number(source, "duration_us", values.get("duration_us")),
            max_side=MAX_SIDE,
        )
        if name == "evt21" and _halves_swapped(source, values, header.body):
            source = replace(source, file=cast(BinaryIO, _HalfSwapped(source.file)))
        return RawStream(source, facts, header.body)


#: Versions as ``evt`` and as ``format`` spell them.
_NAMES = {
    "2.0": "evt2",
    "2": "evt2",
    "2.1": "evt21",
    "21": "evt21",
    "3.0": "evt3",
    "3": "evt3",
}


class RawStream:
    """Words of one file."""

    def __init__(self, source: Source, facts: Facts, body: int) -> None:
        self.facts = facts
        self._source = source
        self._body = body

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """At most ``num_events`` (at least 32) events at a time."""
        words = _VERSIONS[self.facts.format].words
        return raw_pieces(self._source, words, self._body, num_events, self._source.num_threads)


def _halves_swapped(source: Source, values: dict[str, str], body: int) -> bool:
    """Whether EVT 2.1 words come upper half first, as the IMX636 sends them.

    Where the header does not tell, the order in which more words are of a known type.
    """
    stated = values.get("endianness", "").strip().lower()
    if stated in ("legacy", "little"):
        return stated == "legacy"
    head = source.head[body:]
    halves = np.frombuffer(head, dtype="<u4", count=len(head) // 8 * 2).reshape(-1, 2)
    known = np.isin(halves >> 28, sorted(EVT21.kinds)).sum(axis=0)
    return bool(known[0] > known[1])


class _HalfSwapped:
    """A file whose 8-byte words are read with their 4-byte halves exchanged."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to the beginning of a word."""
        return self._file.seek(offset, whence)

    def read(self, num_bytes: int) -> bytes:
        """Whole words; bytes behind the last of them as they are."""
        data = self._file.read(num_bytes)
        whole = len(data) // 8 * 8
        halves = np.frombuffer(data, dtype="<u4", count=whole // 4).reshape(-1, 2)
        return halves[:, ::-1].tobytes() + data[whole:]
