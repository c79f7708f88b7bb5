"""What a plan will cost: hours, pixels, bytes and time, from headers and measured rates."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from outspike.encoders.base import Encoder
from outspike.errors import MediaError, OutspikeError
from outspike.events.reader import open_events
from outspike.extract.plan import WorkItem
from outspike.extract.rates import Rate, sample_rate, stored_rate
from outspike.recording import Modality
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import size_text
from outspike.timebase import DVS_FPS
from outspike.video.isolate import IsolatedVideo

#: Recordings whose headers are read; what the others hold follows from the sizes of their files.
MOST_PROBED = 48

_UNUSABLE_SHOWN = 5
_PROBE_THREADS = 4
_PROBE_TIMEOUT_S = 60.0
_PROBE_MEMORY_MB = 2048


@dataclass(frozen=True, kw_only=True)
class Length:
    """What a header tells of a recording: frames, seconds and, for a video, pixels to decode."""

    num_frames: int
    seconds: float
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan will cost.

    ``num_told`` of ``num_recordings`` told their length; others that may be usable are taken to be
    like them, byte for byte. ``feature_bytes`` by address of the feature set. ``seconds`` is None
    where no rate is known for some of the work; ``sources`` say where the rates are from.
    """

    num_recordings: int
    num_told: int
    unusable: tuple[str, ...]
    """Recordings whose headers show that they cannot be used, each with the reason."""
    source_bytes: int
    hours: float
    pixels: float
    feature_bytes: dict[str, float]
    seconds: float | None
    num_actors: int
    sources: tuple[str, ...]

    def __str__(self) -> str:
        num_known = self.num_told + len(self.unusable)
        about = "" if num_known == self.num_recordings else "about "
        features = ", ".join(f"{name} {size_text(n)}" for name, n in self.feature_bytes.items())
        time = "time unknown: no rate could be measured"
        if self.seconds is not None:
            time = f"time about {_duration(self.seconds)} with num_actors={self.num_actors}"
        return "\n".join(
            [
                f"read        {size_text(self.source_bytes)} of {self.num_recordings} recordings",
                f"footage     {about}{self.hours:.3f} hours, {about}{self.pixels / 1e9:.3f} "
                f"gigapixels to decode ({self.num_told} of {self.num_recordings} tell their "
                "length in the headers read)",
                f"write       {about}{size_text(sum(self.feature_bytes.values()))}: {features}",
                f"{time} ({'; '.join(self.sources) or 'nothing to do'})",
                *self._warning(),
            ]
        )

    def _warning(self) -> list[str]:
        if not self.unusable:
            return []
        shown = ", ".join(self.unusable[:_UNUSABLE_SHOWN])
        more = ", ..." if len(self.unusable) > _UNUSABLE_SHOWN else ""
        return [f"{len(self.unusable)} cannot be used by what their headers say: {shown}{more}"]


