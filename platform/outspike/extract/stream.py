"""Work items through Ray Data: whole recordings to actors, messages back as they come."""

import logging
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import ray
from ray.data import ActorPoolStrategy, DataContext

from outspike.cluster import cluster_cpus
from outspike.config import ExtractConfig
from outspike.errors import ConfigError
from outspike.extract.actor import Extractor, Message
from outspike.extract.plan import WorkItem
from outspike.extract.under_way import UnderWay

_POLL_S = 0.5
#: The most recordings an actor takes in one call; a kill costs at most the segments it has open.
_RECORDINGS_PER_CALL = 8


def messages_of(
    config: ExtractConfig,
    items: Sequence[WorkItem],
    under_way: UnderWay,
    *,
    meanwhile: Callable[[], None],
) -> Iterator[Message]:
    """Extract the items on the cluster and yield what the actors report, in any order.

    ``under_way`` tells between messages what they are at; ``meanwhile`` is called at least twice a
    second, also while nothing arrives. What ended the work of an actor is raised here.
    """
    messages: queue.Queue[Message | BaseException | None] = queue.Queue()
    feeder = threading.Thread(
        target=_feed, args=(config, items, under_way, messages), name="ray-data", daemon=True
    )
    feeder.start()
    try:
        while (message := _next(messages, meanwhile)) is not None:
            yield message
    except BaseException:
        # The feeder lives until Ray goes away under it, and Ray Data would tell that at length.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
        raise
    feeder.join()


def _next(
    messages: "queue.Queue[Message | BaseException | None]", meanwhile: Callable[[], None]
) -> Message | None:
    """The next message, or None at the end."""
    while True:
        meanwhile()
        try:
            message = messages.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if isinstance(message, BaseException):
            raise message
        if message is not None:
            message.raise_fault()
        return message


def _feed(
    config: ExtractConfig,
    items: Sequence[WorkItem],
    under_way: UnderWay,
    messages: "queue.Queue[Message | BaseException | None]",
) -> None:
    try:
        # Rows, and batches read ahead, would keep each message back until the next one is there.
        for batch in _pipeline(config, items, under_way).iter_batches(
            batch_size=None, prefetch_batches=0
        ):
            for text in batch["message"]:
                messages.put(Message.from_json(str(text)))
    except BaseException as error:  # handed to the driver's thread, which raises it
        messages.put(error)
    else:
        messages.put(None)


def _pipeline(
    config: ExtractConfig, items: Sequence[WorkItem], under_way: UnderWay
) -> "ray.data.Dataset":
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours counts recordings and hours, Ray's counts blocks
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # Blocks of one row, so that a receipt reaches the driver when its recording ends and not when
    # the actor's whole call does.
    context.target_max_block_size = 1
    actors = _num_actors(config)
    per_call = _per_call(len(items), actors[1])
    return ray.data.from_items(
        [{"item": item.to_json()} for item in items],
        override_num_blocks=math.ceil(len(items) / per_call),
    ).map_batches(
        Extractor,
        fn_constructor_args=(config, under_way),
        batch_size=per_call,
        # One call at a time: an actor that is up first must not queue what another could begin.
        compute=ActorPoolStrategy(
            min_size=actors[0], max_size=actors[1], max_tasks_in_flight_per_actor=1
        ),
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor,
    )


def _per_call(num_items: int, num_actors: int) -> int:
    """Recordings in a call, so that all actors have the same number of calls."""
    calls_each = math.ceil(num_items / (_RECORDINGS_PER_CALL * num_actors))
    return math.ceil(num_items / (calls_each * num_actors))


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
