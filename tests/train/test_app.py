"""Jobs turn results and errors into exit codes, and command lines into configs."""

import logging
from collections.abc import Callable

import pytest

from outspike import app
from outspike.config import IefVadConfig, TrainConfig
from outspike.errors import ConfigError, StoreError


def small() -> TrainConfig:
    """A small recipe. It has a second sentence.

    And a second paragraph.
    """
    return TrainConfig()


def fusion() -> TrainConfig:
    """Another one."""
    return TrainConfig(name="fusion", detector=IefVadConfig())


RECIPES: dict[str, Callable[[], TrainConfig]] = {"small": small, "fusion": fusion}


def choose(*arguments: str) -> TrainConfig:
    return app.choose_config(
        RECIPES, default="small", prog="jobs/x.py", description="Does x.", arguments=arguments
    )


@pytest.fixture(autouse=True)
def _restore_logging():
    ours = logging.getLogger("outspike")
    before = ours.handlers, ours.propagate, ours.level
    yield
    ours.handlers, ours.propagate, ours.level = before


def exit_code(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as caught:
        app.run_job(main)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], int | None]:
    def main() -> int | None:
        raise error

    return main


def test_a_recipe_and_dotted_overrides_resolve_to_one_config():
    """``RECIPE --a.b value`` is that recipe with one field changed, unions included."""
    config = choose("fusion", "--detector.num-layers", "1", "--optim.lr", "0.5")
    assert config.name == "fusion"
    assert config.detector == IefVadConfig(num_layers=1)
    assert config.optim.lr == 0.5


def test_without_a_recipe_the_default_one_is_taken():
    """No argument at all, or options only, work on the default recipe."""
    assert choose() == TrainConfig()
    assert choose("--steps", "7").steps == 7


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nope",), "small"),
        (("small", "--stepz", "3"), "--steps"),
        (("small", "--bags-per-batch", "3"), "must be even"),
        (("small", "--steps", "many"), "--steps"),
    ],
    ids=["recipe", "option", "check", "value"],
)
def test_bad_usage_exits_with_two_and_says_what_was_meant(arguments, told, capsys):
    """A wrong recipe, option or value exits with 2 and names the right ones."""
    with pytest.raises(SystemExit) as caught:
        choose(*arguments)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_help_teaches_recipes_and_exit_codes(capsys):
    """``--help`` lists every recipe with its first sentence, and the exit codes."""
    with pytest.raises(SystemExit) as caught:
        choose("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "A small recipe." in text
    assert "3 done with quarantined inputs" in " ".join(text.split())


@pytest.mark.parametrize(
    ("main", "code"),
    [
        (lambda: None, 0),
        (lambda: 3, 3),
        (raising(ConfigError("wrong setting")), 2),
        (raising(StoreError("no store")), 1),
        (raising(FileNotFoundError("gone")), 1),
        (raising(ZeroDivisionError("ours")), 1),
        (raising(KeyboardInterrupt()), 130),
    ],
    ids=["done", "quarantined", "usage", "ours", "os", "bug", "interrupted"],
)
def test_exit_codes(main, code):
    """0 done, 1 failed, 2 bad usage, 3 past the quarantine limit, 130 interrupted."""
    assert exit_code(main) == code


def test_an_error_of_ours_is_one_line_and_a_bug_keeps_its_traceback(capsys):
    """Users see one line for what they can mend, and everything for what they cannot."""
    exit_code(raising(StoreError("no store at x")))
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert "StoreError: no store at x" in told
    exit_code(raising(ZeroDivisionError("ours")))
    assert "Traceback" in capsys.readouterr().err


def test_an_error_wrapped_by_a_remote_call_is_told_by_its_cause():
    """What a worker raised is what the user reads, however deep it was wrapped."""
    inner = StoreError("segment is gone")
    middle = RuntimeError("task failed")
    middle.cause = inner  # type: ignore[attr-defined]
    outer = RuntimeError("training failed")
    outer.__cause__ = middle
    assert app.expected_cause(outer) is inner
    assert app.expected_cause(RuntimeError("bug")) is None


def test_only_rank_zero_speaks_below_warning(capsys):
    """Rank and node are added by the formatter; other ranks are quiet unless something is wrong."""
    app.configure_logging(rank=1)
    logging.getLogger("outspike.train").info("step=1")
    logging.getLogger("outspike.train").warning("loss=nan")
    told = capsys.readouterr().err
    assert "step=1" not in told
    assert "rank=1" in told


def test_an_unknown_log_level_is_bad_usage(monkeypatch):
    """OUTSPIKE_LOG takes a level's name and nothing else."""
    monkeypatch.setenv("OUTSPIKE_LOG", "loud")
    with pytest.raises(ConfigError, match="OUTSPIKE_LOG"):
        app.configure_logging()
