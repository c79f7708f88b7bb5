"""The extraction driver: plan, stream receipts from the actors, commit as they come."""

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray
from ray.data import ActorPoolStrategy, DataContext

from outspike.cluster import cluster_cpus, ray_session
from outspike.config import ExtractConfig, to_json
from outspike.datasets import Manifest, load
from outspike.encoders import build
from outspike.errors import ConfigError
from outspike.extract.actor import Extractor, Message
from outspike.extract.ledger import Failure, Ledger
from outspike.extract.plan import Plan, WorkItem, make_plan
from outspike.extract.progress import Progress
from outspike.store.catalog import Receipt
from outspike.store.store import FeatureStore

logger = logging.getLogger(__name__)

_POLL_S = 0.5
#: Recordings an actor takes in one call; a kill costs at most the segments it has open.
_RECORDINGS_PER_CALL = 8


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
        lines += [str(failure) for failure in self.failures]
        return "\n".join(lines)


def extract(config: ExtractConfig, manifest: Manifest | None = None) -> ExtractResult:
    """Bring the store up to date with the manifest.

    Args:
        config: what to extract, with which encoders, into which store.
        manifest: the recordings; by default what ``config.data`` names.
    """
    began = time.monotonic()
    if manifest is None:
        manifest = load(config.data.dataset, config.data.root, config.data.split)
    for warning in manifest.warnings:
        logger.warning("%s: %s", manifest.name, warning)
    if manifest.missing:
        logger.warning("%s", manifest.describe_missing())
    encoders = [build(encoder) for encoder in config.encoders]
    store = FeatureStore.open_or_create(config.store.url)
    ledger = Ledger(config.store.url)
    store.put_recordings(manifest.recordings)
    plan = make_plan(
        manifest.recordings,
        encoders,
        store,
        ledger,
        retry_quarantined=config.retry_quarantined,
        limit=config.limit,
    )
    logger.info("%s", plan)
    committer = _Committer(store, ledger, every_s=config.commit_every_s)
    committer.add_failures(plan.unreadable)
    progress = Progress(total=len(plan.items))
    if plan.items:
        with ray_session(config.num_cpus):
            _stream(config, plan, committer, progress)
    committer.flush()
    return ExtractResult(
        store_url=config.store.url,
        version=store.version,
        feature_sets=tuple(encoder.spec().address for encoder in encoders),
        num_recordings=plan.num_recordings,
        done=plan.num_done,
        new=progress.done,
        skipped=plan.num_skipped,
        retried=progress.retried,
        quarantined=progress.quarantined + len(plan.unreadable),
        failures=tuple(committer.failures),
        seconds=time.monotonic() - began,
        footage_s=progress.footage_s,
    )


def describe(config: ExtractConfig) -> str:
    """What ``--dry-run`` prints: the plan against the catalog, without decoding anything."""
    manifest = load(config.data.dataset, config.data.root, config.data.split)
    encoders = [build(encoder) for encoder in config.encoders]
    store = FeatureStore.open_or_create(config.store.url)
    plan = make_plan(
        manifest.recordings,
        encoders,
        store,
        Ledger(config.store.url),
        retry_quarantined=config.retry_quarantined,
        limit=config.limit,
    )
    megabytes = sum(item.source.size for item in plan.items) / 1e6
    names = ", ".join(encoder.spec().address for encoder in encoders)
    return f"{plan}\nwould read {megabytes:.1f} MB of recordings into {names} of {store.url}"


def _stream(config: ExtractConfig, plan: Plan, committer: "_Committer", progress: Progress) -> None:
    """Feed the actors and handle their messages until the input is exhausted."""
    messages: queue.Queue[Message | BaseException | None] = queue.Queue()
    feeder = threading.Thread(
        target=_run_pipeline, args=(config, plan.items, messages), name="ray-data", daemon=True
    )
    feeder.start()
    try:
        for message in _until_done(messages, committer, progress):
            if message.failure is not None:
                committer.add_failures([message.failure])
                progress.failed()
            elif message.footage_s > 0:
                progress.finished(message.footage_s)
            committer.add_receipts(message.receipts)
    finally:
        committer.flush()
        progress.close()
    feeder.join()


