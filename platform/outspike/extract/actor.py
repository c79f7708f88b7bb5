"""The extraction actor: decode, encode and write whole recordings, and report receipts.

One actor does all three so that features never cross the object store and a recording is never
split over writers. A call takes a few recordings and yields as it goes; the segments are closed at
its end, because an actor is not told when its input ends.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.config import ExtractConfig
from outspike.encoders import build
from outspike.errors import (
    ConfigError,
    CorruptionError,
    DatasetError,
    ExtractionError,
    MediaError,
    OutspikeError,
    StoreError,
    UrlError,
)
from outspike.extract.ahead import Ahead
from outspike.extract.golden import check_sample
from outspike.extract.ledger import CHANGED, Failure, annotation_of
from outspike.extract.metrics import StageSeconds
from outspike.extract.plan import WorkItem
from outspike.extract.under_way import MOST_DEATHS, UnderWay
from outspike.scoring.encode import Frames, RecordingFacts, encode_recording
from outspike.scoring.reach import Reach
from outspike.store.catalog import Receipt
from outspike.store.segments import SegmentWriter
from outspike.store.store import FeatureStore
from outspike.urls import stat

#: Errors that keep their kind on the way to the driver; the exit code depends on it.
_KINDS = {kind.__name__: kind for kind in (ConfigError, CorruptionError, StoreError, UrlError)}

Batch = dict[str, NDArray[np.object_]]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What an actor tells the driver: a recording's outcome, or receipts of closed segments."""

    key: tuple[str, str] | None = None
    """Dataset and video of the outcome."""
    failure: Failure | None = None
    footage_s: float = 0.0
    seconds: float = 0.0
    """Wall-clock seconds that the recording took."""
    pixels: int = 0
    """Pixels that were decoded, of a video."""
    receipts: tuple[Receipt, ...] = ()
    fault: tuple[str, str] | None = None
    """Kind and text of an error that ends the job. Raised in the actor it would pass through Ray
    Data, which tells it at the length of several tracebacks."""

    def raise_fault(self) -> None:
        """Raise the error that ends the job, if this message brings one."""
        if self.fault is not None:
            kind, text = self.fault
            raise _KINDS.get(kind, ExtractionError)(text)

    def to_batch(self) -> Batch:
        """One row of Ray Data holding the message as JSON text."""
        return {"message": np.array([json.dumps(asdict(self), default=str)], dtype=object)}

    @classmethod
    def from_json(cls, text: str) -> "Message":
        """Inverse of the text inside :meth:`to_batch`."""
        document = json.loads(text)
        key, failure = document.pop("key"), document.pop("failure")
        fault = document.pop("fault")
        receipts = document.pop("receipts")
        return cls(
            key=None if key is None else (key[0], key[1]),
            fault=None if fault is None else (fault[0], fault[1]),
            failure=None if failure is None else Failure.from_document(failure),
            receipts=tuple(_receipt_from(receipt) for receipt in receipts),
            **document,
        )


