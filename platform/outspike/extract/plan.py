"""What an extraction has to do: the manifest minus what the store already holds."""

import dataclasses
import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from outspike.encoders.base import Encoder
from outspike.errors import ConfigError, UrlError
from outspike.extract.ledger import UNREADABLE, Failure, Ledger, Quarantine
from outspike.recording import Recording
from outspike.store.store import FeatureStore
from outspike.urls import SourceStat, absolute, stat

_STAT_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """One recording and the encoders (by position in the job) that still have to see it."""

    recording: Recording
    source: SourceStat
    encoders: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and video."""
        return self.recording.dataset, self.recording.video_id

    def to_json(self) -> str:
        """Text form that crosses the object store; nothing is pickled.

        Addresses become absolute: an actor has a working folder of its own.
        """
        recording = dataclasses.replace(self.recording, url=absolute(self.recording.url))
        source = dataclasses.replace(self.source, url=absolute(self.source.url))
        return json.dumps(
            {
                "recording": recording.to_document(),
                "source": asdict(source),
                "encoders": self.encoders,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "WorkItem":
        """Inverse of :meth:`to_json`."""
        document = json.loads(text)
        return cls(
            recording=Recording.from_document(document["recording"]),
            source=SourceStat(**document["source"]),
            encoders=tuple(document["encoders"]),
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The gap between a manifest and a store."""

    items: tuple[WorkItem, ...]
    num_recordings: int
    num_done: int
    num_skipped: int
    """Recordings not attempted because an earlier run quarantined the very same file."""
    unreadable: tuple[Failure, ...]

    def __str__(self) -> str:
        return (
            f"recordings={self.num_recordings} done={self.num_done} to_do={len(self.items)} "
            f"quarantined={self.num_skipped} unreadable={len(self.unreadable)}"
        )


def make_plan(
    recordings: Sequence[Recording],
    encoders: Sequence[Encoder],
    store: FeatureStore | None,
    *,
    retry_quarantined: bool = False,
    only_quarantined: bool = False,
    shuffle_seed: int | None = None,
    limit: int | None = None,
) -> Plan:
    """Anti-join of the manifest with the catalog, for every encoder at once.

    A recording is done for an encoder when the store holds it under the encoder's fingerprint and
    the file's present etag, so a file that was replaced is extracted again. Without a store nothing
    is done yet. ``only_quarantined`` looks at nothing but what the ledger names; ``shuffle_seed``
    decides the order of work, of which ``limit`` takes the beginning.

    Raises:
        ConfigError: a recording's modality suits none of the encoders.
    """
    fingerprints = [encoder.spec().fingerprint for encoder in encoders]
    quarantine = Ledger(store.url).quarantine(fingerprints) if store else Quarantine((), ())
    if only_quarantined:
        recordings = [recording for recording in recordings if quarantine.names(recording)]
    items: list[WorkItem] = []
    unreadable: list[Failure] = []
    num_done = num_skipped = 0
    sources = _stats(recordings)
    absent = _absent(store, fingerprints, recordings, sources)
    for number, (recording, source) in enumerate(zip(recordings, sources, strict=True)):
        wanted = _suitable(recording, encoders)
        if isinstance(source, Failure):
            unreadable.append(source)
            continue
        missing = tuple(i for i in wanted if absent[i][number])
        if not missing:
            num_done += 1
        elif not retry_quarantined and quarantine.holds(recording, source.etag):
            num_skipped += 1
        else:
            items.append(WorkItem(recording=recording, source=source, encoders=missing))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(items)
    return Plan(
        items=tuple(items[:limit]),
        num_recordings=len(recordings),
        num_done=num_done,
        num_skipped=num_skipped,
        unreadable=tuple(unreadable),
    )


def select(recordings: Sequence[Recording], only: Sequence[str]) -> tuple[Recording, ...]:
    """The recordings that ``only`` names: ids, or patterns of the id or of ``dataset/id``.

    An id that holds characters of a pattern (``*?[``) names itself, too. None at all keeps all.

    Raises:
        ConfigError: a name or pattern fits no recording.
    """
    if not only:
        return tuple(recordings)
    fitting = {wanted: [r for r in recordings if _fits(r, wanted)] for wanted in only}
    idle = [wanted for wanted, found in fitting.items() if not found]
    if idle:
        known = ", ".join(recording.video_id for recording in recordings[:3])
        raise ConfigError(
            f"only={', '.join(idle)}: fits none of the {len(recordings)} recordings ({known} ...)."
        )
    kept = {recording.key for found in fitting.values() for recording in found}
    return tuple(recording for recording in recordings if recording.key in kept)


def _fits(recording: Recording, wanted: str) -> bool:
    names = (recording.video_id, recording.key)
    return wanted in names or any(fnmatchcase(name, wanted) for name in names)


def _absent(
    store: FeatureStore | None,
    fingerprints: Sequence[str],
    recordings: Sequence[Recording],
    sources: Sequence[SourceStat | Failure],
) -> list[list[bool]]:
    """Per encoder and recording, whether the store does not hold the present file."""
    if store is None:
        return [[True] * len(recordings) for _ in fingerprints]
    datasets = [recording.dataset for recording in recordings]
    videos = [recording.video_id for recording in recordings]
    etags = ["" if isinstance(source, Failure) else source.etag for source in sources]
    return [store.missing(each, datasets, videos, etags).tolist() for each in fingerprints]


def _suitable(recording: Recording, encoders: Sequence[Encoder]) -> list[int]:
    fitting = [i for i, encoder in enumerate(encoders) if recording.modality in encoder.modalities]
    if not fitting:
        raise ConfigError(
            f"{recording.key} is a {recording.modality} recording, which none of the encoders "
            f"{[encoder.name for encoder in encoders]} takes; add event-pyramid, or leave it out."
        )
    return fitting


def _stats(recordings: Sequence[Recording]) -> list[SourceStat | Failure]:
    """Size and etag of every source, many at once; what cannot be read becomes a ledger row."""

    def one(recording: Recording) -> SourceStat | Failure:
        try:
            return stat(recording.url)
        except UrlError as error:
            return Failure(
                dataset=recording.dataset,
                video_id=recording.video_id,
                source_etag="",
                fingerprints=(),
                stage="probe",
                reason=UNREADABLE,
                detail=str(error),
            )

    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        return list(pool.map(one, recordings))