def estimate(
    items: Sequence[WorkItem],
    encoders: Sequence[Encoder],
    store_url: str,
    *,
    num_actors: int,
    most_probed: int = MOST_PROBED,
) -> Estimate:
    """Read headers of some recordings, and measured rates from the store.

    Headers are read where a bad file can do no harm; one that does not tell its length is left for
    the job to judge. Where no job has measured a rate yet, the bundled sample is encoded once.
    """
    chosen = list(items)
    if len(chosen) > most_probed:
        chosen = random.Random(0).sample(chosen, most_probed)
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        headers = dict(zip((item.key for item in chosen), pool.map(_length, chosen), strict=True))
    told = {key: length for key, length in headers.items() if isinstance(length, Length)}
    unusable = {key: reason for key, reason in headers.items() if isinstance(reason, str)}
    num_recordings, source_bytes = len(items), sum(item.source.size for item in items)
    items = [item for item in items if item.key not in unusable]
    specs = [encoder.spec() for encoder in encoders]
    kinds = {(item.recording.modality, item.encoders): None for item in items}
    totals = [_total(items, told, encoders, specs, *kind) for kind in kinds]
    rates = [_rate(store_url, encoders, specs, *kind) for kind in kinds]
    seconds = [
        None if rate is None else rate.seconds_of(total.units)
        for rate, total in zip(rates, totals, strict=True)
    ]
    feature_bytes = {spec.address: 0.0 for spec in specs}
    for total in totals:
        for address, number in total.feature_bytes.items():
            feature_bytes[address] += number
    known = [s for s in seconds if s is not None]
    return Estimate(
        num_recordings=num_recordings,
        num_told=len(told),
        unusable=tuple(f"{'/'.join(key)} ({reason})" for key, reason in unusable.items()),
        source_bytes=source_bytes,
        hours=sum(total.seconds for total in totals) / 3600,
        pixels=sum(total.pixels for total in totals),
        feature_bytes=feature_bytes,
        seconds=sum(known) / min(num_actors, max(1, len(items)))
        if len(known) == len(seconds)
        else None,
        num_actors=num_actors,
        sources=tuple(dict.fromkeys(rate.source for rate in rates if rate is not None)),
    )


@dataclass(frozen=True, kw_only=True)
class _Total:
    """Sums over the recordings of one modality that go through the same encoders."""

    units: float
    seconds: float
    pixels: float
    feature_bytes: dict[str, float]


def _total(
    items: Sequence[WorkItem],
    told: dict[tuple[str, str], Length],
    encoders: Sequence[Encoder],
    specs: Sequence[FeatureSetSpec],
    modality: Modality,
    positions: tuple[int, ...],
) -> _Total:
    mine = [i for i in items if (i.recording.modality, i.encoders) == (modality, positions)]
    alike = [i for i in items if i.recording.modality == modality and i.key in told]
    size = sum(item.source.size for item in mine)
    if all(item.key in told for item in mine):
        alike = mine
    share = size / max(1, sum(item.source.size for item in alike))
    lengths = [told[item.key] for item in alike]
    pixels = share * sum(length.pixels for length in lengths)
    return _Total(
        units=pixels if modality == "video" else size,
        seconds=share * sum(length.seconds for length in lengths),
        pixels=pixels,
        feature_bytes={
            specs[p].address: share
            * specs[p].row_bytes
            * sum(encoders[p].grid.num_snippets(length.num_frames) for length in lengths)
            for p in positions
        },
    )


def _rate(
    store_url: str,
    encoders: Sequence[Encoder],
    specs: Sequence[FeatureSetSpec],
    modality: Modality,
    positions: tuple[int, ...],
) -> Rate | None:
    known = stored_rate(store_url, modality, [specs[p].fingerprint for p in positions])
    return known or sample_rate([encoders[p] for p in positions], modality)


def _length(item: WorkItem) -> Length | str | None:
    """What the header tells; None where it is silent, the reason where the file is unusable."""
    try:
        if item.recording.modality == "events":
            return _event_length(item)
        with IsolatedVideo(
            item.recording.url, timeout_s=_PROBE_TIMEOUT_S, memory_mb=_PROBE_MEMORY_MB
        ) as video:
            info = video.info
    except MediaError as error:  # the job will say it at length, with a row in the ledger
        return error.reason
    except OutspikeError:
        return None
    if info.header_frames is None:
        return None
    return Length(
        num_frames=info.header_frames,
        seconds=float(info.header_frames / info.fps),
        pixels=info.header_frames * info.width * info.height,
    )


def _event_length(item: WorkItem) -> Length | None:
    recording = item.recording
    duration_us = open_events(recording.url, size=recording.size).info.duration_us
    if duration_us is None:
        return None
    frames = int(duration_us * (recording.fps or DVS_FPS) / 1_000_000)
    return Length(num_frames=max(1, frames), seconds=duration_us / 1e6, pixels=0)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
