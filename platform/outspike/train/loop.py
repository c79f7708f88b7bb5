"""A run from its first to its last step, on one rank: resume, log, evaluate, checkpoint.

Nothing here knows of Ray: the job passes in what to do with news, and a bare run passes nothing.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from outspike.scoring.score import score_bags
from outspike.store.bags import Bag
from outspike.train import checkpoint as checkpoints
from outspike.train.data import BagCache, TrainingBags
from outspike.train.history import History, shown_of
from outspike.train.logging import Means, RunLogger
from outspike.train.pace import Pace
from outspike.train.plan import TrainingPlan
from outspike.train.select import held_out_metric
from outspike.train.step import Learner, Note, World

logger = logging.getLogger(__name__)

#: (steps done, metrics, address of the checkpoint this rank wrote or None); called on every rank.
Report = Callable[[int, Mapping[str, float], str | None], None]
#: (steps done, metrics); rank 0 calls it at every line of the log.
Tell = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a run ended."""

    step: int
    """Of the checkpoint to use: the best one where something selects, else the last."""
    checkpoint: str
    metrics: dict[str, float] = field(default_factory=dict)


def run(
    plan: TrainingPlan,
    run_url: str,
    *,
    world: World | None = None,
    run_logger: RunLogger | None = None,
    report: Report | None = None,
    tell: Tell | None = None,
    note: Note | None = None,
) -> Outcome:
    """Train from the newest complete checkpoint below ``run_url``, or from the start.

    Args:
        plan: what is trained.
        run_url: folder or prefix of the run.
        world: this process among those that train together.
        run_logger: where rank 0 records metrics.
        report: told of every checkpoint, on every rank at the same steps.
        tell: told of progress on rank 0.
        note: told on every rank of what it is about (:data:`outspike.train.watchdog.PHASES`).
    """
    config = plan.config
    world = world or World.current()
    cache = BagCache(plan)
    source = TrainingBags(plan, cache=cache)
    learner = Learner(config, world=world)
    learner.note = note or learner.note
    keeper = _Keeper(plan, run_url, cache)
    start = keeper.resume(learner)
    if start is None:
        learner.prepare(source)
        start = 0
        if not learner.detector.trainable and world.rank == 0:
            keeper.keep(learner, 0)
    stop = plan.last_step
    means, pace = Means(), Pace(config.bags_per_batch, world.device)
    pace.start(start, learner.waited_s)
    for done, losses in learner.steps(source, start=start, stop=stop):
        means.add(losses)
        found: dict[str, float] = {}
        if done % config.log_every == 0 or done == stop:
            found = means.take() | learner.spikes.last | pace.take(done, learner.waited_s)
        is_kept = keeper.is_due(done)
        url = None
        if is_kept and world.rank == 0:
            url, scores = keeper.keep(learner, done, found)
            found |= scores
        elif found and world.rank == 0:
            keeper.history.add(done, found)
        if found and world.rank == 0:
            _record(run_logger, tell, done, found)
        if is_kept and report is not None:
            learner.note(done, "reports")
            report(done, found or losses, url)
        if is_kept:
            pace.start(done, learner.waited_s)  # evaluating is no part of the pace of training
    return keeper.outcome()


def _record(
    run_logger: RunLogger | None, tell: Tell | None, step: int, metrics: dict[str, float]
) -> None:
    if run_logger is not None:
        run_logger.log_metrics(metrics, step)
    if tell is not None:
        tell(step, metrics)


class _Keeper:
    """Checkpoints of a run, and which of them is best; writes on rank 0 only."""

    def __init__(self, plan: TrainingPlan, run_url: str, cache: BagCache) -> None:
        self._plan = plan
        self._url = run_url
        self._cache = cache
        self._best_step: int | None = None
        self._best_metric: float | None = None
        self._last_step = 0
        self._shown = shown_of(plan.held_out)
        self.history = History()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is written after this step; the same on every rank."""
        config = self._plan.config
        return (
            step % config.checkpoint_every == 0
            or step == self._plan.last_step
            or self._evaluates(step)
        )

    def resume(self, learner: Learner) -> int | None:
        """Restore the newest complete checkpoint that rank 0 sees; the steps done, if any."""
        steps = checkpoints.complete_steps(self._url)
        step = _from_rank_zero(steps[-1] if steps else -1, learner.world)
        if step < 0:
            return None
        found = checkpoints.load(checkpoints.folder_of(self._url, step))
        learner.restore(found)
        self.history = History.load(self._url, up_to=step)
        self._last_step, self._best_step, self._best_metric = (
            found.step,
            found.best_step,
            found.best_metric,
        )
        if learner.world.rank == 0:
            logger.info("resumed step=%d from=%s", step, self._url)
        return step

    def keep(
        self, learner: Learner, step: int, metrics: Mapping[str, float] | None = None
    ) -> tuple[str, dict[str, float]]:
        """Evaluate where that is due, write the checkpoint, and drop those not needed any more.

        ``metrics`` of this step join the history.
        """
        scores: dict[str, float] = {}
        if self._evaluates(step):
            value = self._evaluate(learner, step)
            scores = {f"held_out/{self._plan.config.selection.metric}": value}
            if self._best_metric is None or value > self._best_metric:
                self._best_step, self._best_metric = step, value
        found = learner.checkpoint(
            step, metrics=scores, best_step=self._best_step, best_metric=self._best_metric
        )
        learner.note(step, "writes a checkpoint")
        url = checkpoints.save(self._url, found)
        self.history.add(step, {**(metrics or {}), **scores})
        self.history.save(self._url)
        self._last_step = step
        # The one before was needed until this one is complete, which it now is.
        checkpoints.prune(
            self._url, keep={step, step if self._best_step is None else self._best_step}
        )
        return url, scores

    def outcome(self) -> Outcome:
        """The checkpoint to use, as rank 0 knows it."""
        step = self._last_step if self._best_step is None else self._best_step
        metrics = {}
        if self._best_metric is not None:
            metrics[f"held_out/{self._plan.config.selection.metric}"] = self._best_metric
        return Outcome(
            step=step, checkpoint=checkpoints.folder_of(self._url, step), metrics=metrics
        )

    def _evaluates(self, step: int) -> bool:
        config = self._plan.config
        due = step % config.selection.every_steps == 0 or step == self._plan.last_step
        return bool(self._plan.held_out) and due

    def _evaluate(self, learner: Learner, step: int) -> float:
        def bags() -> Iterator[Bag]:
            for recording in self._plan.held_out:
                learner.note(step, "evaluates")
                yield self._cache[recording]

        videos = score_bags(learner.detector, bags())
        self.history.show(step, (video for video in videos if video.key in self._shown))
        return held_out_metric(self._plan.config, videos)


def _from_rank_zero(value: int, world: World) -> int:
    """What rank 0 has: shared storage may not show every rank the same files at once."""
    if world.size == 1:
        return value
    shared = torch.tensor(value, dtype=torch.int64, device=world.device)
    dist.broadcast(shared, src=0)
    return int(shared)
