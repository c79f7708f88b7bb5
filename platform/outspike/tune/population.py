"""Population-based training (Jaderberg et al. 2017) in lockstep, every segment a trial of its own.

A population trains for some steps and is compared; the worst quarter takes over weights *and*
settings of the best quarter (exploit) and then varies the settings (explore). Here a member's
segment is an ordinary trial: a process, a folder, an MLflow run, and the name of the trial whose
last checkpoint it starts from. So nothing is paused or moved, what a kill interrupts is found again
by name, and no segment - settings, weights to start from, last step - is ever trained twice.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, IntDistribution

from outspike.config import TrainConfig, TuneConfig
from outspike.detectors.build import build
from outspike.errors import ConfigError
from outspike.tune.key import PARENT, UNTIL, key_of
from outspike.tune.source import METRIC, Drawn, TrialSource, sample
from outspike.tune.space import Dimension, Space, draw, override

#: As published: share of members that are replaced, chance of drawing a setting anew, and factors.
_SHARE, _ANEW, _FACTORS = 0.25, 0.25, (0.8, 1.2)
_MAX_ATTEMPTS = 100


def generations(config: TuneConfig) -> list[int]:
    """Steps after which the population is compared; the last one ends the training."""
    last, every = config.train.steps, config.grace_steps
    return [*range(every, last, every), last]


def check_population(config: TuneConfig, space: Space) -> None:
    """Refuse what cannot be changed in the middle of a training.

    Raises:
        ConfigError: a setting that changes the shape of a weight, the seed, fewer than four
            members, or selection by cross-validation, which trains several models a trial.
    """
    if config.num_trials < 4:
        raise ConfigError(
            f"sampler='pbt' needs at least 4 members, num_trials={config.num_trials}."
        )
    if config.train.selection.split != "holdout":
        raise ConfigError(
            "sampler='pbt' compares members in the middle: train.selection.split=holdout."
        )
    for dimension in space:
        if "seed" in dimension.fields:
            raise ConfigError("sampler='pbt' changes settings in the middle; the seed is not one.")
        if not any(field.startswith("detector.") for field in dimension.fields):
            continue
        shapes = [_shapes(config.train, {dimension.name: value}) for value in dimension.ends]
        if any(found != shapes[0] for found in shapes):
            raise ConfigError(
                f"{dimension.name} changes the shapes of weights, which sampler='pbt' hands on "
                "between settings; vary it with 'tpe' or 'random'."
            )


class Population(TrialSource):
    """Gives out the members of one generation, and the next when all of them have ended."""

    judged_by = METRIC  # where its weights stand now, not where they once stood

    def __init__(self, config: TuneConfig, space: Space, folder: str) -> None:
        super().__init__(config, space, folder)
        self._stops = generations(config)

    def suggest(  # type: ignore[override]
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """A member's next segment; None while others of its generation still train."""
        size = self.config.num_trials
        whole = len(self.drawn) % size == 0
        if whole and not all(found.ended is not None for found in self.drawn):
            return None
        return super().suggest(trial_id)

    def next(self, trial_id: str) -> Drawn | None:
        """The next member in the order of the generation."""
        size = self.config.num_trials
        generation, member = divmod(len(self.drawn), size)
        if generation == len(self._stops):
            return None
        if generation == 0:
            return super().next(trial_id)
        known = {found.key for found in self.drawn}
        for attempt in range(_MAX_ATTEMPTS):
            settings, parent = self._succeed(generation, member, attempt)
            values = {**settings, PARENT: parent, UNTIL: self._stops[generation]}
            key = key_of(self.config.train, values)
            if key not in known:
                return Drawn(trial_id=trial_id, key=key, values=values)
        raise ConfigError(
            f"The space has too few values for {size} members that differ; add some, or lower "
            "num_trials."
        )

    def completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """The first generation starts from fresh weights."""
        return {**values, PARENT: None, UNTIL: self._stops[0]}

    def spent(self) -> str | None:
        """Budgets end a population between generations, never within one."""
        return None if len(self.drawn) % self.config.num_trials else super().spent()

    def _succeed(self, generation: int, member: int, attempt: int) -> tuple[dict[str, Any], str]:
        """Settings of a member's next segment, and the trial whose weights it goes on with."""
        size = self.config.num_trials
        before = self.drawn[(generation - 1) * size : generation * size]
        ranked = sorted(before, key=lambda found: -np.inf if found.metric is None else found.metric)
        num = max(1, int(size * _SHARE))
        own = before[member]
        worst = {found.key for found in ranked[:num]}
        if own.key not in worst and own.metric is not None:
            return _settings(own), own.key
        best = [found for found in ranked[-num:] if found.metric is not None]
        if not best:
            raise ConfigError("Every member of the population failed; no weights to go on with.")
        rng = np.random.default_rng([self.config.seed, generation, member, attempt])
        donor = best[int(rng.integers(len(best)))]
        return explore(self.space, _settings(donor), rng), donor.key


def explore(space: Space, settings: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Every setting drawn anew with a small chance, else moved: numbers by a fifth, inside their
    range, choices to a neighbour in the order of the text."""

    def moved(dimension: Dimension) -> Any:
        found = dimension.distribution
        if dimension.name not in settings or rng.random() < _ANEW:
            return sample(found, rng)
        value = settings[dimension.name]
        if isinstance(found, CategoricalDistribution):
            place = found.choices.index(value) + int(rng.choice((-1, 1)))
            return found.choices[min(max(place, 0), len(found.choices) - 1)]
        factor = float(rng.choice(_FACTORS))
        if isinstance(found, IntDistribution):
            step = max(1, round(abs(value * (factor - 1))))
            return int(min(max(value + (step if factor > 1 else -step), found.low), found.high))
        return float(min(max(value * factor, found.low), found.high))

    return draw(space, moved)


def _settings(found: Drawn) -> dict[str, Any]:
    return {name: value for name, value in found.values.items() if name not in (PARENT, UNTIL)}


def _shapes(base: TrainConfig, values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    detector = build(override(base, values).detector)
    return {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items()}
