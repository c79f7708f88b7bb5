"""Configurations are given out once each, within a budget, and a kill forgets none of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from outspike.config import SelectionConfig, TrainConfig, TuneConfig
from outspike.errors import ConfigError
from outspike.tune.key import PARENT, UNTIL, key_of, split
from outspike.tune.population import Population, check_population, explore, generations
from outspike.tune.source import ENDED, TrialSource
from outspike.tune.space import parse_space, settings_of

TRAIN = TrainConfig(selection=SelectionConfig(split="holdout"), steps=40)
FEW = ("window.length=choice:8,16", "optim.optimiser=choice:adam,sgd")
WIDE = ("optim.lr=log:1e-4:1e-1", "detector.dropout=uniform:0:0.6")


@pytest.fixture
def source_of(tmp_path: Path) -> Callable[..., TrialSource]:
    """A source of trials over a space: ``source_of(WIDE, sampler="tpe")``."""

    def make(space: tuple[str, ...] = WIDE, **changes: Any) -> TrialSource:
        config = TuneConfig(train=TRAIN, space=space, **{"grace_steps": 10, **changes})
        kind = Population if config.sampler == "pbt" else TrialSource
        return kind(config, parse_space(space, TRAIN), str(tmp_path))

    return make


def end(source: TrialSource, trial_id: str, metric: float | None) -> None:
    result = None if metric is None else {"best": metric, "metric": metric}
    source.on_trial_complete(trial_id, result, error=metric is None)


def drawn_by(source: TrialSource, number: int, metric: Callable[[dict], float]) -> list[dict]:
    """Settings of so many trials that end one after the other, or fewer where it finishes."""
    found: list[dict] = []
    for trial in range(number):
        values = source.suggest(f"t{len(source.drawn)}-{trial}")
        if values == Searcher.FINISHED:
            break
        assert isinstance(values, dict)
        found.append(values)
        end(source, source.drawn[-1].trial_id, metric(values))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_no_configuration_is_given_out_twice(
    source_of: Callable[..., TrialSource], tmp_path: Path, sampler: str
) -> None:
    """A space of four gives four trials, whoever draws, and then says that it is empty."""
    source = source_of(FEW, sampler=sampler)
    found = drawn_by(source, 30, lambda values: values["window.length"])
    assert len(found) == 4
    assert len({key_of(TRAIN, values) for values in found}) == 4
    assert source.suggest("more") == Searcher.FINISHED
    assert "every configuration" in json.loads((tmp_path / ENDED).read_text())["why"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_restored_source_goes_on_where_it_was(
    source_of: Callable[..., TrialSource], tmp_path: Path, sampler: str
) -> None:
    """Nothing drawn before a kill is drawn again after it, whether it had ended or not."""
    space = FEW if sampler == "grid" else WIDE
    source = source_of(space, sampler=sampler)
    before = drawn_by(source, 2, lambda _: 0.5)
    before.append(source.suggest("unfinished"))
    source.save(str(tmp_path / "state"))
    restored = source_of(space, sampler=sampler)
    restored.restore(str(tmp_path / "state"))
    after = drawn_by(restored, 1, lambda _: 0.6)
    assert len({key_of(TRAIN, values) for values in [*before, *after]}) == 4
    end(restored, "unfinished", 0.7)
    assert [found.metric for found in restored.drawn] == [0.5, 0.5, 0.7, 0.6]
    if sampler == "random":  # chance does not depend on the kill
        assert after == drawn_by(source, 1, lambda _: 0.6)


def test_the_estimator_learns(source_of: Callable[..., TrialSource]) -> None:
    """TPE ends nearer to the best learning rate than chance does, over the same number."""

    def metric(values: dict) -> float:
        return -abs(float(np.log10(values["optim.lr"])) + 2.5)

    last = {
        sampler: np.mean(
            [metric(v) for v in drawn_by(source_of(sampler=sampler), 40, metric)[-20:]]
        )
        for sampler in ("tpe", "random")
    }
    assert last["tpe"] > last["random"] + 0.2


def test_budgets_end_the_search(source_of: Callable[..., TrialSource], tmp_path: Path) -> None:
    """So many trials without a gain, or hours that are over, and the reason is written down."""
    gains = iter([0.1, 0.5, 0.2, None, 0.3, 0.4, 0.9])
    patient = source_of(sampler="random", patience=3)
    assert len(drawn_by(patient, 20, lambda _: next(gains))) == 6, "failures are not counted"
    assert json.loads((tmp_path / ENDED).read_text()) == {"why": "no gain in 3 trials"}
    late = source_of(sampler="random", hours=1e-9)
    assert late.suggest("t") == Searcher.FINISHED
    assert "hours are over" in json.loads((tmp_path / ENDED).read_text())["why"]
    for wrong in ({"hours": 0.0}, {"patience": 0}):
        with pytest.raises(ConfigError, match="above 0"):
            source_of(**wrong)


# --------------------------------------------------------------------------------- population


def generation_of(source: TrialSource, metrics: list[float | None]) -> list[dict]:
    """Give out a whole generation, then let its members end."""
    first = len(source.drawn)
    found = [source.suggest(f"t{first + member}") for member in range(len(metrics))]
    for member, metric in enumerate(metrics):
        end(source, f"t{first + member}", metric)
    assert all(isinstance(values, dict) for values in found)
    return found  # type: ignore[return-value]


def test_the_worst_take_over_weights_and_settings_of_the_best(
    source_of: Callable[..., TrialSource],
) -> None:
    """Exploit and explore: one of four is replaced, the others go on with what is theirs."""
    source = source_of(sampler="pbt", num_trials=4)
    first = generation_of(source, [0.2, 0.9, 0.1, 0.5])
    second = generation_of(source, [0.3, 0.9, 0.8, 0.5])
    keys = [key_of(TRAIN, values) for values in first]
    assert [values[PARENT] for values in first] == [None] * 4
    assert [values[PARENT] for values in second] == [keys[0], keys[1], keys[1], keys[3]]
    assert [values[UNTIL] for values in first + second] == [10] * 4 + [20] * 4
    for member in (0, 1, 3):
        assert split(second[member])[0] == split(first[member])[0]
    assert split(second[2])[0] != split(first[1])[0], "settings are varied"
    assert len({key_of(TRAIN, values) for values in first + second}) == 8


def test_a_generation_waits_for_the_one_before_it(source_of: Callable[..., TrialSource]) -> None:
    """Members are compared when all have ended; a failed one is replaced; then it is over."""
    source = source_of(sampler="pbt", num_trials=4)
    for member in range(4):
        assert source.suggest(f"t{member}") is not None
    for member in range(3):
        end(source, f"t{member}", 0.5)
    assert source.suggest("early") is None
    end(source, "t3", None)
    second = generation_of(source, [0.5, 0.6, 0.7, 0.8])
    assert second[3][PARENT] in {found.key for found in source.drawn[:3]}
    assert generations(source.config) == [10, 20, 30, 40]
    for _ in range(2):
        generation_of(source, [0.5, 0.6, 0.7, 0.8])
    assert source.suggest("more") == Searcher.FINISHED


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(1e-4, 1e-1), st.integers(1, 16))
def test_exploring_stays_inside_the_space(seed: int, lr: float, divisor: int) -> None:
    """Numbers move by a fifth or are drawn anew, choices are those of the text."""
    texts = ("optim.lr=log:1e-4:1e-1", "detector.mil_divisor=int:1:16", *FEW[1:])
    space = parse_space(texts, TRAIN)
    before = {"optim.lr": lr, "detector.mil_divisor": divisor, "optim.optimiser": "sgd"}
    after = explore(space, before, np.random.default_rng(seed))
    assert 1e-4 <= after["optim.lr"] <= 1e-1
    assert 1 <= after["detector.mil_divisor"] <= 16
    assert isinstance(after["detector.mil_divisor"], int)
    assert after["optim.optimiser"] in ("adam", "sgd")
    assert settings_of(after).keys() == before.keys()


def test_a_population_takes_conditional_settings() -> None:
    """What decides no weight's shape is not asked for one."""
    space = (
        "ssls.policy=choice:fixed,schedule",
        "ssls.schedule=choice:a_b when ssls.policy=schedule",
    )
    config = TuneConfig(train=TRAIN, space=space, sampler="pbt")
    check_population(config, parse_space(space, TRAIN))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": ("detector.hidden=choice:8,16",)}, "changes the shapes of weights"),
        ({"space": ("seed=int:0:5",)}, "the seed is not one"),
        ({"num_trials": 3}, "at least 4 members"),
        (
            {"train": replace(TRAIN, selection=SelectionConfig(split="cross_validation"))},
            "selection.split=holdout",
        ),
    ],
)
def test_what_no_population_can_vary_is_refused(changes: dict[str, Any], says: str) -> None:
    """Before any trial starts, in one line."""
    config = replace(TuneConfig(train=TRAIN, space=WIDE, sampler="pbt"), **changes)
    with pytest.raises(ConfigError, match=says):
        check_population(config, parse_space(config.space, config.train))
