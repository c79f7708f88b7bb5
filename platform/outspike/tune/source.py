"""Where Ray Tune gets its trials from: drawn at random or by TPE, or gone through one by one.

No configuration is given out twice, whoever draws it, and the source ends the search when its
budget is spent: so many trials, so many hours, or so many trials without a gain.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from ray.tune.search import Searcher

from outspike import urls
from outspike.config import TuneConfig
from outspike.tune.key import key_of
from outspike.tune.space import Dimension, Distribution, Space, draw, grid_of

logger = logging.getLogger(__name__)

METRIC = "metric"
ENDED = "ended.json"
#: Draws in a row that are all known: what is left, if anything, is not worth finding.
_MAX_REPEATS = 200
_MAX_INSISTED = 20


@dataclass
class Drawn:
    """A configuration that was given out, and what came of it."""

    trial_id: str
    """Tune's name of the trial."""
    key: str
    values: dict[str, Any]
    metric: float | None = None
    ended: int | None = None
    """How many had ended before it; None while it trains."""


class TrialSource(Searcher):
    """Draws configurations that have not been drawn, until the budget is spent.

    Args:
        config: of the search.
        space: what is drawn.
        folder: of the search; why it ended early is written there.
    """

    #: What of a trial's last report says how good it was.
    judged_by = "best"

    def __init__(self, config: TuneConfig, space: Space, folder: str) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.config = config
        self.space = space
        self.folder = folder
        self.drawn: list[Drawn] = []
        self._spent_s = 0.0
        self._began = time.monotonic()
        self._sampler = _sampler(config, space)

    def suggest(  # type: ignore[override]  # Ray's hint forgets FINISHED
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """Values of the next trial; ``FINISHED`` where there is to be none, and why is noted."""
        why = self.spent()
        if why is None:
            found = self.next(trial_id)
            if found is not None:
                self.drawn.append(found)
                return found.values
            why = "every configuration has been drawn"
        urls.write_bytes(urls.join(self.folder, ENDED), json.dumps({"why": why}).encode())
        logger.info("search=%s draws no more trials: %s", self.config.name, why)
        return str(Searcher.FINISHED)

    def next(self, trial_id: str) -> Drawn | None:
        """A configuration nobody has had; None where there is none left."""
        known = {found.key for found in self.drawn}
        for _ in range(_MAX_REPEATS):
            drawn = self._sampler.draw(trial_id)
            if drawn is None:
                return None
            values = self.completed(drawn)
            key = key_of(self.config.train, values)
            if key not in known:
                return Drawn(trial_id=trial_id, key=key, values=values)
            self._sampler.drop(trial_id)
        return None

    def completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """What a trial is given beside its settings."""
        return values

    def spent(self) -> str | None:
        """Which budget is used up, if one is."""
        hours, patience = self.config.hours, self.config.patience
        if hours is not None and self._elapsed_s() >= hours * 3600:
            return f"{hours:g} hours are over"
        ended = sorted((x for x in self.drawn if x.ended is not None), key=lambda x: x.ended or 0)
        judged = [found.metric for found in ended if found.metric is not None]
        if patience is not None and judged:
            since = len(judged) - 1 - judged.index(max(judged))
            if since >= patience:
                return f"no gain in {since} trials"
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Only ends count."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has ended; one that was stopped early counts with its best."""
        for found in self.drawn:
            if found.trial_id == trial_id and found.ended is None:
                found.metric = None if error else (result or {}).get(self.judged_by)
                found.ended = sum(other.ended is not None for other in self.drawn)
                self._sampler.tell(trial_id, found)

    def save(self, checkpoint_path: str) -> None:
        """Write down what was drawn and what came of it."""
        state = {"drawn": [asdict(found) for found in self.drawn], "spent_s": self._elapsed_s()}
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on where :meth:`save` was called."""
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self.drawn = [Drawn(**found) for found in state["drawn"]]
        self._spent_s = state["spent_s"]
        self._began = time.monotonic()
        self._sampler = _sampler(self.config, self.space)
        self._sampler.replay(self.drawn)

    def _elapsed_s(self) -> float:
        return self._spent_s + time.monotonic() - self._began


def sample(distribution: Distribution, rng: np.random.Generator) -> Any:
    """One value of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    if isinstance(distribution, IntDistribution):
        return int(rng.integers(distribution.low, distribution.high + 1))
    low, high = distribution.low, distribution.high
    if distribution.log:
        return float(min(high, max(low, np.exp(rng.uniform(np.log(low), np.log(high))))))
    return float(rng.uniform(low, high))


# ---------------------------------------------------------------------------------- samplers


def _sampler(config: TuneConfig, space: Space) -> "_Random | _Tpe | _Grid":
    if config.sampler == "grid":
        return _Grid(space)
    if config.sampler == "tpe":
        return _Tpe(space, config.seed)
    return _Random(space, config.seed)


class _Random:
    """Draws that depend on the seed and their number alone, and so not on who ends first."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._number = 0

    def draw(self, trial_id: str) -> dict[str, Any] | None:
        rng = np.random.default_rng([self._seed, self._number])
        self._number += 1
        return draw(self._space, lambda dimension: sample(dimension.distribution, rng))

    def drop(self, trial_id: str) -> None:
        """The next draw is another one anyway."""

    def tell(self, trial_id: str, found: Drawn) -> None:
        """Chance learns nothing."""

    def replay(self, drawn: list[Drawn]) -> None:
        """As many are behind us; what was dropped between them is dropped again."""
        self._number = len(drawn)


class _Grid:
    """Every combination, each once."""

    def __init__(self, space: Space) -> None:
        self._left: Iterator[dict[str, Any]] = iter(grid_of(space))

    def draw(self, trial_id: str) -> dict[str, Any] | None:
        return next(self._left, None)

    def drop(self, trial_id: str) -> None:
        """Equal combinations follow each other only where a choice was named twice."""

    def tell(self, trial_id: str, found: Drawn) -> None:
        """The order is fixed."""

    def replay(self, drawn: list[Drawn]) -> None:
        """Known ones are passed over when they are drawn."""


class _Tpe:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), define-by-run."""

    def __init__(self, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
        )
        self._asked: dict[str, optuna.Trial] = {}
        self._seed = seed
        self._num_dropped = 0

    def draw(self, trial_id: str) -> dict[str, Any] | None:
        asked = self._asked[trial_id] = self._study.ask()
        return draw(self._space, lambda dimension: _suggest(asked, dimension))

    def drop(self, trial_id: str) -> None:
        # The estimator insists where choices are few: it is asked by chance from here on.
        self._num_dropped += 1
        if self._num_dropped == _MAX_INSISTED:
            self._study.sampler = optuna.samplers.RandomSampler(seed=self._seed)
        self._study.tell(self._asked.pop(trial_id), state=optuna.trial.TrialState.FAIL)

    def tell(self, trial_id: str, found: Drawn) -> None:
        asked = self._asked.pop(trial_id)
        if found.metric is None:
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, found.metric)

    def replay(self, drawn: list[Drawn]) -> None:
        """Ask again for what was drawn, and tell what is known of it.

        The estimator's own chance starts anew from where it would be after so many draws.
        """
        self._study.sampler = optuna.samplers.TPESampler(seed=len(drawn) + 1)
        for found in drawn:
            fixed = _by_label(self._space, found.values)
            self._study.enqueue_trial(fixed)
            self.draw(found.trial_id)
            if found.ended is not None:
                self.tell(found.trial_id, found)


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    found = dimension.distribution
    if isinstance(found, CategoricalDistribution):
        return trial.suggest_categorical(dimension.label, found.choices)
    if isinstance(found, IntDistribution):
        return trial.suggest_int(dimension.label, found.low, found.high)
    return trial.suggest_float(dimension.label, found.low, found.high, log=found.log)


def _by_label(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def note(dimension: Dimension) -> Any:
        found[dimension.label] = values[dimension.name]
        return values[dimension.name]

    draw(space, note)
    return found