def _until_done(
    messages: "queue.Queue[Message | BaseException | None]",
    committer: "_Committer",
    progress: Progress,
) -> Iterator[Message]:
    """Messages in order; commits and log lines fall due even while none arrives."""
    while True:
        committer.commit_if_due()
        progress.tick()
        try:
            message = messages.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if message is None:
            return
        if isinstance(message, BaseException):
            raise message
        yield message


def _run_pipeline(
    config: ExtractConfig,
    items: tuple[WorkItem, ...],
    messages: "queue.Queue[Message | BaseException | None]",
) -> None:
    try:
        for row in _pipeline(config, items).iter_rows():
            messages.put(Message.from_json(str(row["message"])))
    except BaseException as error:  # handed to the driver's thread, which raises it
        messages.put(error)
    else:
        messages.put(None)


def _pipeline(config: ExtractConfig, items: tuple[WorkItem, ...]) -> "ray.data.Dataset":
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours counts recordings and hours, Ray's counts blocks
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # Blocks of one row, so that a receipt reaches the driver when its recording ends and not when
    # the actor's whole call does.
    context.target_max_block_size = 1
    actors = _num_actors(config)
    per_call = min(_RECORDINGS_PER_CALL, math.ceil(len(items) / actors[1]))
    return ray.data.from_items(
        [{"item": item.to_json()} for item in items],
        override_num_blocks=math.ceil(len(items) / per_call),
    ).map_batches(
        Extractor,
        fn_constructor_args=(config,),
        batch_size=per_call,
        compute=ActorPoolStrategy(min_size=actors[0], max_size=actors[1]),
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor,
    )


def _num_actors(config: ExtractConfig) -> tuple[int, int]:
    """Pool bounds; one whole CPU must stay free or Ray Data's own tasks starve."""
    smallest, largest = config.num_actors, config.max_actors or config.num_actors
    cpus = cluster_cpus()
    if largest * config.cpus_per_actor > cpus - 1 and cpus > 1:
        raise ConfigError(
            f"{largest} actors of {config.cpus_per_actor} CPUs leave less than one of the "
            f"cluster's {cpus:g} CPUs to Ray Data itself; lower --max-actors or --cpus-per-actor."
        )
    return smallest, largest


@dataclass
class _Committer:
    """The one place that writes the catalog and the ledger during a job."""

    store: FeatureStore
    ledger: Ledger
    every_s: float
    failures: list[Failure] = field(default_factory=list)
    _receipts: list[Receipt] = field(default_factory=list)
    _new_failures: list[Failure] = field(default_factory=list)
    _committed: float = field(default_factory=time.monotonic)

    def add_receipts(self, receipts: tuple[Receipt, ...]) -> None:
        self._receipts.extend(receipts)

    def add_failures(self, failures: "tuple[Failure, ...] | list[Failure]") -> None:
        self.failures.extend(failures)
        self._new_failures.extend(failures)
        for failure in failures:
            logger.warning("%s", failure)

    def commit_if_due(self) -> None:
        if time.monotonic() - self._committed >= self.every_s:
            self.flush()

    def flush(self) -> None:
        """Commit what has arrived; a recording whose segments have not all closed waits."""
        whole, self._receipts = split_whole(self._receipts)
        if whole:
            self.store.commit(whole)
        if self._new_failures:
            self.ledger.append(self._new_failures)
            self._new_failures = []
        self._committed = time.monotonic()


def split_whole(receipts: list[Receipt]) -> tuple[list[Receipt], list[Receipt]]:
    """Receipts of attempts that tile their recording, and those of attempts still open."""
    rows: dict[str, int] = {}
    for receipt in receipts:
        rows[receipt.attempt] = rows.get(receipt.attempt, 0) + (
            receipt.snippet_stop - receipt.snippet_start
        )
    whole = [r for r in receipts if rows[r.attempt] == r.num_snippets]
    waiting = [r for r in receipts if rows[r.attempt] != r.num_snippets]
    return whole, waiting


def config_document(config: ExtractConfig) -> str:
    """The resolved config as stored beside a run."""
    return json.dumps(to_json(config), indent=1)
