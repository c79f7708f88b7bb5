"""Search spaces are read from text, and refused in one line where they make no sense."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution

from outspike.config import SelectionConfig, TrainConfig, TuneConfig, to_json
from outspike.errors import ConfigError
from outspike.recipes import TUNE_RECIPES
from outspike.tune.result import Trial, TuneResult
from outspike.tune.source import sample
from outspike.tune.space import (
    Space,
    draw,
    grid_of,
    marginals,
    override,
    parse_space,
    settings_of,
)


def drawn(space: Space, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return draw(space, lambda dimension: sample(dimension.distribution, rng))


def choices(space: Space) -> dict[str, list[Any]]:
    return {dimension.name: list(dimension.distribution.choices) for dimension in space}


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-8, 1e-2), st.floats(2, 1e3), st.integers(0, 1000))
def test_ranges_are_sampled_inside(low: float, factor: float, seed: int) -> None:
    """Draws lie between the ends, in any of the kinds."""
    texts = [f"optim.lr=log:{low}:{low * factor}", "optim.weight_decay=uniform:0:0.5"]
    space = parse_space([*texts, "seed=int:3:4", "window.length=choice:8,16"], TrainConfig())
    values = drawn(space, seed)
    assert low <= values["optim.lr"] <= low * factor
    assert 0 <= values["optim.weight_decay"] <= 0.5
    assert values["seed"] in (3, 4)
    assert values["window.length"] in (8, 16)


def test_both_ends_of_whole_numbers_are_drawn() -> None:
    """``int:3:4`` means 3 or 4."""
    space = parse_space(["seed=int:3:4"], TrainConfig())
    assert {drawn(space, seed)["seed"] for seed in range(60)} == {3, 4}


def test_choices_have_the_type_of_the_setting() -> None:
    """Numbers, words, truth values and nothing."""
    space = parse_space(
        [
            "optim.optimiser=choice:adam,sgd",
            "optim.clip_norm=choice:none,1,0.5",
            "ssls.isolate_stats=choice:true,False",
        ],
        TrainConfig(),
    )
    assert choices(space) == {
        "optim.optimiser": ["adam", "sgd"],
        "optim.clip_norm": [None, 1, 0.5],
        "ssls.isolate_stats": [True, False],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim.lr", "expected FIELD=KIND:ARGUMENTS"),
        ("optim.lrr=log:1:2", "'lrr' is not among optimiser, lr"),
        ("nothing=log:1:2", "'nothing' is not among name, data"),
        ("optim.lr.deep=log:1:2", "'deep' is not among none"),
        ("optim=log:1:2", "holds several settings; vary one of optim.optimiser"),
        ("optim.lr=normal:1:2", "unknown kind 'normal'; there are log:LOW:HIGH"),
        ("optim.lr=log:1", "expected two numbers LOW:HIGH, found '1'"),
        ("optim.lr=log:a:b", "expected two numbers LOW:HIGH, found 'a:b'"),
        ("optim.lr=log:1:2:3", "expected two numbers"),
        ("optim.lr=log:0:1", "lies above 0"),
        ("optim.lr=log:2:1", "LOW below HIGH"),
        ("optim.lr=uniform:0.1:inf", "both finite"),
        ("steps=int:1.5:3", "expected two whole numbers"),
        ("steps=int:0:3", "steps cannot be 0"),
        ("optim.lr=uniform:-1:1", "optim.lr cannot be -1.0"),
        ("window.length=uniform:1:8", "window.length cannot be 1.0"),
        ("window.rule=choice:all,some", "window.rule cannot be 'some'"),
        ("window.length=choice:", "a choice needs values"),
    ],
)
def test_what_makes_no_sense_is_one_line(text: str, says: str) -> None:
    """The message quotes the text and says what was meant."""
    with pytest.raises(ConfigError) as caught:
        parse_space([text], TrainConfig())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_is_varied_once() -> None:
    """Two ranges for one setting contradict each other; none at all is no search."""
    with pytest.raises(ConfigError, match="varied twice"):
        parse_space(["seed=int:1:2", "seed=int:3:4"], TrainConfig())
    with pytest.raises(ConfigError, match="at least one setting"):
        parse_space([], TrainConfig())


def test_overriding_changes_only_what_is_named() -> None:
    """Everything else, nested settings included, stays; contradictions are refused."""
    base = TrainConfig()
    changed = override(base, {"optim.lr": 0.5, "window.length": 3})
    document = to_json(base)
    document["optim"]["lr"] = 0.5
    document["window"]["length"] = 3
    assert to_json(changed) == document
    with pytest.raises(ConfigError, match="milestones"):
        override(base, {"optim.schedule": "multistep"})


@pytest.mark.parametrize("recipe", sorted(TUNE_RECIPES))
def test_recipes_name_what_exists(recipe: str) -> None:
    """The spaces that come with the package fit their trainings."""
    config = TUNE_RECIPES[recipe]()
    assert parse_space(config.space, config.train)


def test_a_search_needs_something_held_out() -> None:
    """Trials cannot be compared on nothing, nor on the test split."""
    for split in ("last", "test"):
        with pytest.raises(ConfigError, match="held-out"):
            TuneConfig(train=TrainConfig(selection=SelectionConfig(split=split)))


def test_settings_varied_together_keep_together() -> None:
    """A case gives each field its value; the trial's settings are single fields of their type."""
    base = TrainConfig()
    space = parse_space(
        ["ssls.policy,ssls.scale,ssls.schedule=cases:fixed,2,none|schedule,0.5,linear_cosine"], base
    )
    [(name, cases)] = choices(space).items()
    assert settings_of({name: cases[1]}) == {
        "ssls.policy": "schedule",
        "ssls.scale": 0.5,
        "ssls.schedule": "linear_cosine",
    }
    changed = override(base, {name: cases[1], "seed": 3})
    assert (changed.ssls.policy, changed.ssls.scale, changed.seed) == ("schedule", 0.5, 3)
    assert marginals(space)["ssls.scale"] == CategoricalDistribution([2, 0.5])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ssls.policy,ssls.scale=choice:fixed,1", "fields varied together take cases"),
        ("ssls.policy,ssls.scale=cases:fixed", "every case gives ssls.policy,ssls.scale a value"),
        ("ssls.policy,ssls.nothing=cases:fixed,1", "'nothing' is not among mode"),
        ("ssls.scale,ssls.scale=cases:1,2", "varied twice"),
        ("ssls.policy,ssls.scale=cases:sometimes,1", "cannot be"),
    ],
)
def test_cases_that_make_no_sense_are_refused(text: str, says: str) -> None:
    """Before any trial starts, in one line."""
    with pytest.raises(ConfigError, match=says):
        parse_space([text], TrainConfig())


