"""What a file format has to offer to be read: a look at the first bytes, facts, pieces of events.

One format, one module. Bytes come from an open seekable file, so that a codec neither knows nor
cares whether they lie on a disk or in a bucket; it holds at most a block of them at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, NoReturn, Protocol

from outspike.errors import MediaError
from outspike.events.columns import Events

OnError = Literal["raise", "resync"]

#: Bytes of a file that codecs may look at to recognise it; text headers must end within them.
HEAD_BYTES = 1 << 16

#: Pixels a side that the columns can hold.
MAX_SIDE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says of itself before its first event.

    Args:
        format: short stable name (``evt3``).
        title: the name people use (``Prophesee EVT 3.0 raw``).
        size: width and height of the sensor, where the header tells.
        anchor_us: start of the recording on the clock of its events.
        duration_us: length of the recording.
        clock_offset_us: what to add to a stored time to be on the recorder's common clock.
        max_side: coordinates that the format itself can hold, whatever the sensor.
    """

    format: str
    title: str
    size: tuple[int, int] | None = None
    anchor_us: int | None = None
    duration_us: int | None = None
    clock_offset_us: int | None = None
    max_side: int = MAX_SIDE


@dataclass(frozen=True)
class Piece:
    """Consecutive events, and where in the file each of them stands (for messages).

    ``in_order``: their times never step back, by the way they were decoded.
    """

    events: Events
    place: Callable[[int], str]
    in_order: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open file, how to treat its faults, and a tally of what was skipped."""

    url: str
    file: BinaryIO
    head: bytes
    num_bytes: int
    on_error: OnError = "raise"
    size: tuple[int, int] | None = None
    num_threads: int = 1
    skipped: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, message: str, *, reason: str = "corrupt", count: int = 1) -> None:
        """Raise on the first fault, or count what it costs and let the codec go on.

        Args:
            kind: what is skipped, a key of ``EventReader.skipped`` (``unknown_words``).
            message: what was found at which byte, and what was expected.
            reason: word for the ledger.
            count: how much of ``kind``.
        """
        if self.on_error == "raise":
            self.fail(message, reason=reason)
        self.skipped[kind] += count

    def fail(self, message: str, *, reason: str = "corrupt") -> NoReturn:
        """A fault that nothing can be read behind."""
        raise MediaError(f"{self.url}: {message}", reason=reason)

    def read_exactly(self, num_bytes: int, offset: int, what: str) -> bytes:
        """``num_bytes`` from ``offset`` on; never asks for more than the file holds."""
        if offset < 0 or num_bytes < 0 or offset + num_bytes > self.num_bytes:
            self.fail(
                f"{what} of {num_bytes} bytes at byte {offset} reaches past the end of the file "
                f"at byte {self.num_bytes}.",
                reason="truncated",
            )
        self.file.seek(offset)
        data = self.file.read(num_bytes)
        if len(data) != num_bytes:
            self.fail(f"{what} at byte {offset} could not be read whole.", reason="unreadable")
        return data


class EventStream(Protocol):
    """An opened recording."""

    facts: Facts

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Consecutive events, about ``num_events`` at a time, times as stored.

        Faults go through :meth:`Source.fault`. Sensor size and order of time are checked by the
        reader, the same way for all formats.
        """


class Codec(Protocol):
    """One file format."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """Whether a file of ``num_bytes`` that begins with ``head`` is of this format."""

    def open(self, source: Source) -> EventStream:
        """Read what comes before the events.

        Raises:
            MediaError: the header is damaged, or of a version that is not read.
        """