class Extractor:
    """Callable class for ``Dataset.map_batches``; encoders load their weights once."""

    def __init__(self, config: ExtractConfig, under_way: UnderWay | None = None) -> None:
        """``under_way`` is of all actors; without it this one is taken to be alone.

        What cannot be prepared is told by the first call.
        """
        self._config = config
        self._under_way = under_way
        self._fault: OutspikeError | None = None
        try:
            self._prepare(config)
        except OutspikeError as error:
            self._fault = error

    def _prepare(self, config: ExtractConfig) -> None:
        self._stages = StageSeconds()
        self._ahead = Ahead(config.decode_timeout_s, config.decode_memory_mb)
        self._encoders = [build(encoder) for encoder in config.encoders]
        store = FeatureStore.open(config.store.url)
        if config.check_sample:
            check_sample(
                store.url,
                self._encoders,
                min_cosine=config.sample_min_cosine,
                max_abs=config.sample_max_abs,
            )
        self._writers = [
            store.segment_writer(
                encoder.spec(),
                max_bytes=config.segment_bytes,
                max_seconds=config.segment_seconds,
            )
            for encoder in self._encoders
        ]

    def __call__(self, batch: dict[str, Any]) -> Iterator[Batch]:
        """Extract every recording of the batch; bad inputs become messages, not exceptions."""
        try:
            if self._fault is not None:
                raise self._fault
            yield from self._messages(batch)
        except OutspikeError as error:
            yield Message(fault=(type(error).__name__, str(error))).to_batch()

    def _messages(self, batch: dict[str, Any]) -> Iterator[Batch]:
        items = [WorkItem.from_json(text) for text in batch["item"]]
        try:
            yield from self._extract_all(items)
        finally:
            self._ahead.close()
        with self._stages.timed("write"):
            for writer in self._writers:
                writer.close()
        yield Message(receipts=self._drain()).to_batch()

    def _extract_all(self, items: Sequence[WorkItem]) -> Iterator[Batch]:
        for item, following in zip_longest(items, items[1:]):
            began = time.monotonic()
            try:
                with self._begun(item) as reach:
                    facts = self._extract(item, following, reach)
            except (MediaError, DatasetError) as error:
                yield Message(key=item.key, failure=self._failure(item, error)).to_batch()
                continue
            yield Message(
                key=item.key,
                footage_s=float(facts.num_frames / facts.fps),
                seconds=time.monotonic() - began,
                pixels=_pixels(item, facts),
                receipts=self._drain(),
            ).to_batch()

    @contextmanager
    def _begun(self, item: WorkItem) -> Iterator[Reach]:
        """Tell that a recording is begun, how far it is, and that it did not take this process
        down.

        Raises:
            MediaError: it has done so to others (``crashed``).
        """
        if self._under_way is None:
            yield lambda footage_s: None
            return
        with self._under_way.begun(item.recording.key) as begun:
            if begun.deaths >= MOST_DEATHS:
                raise MediaError(
                    f"{item.recording.url}: {begun.deaths} workers died while they had it; it "
                    "needs more memory than they have, or breaks what reads it. Leave it out, or "
                    "try it alone.",
                    reason="crashed",
                )
            yield begun.reach

    def _extract(self, item: WorkItem, following: WorkItem | None, reach: Reach) -> RecordingFacts:
        writers = {self._encoders[i].name: self._writers[i] for i in item.encoders}
        for writer in writers.values():
            writer.begin(item.recording, stat=item.source)
        began, written_s = time.monotonic(), 0.0

        def emit(name: str, rows: NDArray[np.floating], start: Frames, stop: Frames) -> None:
            nonlocal written_s
            ready = time.monotonic()
            writers[name].append(rows, start, stop)
            written_s += time.monotonic() - ready

        def open_next() -> None:
            self._ahead.open(following.recording if following else None)

        try:
            with self._ahead.taken(item.recording) as video:
                facts = encode_recording(
                    item.recording,
                    [self._encoders[i] for i in item.encoders],
                    emit=emit,
                    timeout_s=self._config.decode_timeout_s,
                    memory_mb=self._config.decode_memory_mb,
                    video=video,
                    when_decoded=open_next,
                    reach=reach,
                )
            encoded_s = time.monotonic() - began - written_s - facts.waited_s
            _check_unchanged(item)
            with self._stages.timed("write"):
                _end(writers.values(), facts)
        except BaseException:
            for writer in writers.values():
                writer.abort()
            raise
        for stage, seconds in (
            ("decode", facts.waited_s),
            ("encode", encoded_s),
            ("write", written_s),
        ):
            self._stages.add(stage, seconds)
        return facts

    def _drain(self) -> tuple[Receipt, ...]:
        return tuple(receipt for writer in self._writers for receipt in writer.drain())

    def _failure(self, item: WorkItem, error: MediaError | DatasetError) -> Failure:
        in_labels = isinstance(error, DatasetError)
        return Failure(
            dataset=item.recording.dataset,
            video_id=item.recording.video_id,
            source_etag=item.source.etag,
            annotation=annotation_of(item.recording) if in_labels else "",
            fingerprints=tuple(self._encoders[i].spec().fingerprint for i in item.encoders),
            stage="align" if in_labels else "decode",
            reason=error.reason if isinstance(error, MediaError) else "labels",
            detail=str(error),
        )


def _pixels(item: WorkItem, facts: RecordingFacts) -> int:
    is_video = item.recording.modality == "video"
    return facts.num_frames * facts.width * facts.height if is_video else 0


def _receipt_from(document: dict[str, Any]) -> Receipt:
    restored = {
        "fps": Fraction(document["fps"]),
        "extracted_at": datetime.fromisoformat(document["extracted_at"]),
    }
    return Receipt(**(document | restored))


def _check_unchanged(item: WorkItem) -> None:
    """The features must be those of the file whose identity they are stored under.

    Raises:
        MediaError: the file was replaced or removed while it was read.
    """
    url = item.recording.url
    try:
        etag = stat(url).etag
    except UrlError as error:
        raise MediaError(f"{url}: gone once it was read: {error}", reason=CHANGED) from error
    if etag != item.source.etag:
        raise MediaError(
            f"{url}: replaced since this job began; run it again once nobody writes to the file.",
            reason=CHANGED,
        )


def _end(writers: Iterable[SegmentWriter], facts: RecordingFacts) -> None:
    for writer in writers:
        writer.end(num_frames=facts.num_frames, fps=facts.fps)