def test_a_grid_goes_through_every_combination() -> None:
    """Its size is the product of the choices, and a range is refused."""
    base = TrainConfig()
    grid = grid_of(parse_space(["window.length=choice:8,16,32", "seed=choice:0,1"], base))
    assert len(grid) == 6
    assert grid[:2] == [{"window.length": 8, "seed": 0}, {"window.length": 8, "seed": 1}]
    with pytest.raises(ConfigError, match=r"optim\.lr has a range"):
        grid_of(parse_space(["optim.lr=log:1e-4:1e-1"], base))


def test_trials_are_gathered_over_their_seeds() -> None:
    """Mean and Student's interval of each configuration; a failed seed is counted, not averaged."""
    trials = tuple(
        Trial(
            trial_id=f"t{number}",
            number=number,
            values={"optim.lr": lr, "seed": seed},
            metric=metric,
            step=1,
            seconds=1.0,
        )
        for number, (lr, seed, metric) in enumerate(
            [(0.1, 0, 0.8), (0.1, 1, 0.9), (0.2, 0, 0.5), (0.2, 1, None), (0.1, 2, 1.0)]
        )
    )
    result = TuneResult(name="s", metric="auc", run_id="r", trials=trials, best=None)
    first, second = result.over_seeds()
    assert first.values == {"optim.lr": 0.1}
    assert first.mean == pytest.approx(0.9)
    assert first.interval == pytest.approx((0.9 - 0.24841, 0.9 + 0.24841), abs=1e-4)
    assert (second.metrics, second.num_failed, second.interval) == ((0.5,), 1, None)
    assert "0.9000 [0.6516, 1.1484] over 3 seeds  optim.lr=0.1" in result.table()


CONDITIONAL = (
    "ssls.policy=choice:fixed,learned,schedule",
    "ssls.scale=uniform:0.1:1 when ssls.policy=fixed",
    "ssls.scale=uniform:2:5 when ssls.policy=learned|schedule",
    "ssls.schedule=choice:linear_cosine,exponential_step when ssls.policy=schedule",
)

MIXED = (CONDITIONAL[1], "ssls.scale=choice:2,3 when ssls.policy=learned")


def test_a_conditional_setting_is_drawn_only_where_its_condition_holds() -> None:
    """Each trial has the settings of its case alone, from that case's range, and is valid."""
    base = TrainConfig()
    space = parse_space(CONDITIONAL, base)
    seen = set()
    for seed in range(60):
        values = drawn(space, seed)
        policy = values["ssls.policy"]
        low, high = (0.1, 1) if policy == "fixed" else (2, 5)
        assert low <= values["ssls.scale"] <= high
        assert ("ssls.schedule" in values) == (policy == "schedule")
        assert override(base, values).ssls.policy == policy
        seen.add(policy)
    assert seen == {"fixed", "learned", "schedule"}
    assert marginals(space)["ssls.scale"] == FloatDistribution(0.1, 5.0)


def test_a_conditional_grid_has_no_empty_cells() -> None:
    """Combinations that differ in nothing that is drawn are one."""
    texts = (CONDITIONAL[0], CONDITIONAL[3], "ssls.scale=choice:2,3 when ssls.policy=learned")
    grid = grid_of(parse_space(texts, TrainConfig()))
    assert len(grid) == 1 + 2 + 2
    assert {"ssls.policy": "fixed"} in grid


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("ssls.scale=uniform:0:1 when ssls.policy=fixed",), "not varied before it"),
        ((CONDITIONAL[0], "ssls.scale=uniform:0:1 when"), "unknown kind|two numbers"),
        ((CONDITIONAL[0], "ssls.scale=uniform:0:1 when ssls.policy"), "a condition reads"),
        (("seed=int:0:5", "steps=int:5:9 when seed=3"), "a condition needs choices"),
        (("seed=choice:0,1", "steps=int:5:9 when seed=3"), "seed is never 3"),
        ((CONDITIONAL[0], CONDITIONAL[1], "ssls.scale=choice:1,2"), "varied twice"),
        (("ssls.policy=choice:fixed,schedule",), "needs ssls.schedule"),
        (
            (
                "ssls.policy=choice:fixed,learned",
                CONDITIONAL[1],
                "ssls.scale=choice:2,3 when ssls.policy=learned",
            ),
            "choices in all",
        ),
    ],
)
def test_conditions_that_make_no_sense_are_refused(texts: tuple[str, ...], says: str) -> None:
    """Before any trial starts, in one line."""
    with pytest.raises(ConfigError, match=says) as caught:
        parse_space(texts, TrainConfig())
    assert "\n" not in str(caught.value)
