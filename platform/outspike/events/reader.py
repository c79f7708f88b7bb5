"""Read event recordings of every format, known by content and streamed in bounded memory."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from outspike.errors import ConfigError, MediaError
from outspike.events.aedat2 import Aedat2
from outspike.events.aedat4 import Aedat4
from outspike.events.check import Checker
from outspike.events.codec import HEAD_BYTES, Codec, Facts, OnError, Source
from outspike.events.columns import Events
from outspike.events.dat import Dat
from outspike.events.event_stream import EventStreamFile
from outspike.events.hdf5 import Hdf5
from outspike.events.mat5 import Mat5
from outspike.events.nmnist import Nmnist
from outspike.events.npz_stream import Npz
from outspike.events.prophesee_raw import PropheseeRaw
from outspike.urls import open_url, plain_errors

SizeSource = Literal["header", "configured", "unknown"]

_log = logging.getLogger(__name__)

#: In the order in which they are asked; the formats without a signature come last.
CODECS: dict[str, Codec] = {
    "npz": Npz(),
    "hdf5": Hdf5(),
    "mat": Mat5(),
    "aedat4": Aedat4(),
    "aedat2": Aedat2(),
    "es": EventStreamFile(),
    "dat": Dat(),
    "raw": PropheseeRaw(),
    "nmnist": Nmnist(),
}


@dataclass(frozen=True, kw_only=True)
class EventInfo:
    """What a file says of itself before its first event, and what the caller knows of it.

    ``anchor_us`` is the recorded start on the clock of the events, ``duration_us`` the recorded
    length, ``clock_offset_us`` what a stored time lacks to be on the recorder's common clock; None
    where the file does not tell.
    """

    format: str
    title: str
    width: int | None
    height: int | None
    size_source: SizeSource
    anchor_us: int | None = None
    duration_us: int | None = None
    clock_offset_us: int | None = None


class EventReader:
    """Events of one recording in file order, streamed in bounded memory.

    Args:
        url: local path or ``s3://`` address.
        size: width and height of the sensor, where the file does not tell or tells wrongly.
        on_error: ``raise`` at the first fault, or ``resync``: leave out what is damaged, count it
            in :attr:`skipped` and read on.
        num_threads: that decode side by side, where the format allows it; the events are the same.

    Raises:
        MediaError: no such file, of a format that is not known, or with a header nothing can be
            read behind.
    """

    def __init__(
        self,
        url: str,
        *,
        size: tuple[int, int] | None = None,
        on_error: OnError = "raise",
        num_threads: int = 1,
    ) -> None:
        if size is not None and not all(0 < side <= 1 << 16 for side in size):
            raise ConfigError(f"size {size[0]}x{size[1]}: expected sides from 1 to {1 << 16}.")
        self.url = url
        self._size = size
        self._on_error: OnError = on_error
        self._num_threads = num_threads
        self._skipped: Counter[str] = Counter()
        with self._opened() as (source, codec):
            self.info = _info(codec.open(source).facts, size)

    @property
    def skipped(self) -> dict[str, int]:
        """What the last :meth:`chunks` left out so far, by kind; empty where all is sound."""
        return {kind: count for kind, count in sorted(self._skipped.items()) if count}

    def chunks(self, num_events: int = 1 << 20) -> Iterator[Events]:
        """Consecutive events, about ``num_events`` at a time, times as stored.

        Raises:
            MediaError: damage, an event outside the sensor or times that run back by more than
                jitter; with ``on_error="resync"`` only where nothing can be read on.
        """
        if num_events < 1:
            raise ConfigError(f"num_events={num_events}: at least one.")
        self._skipped = Counter()
        with self._opened() as (source, codec):
            stream = codec.open(source)
            checker = _checker(source, self.info, stream.facts.max_side)
            for piece in stream.pieces(num_events):
                yield checker.events(piece)
            if len(held := checker.rest()):
                yield held
        for kind, count in self.skipped.items():
            _log.warning("%s: skipped %s=%d", self.url, kind, count)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Source, Codec]]:
        try:
            with plain_errors(self.url), open_url(self.url) as file:
                head = file.read(HEAD_BYTES)
                num_bytes = file.seek(0, 2)
                file.seek(0)
                source = Source(
                    url=self.url,
                    file=file,
                    head=head,
                    num_bytes=num_bytes,
                    on_error=self._on_error,
                    size=self._size,
                    num_threads=self._num_threads,
                    skipped=self._skipped,
                )
                yield source, find_codec(source)
        except OSError as error:
            raise MediaError(f"{self.url}: {error}", reason="unreadable") from error


def open_events(
    url: str,
    size: tuple[int, int] | None = None,
    on_error: OnError = "raise",
    num_threads: int = 1,
) -> EventReader:
    """A reader of the recording at ``url``; see :class:`EventReader`."""
    return EventReader(url, size=size, on_error=on_error, num_threads=num_threads)


def find_codec(source: Source) -> Codec:
    """The codec that recognises the content.

    Raises:
        MediaError: an empty file, or one that no codec recognises.
    """
    if not source.num_bytes:
        source.fail("an empty file; expected an event recording.", reason="empty")
    for codec in CODECS.values():
        if codec.sniff(source.head, source.num_bytes):
            return codec
    source.fail(
        f"not an event recording that is known ({', '.join(CODECS)}); its {source.num_bytes} "
        f"bytes begin at byte 0 with {source.head[:8]!r}.",
        reason="unknown_format",
    )


def _checker(source: Source, info: EventInfo, max_side: int) -> Checker:
    if info.width is None or info.height is None:
        return Checker(source=source, size=(max_side, max_side), size_origin="format's")
    return Checker(source=source, size=(info.width, info.height), size_origin=info.size_source)


def _info(facts: Facts, configured: tuple[int, int] | None) -> EventInfo:
    chosen = configured or facts.size
    origin: SizeSource = "unknown"
    if chosen is not None:
        origin = "header" if configured is None else "configured"
    return EventInfo(
        format=facts.format,
        title=facts.title,
        width=chosen and chosen[0],
        height=chosen and chosen[1],
        size_source=origin,
        anchor_us=facts.anchor_us,
        duration_us=facts.duration_us,
        clock_offset_us=facts.clock_offset_us,
    )
