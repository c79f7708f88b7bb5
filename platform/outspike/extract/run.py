"""The extraction driver: plan, stream receipts from the actors, commit as they come."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from outspike.cluster import in_temporary_copy, ray_session
from outspike.config import ExtractConfig, StoreConfig
from outspike.datasets import Manifest, load
from outspike.encoders import build
from outspike.encoders.base import Encoder
from outspike.errors import ExtractionError
from outspike.extract.commit import Committer
from outspike.extract.estimate import estimate
from outspike.extract.ledger import Failure
from outspike.extract.plan import Plan, WorkItem, make_plan, select
from outspike.extract.stream import messages_of
from outspike.extract.under_way import UnderWay
from outspike.extract.watch import JobWatch
from outspike.store.delta import table_exists
from outspike.store.layout import CATALOG
from outspike.store.store import FeatureStore
from outspike.urls import absolute, exists

logger = logging.getLogger(__name__)

#: Passes over what was lost with its worker; Ray has retried inside each of them already.
_MAX_PASSES = 3
_FAILURES_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """What an extraction did, and where it left the store."""

    store_url: str
    version: int
    feature_sets: tuple[str, ...]
    num_recordings: int
    done: int
    """Already in the store before this run."""
    new: int
    skipped: int
    """Left alone because an earlier run quarantined the same file."""
    retried: int
    quarantined: int
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    startup_s: float = 0.0
    """Of those, until an actor took the first recording: planning, Ray, weights, sample check."""
    footage_s: float = 0.0

    @property
    def bad_share(self) -> float:
        """Share of the manifest that is quarantined, now or before."""
        return (self.quarantined + self.skipped) / max(1, self.num_recordings)

    def table(self) -> str:
        """The short table that ends the job."""
        counts = (
            f"done {self.done}   new {self.new}   skipped {self.skipped}   "
            f"retried {self.retried}   quarantined {self.quarantined}"
        )
        speed = (
            f"{self.footage_s / self.seconds:.1f}x real time" if self.footage_s else "no decoding"
        )
        lines = [
            f"{counts}   of {self.num_recordings} recordings ({self.seconds:.1f} s, {speed})",
            f"store {self.store_url} version {self.version}: {', '.join(self.feature_sets)}",
        ]
        lines += [str(failure) for failure in self.failures[:_FAILURES_SHOWN]]
        if len(self.failures) > _FAILURES_SHOWN:
            lines.append(f"... and {len(self.failures) - _FAILURES_SHOWN} more in its ledger table")
        if self.skipped:
            lines.append(
                f"skipped: {self.skipped} failed in an earlier run and have not changed since; "
                "'outspike extract ledger' lists them, 'outspike extract retry' tries them again"
            )
        return "\n".join(lines)


def extract(config: ExtractConfig, manifest: Manifest | None = None) -> ExtractResult:
    """Bring the store up to date with the manifest.

    Args:
        config: what to extract, with which encoders, into which store.
        manifest: the recordings; by default what ``config.data`` names.

    Raises:
        StoreError: the store cannot be read or written; what was committed stays.
        ExtractionError: workers kept being lost.
    """
    began = time.monotonic()
    if manifest is None:
        manifest = load(config.data.dataset, config.data.root, config.data.split)
    for warning in manifest.warnings:
        logger.warning("%s: %s", manifest.name, warning)
    if manifest.missing:
        logger.warning("%s", manifest.describe_missing())
    encoders = _described(config)
    store = FeatureStore.open_or_create(config.store.url, single_writer=config.store.single_writer)
    store.put_recordings(manifest.recordings)
    plan = _plan(config, manifest, encoders, store)
    logger.info("%s", plan)
    specs = [encoder.spec() for encoder in encoders]
    del encoders  # the driver needs no weights while the actors work
    committer = Committer(store, [spec.fingerprint for spec in specs], plan.items)
    committer.add_failures(plan.unreadable)
    watch: JobWatch | None = None
    if plan.items:
        for spec in specs:
            store.segment_writer(spec)  # a store that takes no writes is told before Ray starts
        with ray_session(config.num_cpus):
            watch = JobWatch(plan, [spec.fingerprint for spec in specs])
            _run(config, plan, committer, watch)
        watch.rates.save(store.url)
    committer.flush()
    seconds = time.monotonic() - began
    first_began = watch.first_began if watch else None
    return ExtractResult(
        store_url=config.store.url,
        version=store.version,
        feature_sets=tuple(spec.address for spec in specs),
        num_recordings=plan.num_recordings,
        done=plan.num_done,
        new=committer.num_new,
        skipped=plan.num_skipped,
        retried=watch.progress.retried if watch else 0,
        quarantined=len(committer.failures),
        failures=tuple(committer.failures),
        seconds=seconds,
        startup_s=seconds if first_began is None else first_began - began,
        footage_s=watch.progress.footage_s if watch else 0.0,
    )


def describe(config: ExtractConfig, manifest: Manifest | None = None) -> str:
    """What ``--dry-run`` prints: the plan against the catalog, and what it will cost.

    Headers of some recordings are read; the store is not touched, and nothing of it is decoded.
    """
    if manifest is None and config.data.dataset == "miniature" and not exists(config.data.root):
        return f"would generate the miniature data set in {config.data.root} and extract all of it"
    if manifest is None:
        manifest = load(config.data.dataset, config.data.root, config.data.split)
    encoders = _described(config)
    is_new = not table_exists(config.store.url, CATALOG)
    store = None if is_new else FeatureStore.open(config.store.url)
    plan = _plan(config, manifest, encoders, store)
    cost = estimate(plan.items, encoders, config.store.url, num_actors=config.num_actors)
    names = ", ".join(encoder.spec().address for encoder in encoders)
    new = ", a new store" if is_new else ""
    return f"{plan}\nwould extract {names} into {config.store.url}{new}\n{cost}"


def _described(config: ExtractConfig) -> list[Encoder]:
    """The encoders as the driver needs them: to name their feature sets, which no device decides.

    The driver may run on a host without the accelerators of the workers.
    """
    return [build(dataclasses.replace(encoder, device="cpu")) for encoder in config.encoders]


def _plan(
    config: ExtractConfig,
    manifest: Manifest,
    encoders: Sequence[Encoder],
    store: FeatureStore | None,
) -> Plan:
    return make_plan(
        select(manifest.recordings, config.only),
        encoders,
        store,
        retry_quarantined=config.retry_quarantined,
        only_quarantined=config.only_quarantined,
        shuffle_seed=config.shuffle_seed,
        limit=config.limit,
    )


def _run(config: ExtractConfig, plan: Plan, committer: Committer, watch: JobWatch) -> None:
    """Pass over the items until each is catalogued or in the ledger."""
    if in_temporary_copy() and absolute(config.store.url) != config.store.url.rstrip("/"):
        logger.warning(
            "store.url=%s lies in the copy of the folder that this job was submitted with, and "
            "goes away with it; give an absolute path that all nodes share, or s3://",
            config.store.url,
        )
    # An actor has a working folder of its own.
    there = StoreConfig(url=absolute(config.store.url))
    remote = dataclasses.replace(config, store=there)
    items = plan.items
    try:
        for _ in range(_MAX_PASSES):
            _pass(remote, items, committer, watch)
            items = committer.unfinished(items)
            if not items:
                return
            # Ray repeats a lost call, but hands out only what the first try had not handed out
            # yet; receipts that moved between messages are missing then.
            logger.warning("%d recordings were lost with a worker and are done again", len(items))
            watch.lost(len(items))
    finally:
        watch.progress.close()
    raise ExtractionError(
        f"{len(items)} recordings were lost with their workers {_MAX_PASSES} times, the first is "
        f"{items[0].recording.key}; look for workers that run out of memory, and run the same "
        "command again."
    )


def _pass(
    config: ExtractConfig,
    items: Sequence[WorkItem],
    committer: Committer,
    watch: JobWatch,
) -> None:
    under_way = UnderWay()  # goes away with the last who holds it

    def meanwhile() -> None:
        committer.flush_if_due(config.commit_every_s)
        watch.progress.tick(under_way.standing)

    try:
        for message in messages_of(config, items, under_way, meanwhile=meanwhile):
            watch.take(message)
            if message.failure is not None:
                committer.add_failures([message.failure])
            committer.add_receipts(message.receipts)
    finally:
        committer.flush()
