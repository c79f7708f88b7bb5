"""The page of a search shows what it found, and says so where it found nothing."""

import base64
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from outspike.tune.report import MIN_TRIALS, importances, render_search
from outspike.tune.result import Trial, TuneResult

SPACE = {
    "optim.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "detector.dropout": FloatDistribution(0.0, 0.8),
    "window.length": CategoricalDistribution([16, 32]),
}


def make_result(num_trials: int, *, num_failed: int = 0) -> TuneResult:
    """Trials whose metric depends on the learning rate alone."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(num_trials):
        log_lr = rng.uniform(-4, -1)
        values = {
            "optim.lr": float(10**log_lr),
            "detector.dropout": float(rng.uniform(0, 0.8)),
            "window.length": int(rng.choice([16, 32])),
        }
        failed = number < num_failed
        trials.append(
            Trial(
                trial_id=f"t{number}",
                number=number,
                values=values,
                metric=None if failed else float(0.9 - 0.1 * (log_lr + 2.5) ** 2),
                step=0 if failed else 50,
                seconds=1.0,
                error="ConfigError: <no>" if failed else None,
            )
        )
    trials.sort(key=lambda trial: (trial.metric is None, -(trial.metric or 0.0)))
    return TuneResult(name="s", metric="auc", run_id="r", trials=tuple(trials), best=None)


def pictures(page: str) -> list[ET.Element]:
    return [
        ET.fromstring(base64.b64decode(data))
        for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    ]


def test_the_setting_that_decides_is_found_the_important_one() -> None:
    """A metric made of the learning rate alone gives nearly all importance to it."""
    found = importances(make_result(40), SPACE)
    assert found is not None
    assert found["optim.lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)


def test_the_page_is_self_contained_and_shows_every_trial() -> None:
    """Four pictures, all inside the page; a row a trial; nothing fetched from elsewhere."""
    result = make_result(12, num_failed=2)
    page = render_search(result, SPACE)
    assert len(pictures(page)) == 4
    assert page.count('<td class="error">') == 12
    assert f'data-best="{result.trials[0].metric}"' in page
    assert "2 failed" in page
    assert "ConfigError: &lt;no&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_too_few_trials_give_no_importance_and_the_page_says_so() -> None:
    """A forest fitted to a handful of points would be a constant with a picture."""
    result = make_result(MIN_TRIALS - 1)
    assert importances(result, SPACE) is None
    page = render_search(result, SPACE)
    assert len(pictures(page)) == 3
    assert "Too few different trials" in page


def test_a_search_of_failures_is_a_page_without_pictures() -> None:
    """Nothing was found, and that is what the page says."""
    page = render_search(make_result(3, num_failed=3), SPACE)
    assert pictures(page) == []
    assert "No trial reached an evaluation" in page


def test_the_same_result_is_the_same_page() -> None:
    """A page logged twice does not differ."""
    result = make_result(10)
    assert render_search(result, SPACE) == render_search(result, SPACE)


def test_settings_that_only_some_trials_have_are_shown_as_such() -> None:
    """A conditional setting keeps its slice and its axis, and importance is told without it."""
    result = make_result(20)
    trials = tuple(
        replace(trial, values={k: v for k, v in trial.values.items() if k != "detector.dropout"})
        if trial.number % 2
        else replace(trial, continues=result.trials[0].trial_id)
        for trial in result.trials
    )
    partial = replace(result, trials=trials, ended="2 hours are over")
    found = importances(partial, SPACE)
    assert found is not None
    assert set(found) == {"optim.lr", "window.length"}
    page = render_search(partial, SPACE)
    assert "only some trials have them: detector.dropout" in page
    assert "2 hours are over" in page
    assert page.count(f"#{result.trials[0].number}<") == 10
    assert len(pictures(page)) == 4


def test_trials_that_are_all_alike_are_drawn_on_whole_axes() -> None:
    """Equal settings and metrics leave no spread to scale the parallel axes by."""
    result = make_result(2)
    trial = replace(result.trials[0], metric=1.0)
    alike = replace(result, trials=(trial, replace(trial, number=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pictures(render_search(alike, SPACE))


def test_seeds_are_gathered_into_means_with_intervals() -> None:
    """One line a configuration, the best mean first, each with its interval and seeds."""
    trials = [
        replace(trial, values={**trial.values, "detector.dropout": dropout, "seed": seed}, metric=m)
        for dropout, m in ((0.1, 0.6), (0.5, 0.8))
        for seed, trial in enumerate(make_result(3).trials)
    ]
    trials = [
        replace(trial, values={name: trial.values[name] for name in ("detector.dropout", "seed")})
        for trial in trials
    ]
    space = {
        "detector.dropout": SPACE["detector.dropout"],
        "seed": CategoricalDistribution([2, 0, 1]),
    }
    page = render_search(replace(make_result(1), trials=tuple(trials)), space)
    section = page.split("<h2>Over seeds</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<td class=\"n\">(0\.\d+)</td>\s*<td>([^<]+)</td>", section)
    assert rows == [("0.8000", "0.8000 to 0.8000"), ("0.6000", "0.6000 to 0.6000")]
    assert "Over seeds" not in render_search(make_result(3), SPACE)
