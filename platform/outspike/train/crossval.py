"""Cross-validation inside the training split, with the bare loop: how recipes and steps are chosen.

Every recording is scored by a model that saw neither it nor anything cut from the same source.
"""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from outspike.config import TrainConfig
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.train.data import BagCache, TrainingBags
from outspike.train.folds import folds
from outspike.train.plan import TrainingPlan, make_plan
from outspike.train.select import held_out_metric
from outspike.train.step import Learner, World

logger = logging.getLogger(__name__)


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
    config: TrainConfig,
    *,
    plan: TrainingPlan | None = None,
    tell: Callable[[int, int, int], None] | None = None,
) -> CrossValidation:
    """Train once a fold, and score what each fold holds out every ``selection.every_steps``.

    Args:
        config: what to train; ``selection.num_folds`` and ``selection.metric`` apply whatever
            ``selection.split`` says.
        plan: of the config, where there is one already.
        tell: told (fold, folds, steps done) at every evaluation.

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
    scores: dict[int, list[VideoScores]] = defaultdict(list)
    splits = folds(plan.training, config.selection.num_folds, seed=config.seed)
    for number, (kept, held_out) in enumerate(splits):
        learner = Learner(config, world=World())
        source = TrainingBags(plan, kept, cache)
        learner.prepare(source)
        last = config.steps if learner.detector.trainable else 0
        if last == 0:
            scores[0] += score_bags(learner.detector, (cache[r] for r in held_out))
        for done, _ in learner.steps(source, start=0, stop=last):
            if done % config.selection.every_steps == 0 or done == last:
                scores[done] += score_bags(learner.detector, (cache[r] for r in held_out))
                if tell is not None:
                    tell(number, len(splits), done)
    metrics = {step: held_out_metric(config, found) for step, found in sorted(scores.items())}
    for step, value in metrics.items():
        logger.debug("cross_validation step=%d %s=%.4f", step, config.selection.metric, value)
    return CrossValidation(
        metric=config.selection.metric,
        metrics=metrics,
        scores={step: tuple(found) for step, found in scores.items()},
    )
