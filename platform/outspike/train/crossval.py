"""Cross-validation inside the training split, with the bare loop: how recipes and steps are chosen.

Every recording is scored by a model that saw neither it nor anything cut from the same source.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from outspike.config import TrainConfig
from outspike.recording import Recording
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.train.data import BagCache, TrainingBags
from outspike.train.folds import folds
from outspike.train.loop import Tell
from outspike.train.plan import TrainingPlan, make_plan
from outspike.train.select import held_out_metric
from outspike.train.step import Learner, World


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Out-of-fold scores of every training recording, at every step that was evaluated."""

    metric: str
    metrics: dict[int, float]
    """Metric of the pooled out-of-fold scores by steps done."""
    scores: dict[int, tuple[VideoScores, ...]]

    @property
    def best_step(self) -> int:
        """Steps after which the pooled metric is highest; the fewest of them in a tie."""
        return max(self.metrics, key=lambda step: (self.metrics[step], -step))

    @property
    def best(self) -> float:
        """The highest pooled metric. It was chosen among ``metrics``, so it flatters a little."""
        return self.metrics[self.best_step]

    @property
    def best_scores(self) -> tuple[VideoScores, ...]:
        """Out-of-fold scores at the best step."""
        return self.scores[self.best_step]


def cross_validate(
    config: TrainConfig, *, plan: TrainingPlan | None = None, tell: Tell | None = None
) -> CrossValidation:
    """Train once a fold, and score what each fold holds out every ``selection.every_steps``.

    The folds advance together, so the pooled metric is known at every evaluation, and a search may
    give up on a config by raising from ``tell``.

    Args:
        config: what to train; ``selection.num_folds`` and ``selection.metric`` apply whatever
            ``selection.split`` says.
        plan: of the config, where there is one already.
        tell: told (steps done, ``{"held_out/<metric>": value}``) at every evaluation.

    Raises:
        DatasetError: too few groups for the folds, or a fold's rest cannot fill a batch.
        ConfigError: the labels do not define the metric.
    """
    plan = plan or make_plan(
        dataclasses.replace(
            config, selection=dataclasses.replace(config.selection, split="cross_validation")
        )
    )
    config = plan.config
    cache = BagCache(plan)
    splits = folds(plan.training, config.selection.num_folds, seed=config.seed)
    trained = [Fold(plan, kept, held_out, cache) for kept, held_out in splits]
    metrics, scores = {}, {}
    for step in _evaluated_steps(plan):
        found = tuple(video for fold in trained for video in fold.scores_at(step))
        metrics[step] = held_out_metric(config, found)
        scores[step] = found
        if tell is not None:
            tell(step, {f"held_out/{config.selection.metric}": metrics[step]})
    return CrossValidation(metric=config.selection.metric, metrics=metrics, scores=scores)


class Fold:
    """One fold's model, trained as far as it was last asked for.

    Args:
        plan: what is trained.
        kept: recordings to train on.
        held_out: recordings to score.
        cache: bags of the plan, shared by its folds.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        kept: Sequence[Recording],
        held_out: Sequence[Recording],
        cache: BagCache,
    ) -> None:
        self._source = TrainingBags(plan, kept, cache)
        self._held_out = held_out
        self._cache = cache
        self._learner = Learner(plan.config, world=World())
        self._learner.prepare(self._source)
        self._done = 0

    def scores_at(self, step: int, *, tell: Tell | None = None) -> list[VideoScores]:
        """Train on to a step, telling of every one, and score what is held out."""
        for done, losses in self._learner.steps(self._source, start=self._done, stop=step):
            self._done = done
            if tell is not None:
                tell(done, losses)
        return score_bags(self._learner.detector, (self._cache[r] for r in self._held_out))


def _evaluated_steps(plan: TrainingPlan) -> list[int]:
    every, last = plan.config.selection.every_steps, plan.last_step
    return sorted({*range(every, last + 1, every), last})
