"""Every job command in the README and the docs is one that the jobs accept."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from outspike import app
from outspike.recipes import (
    CROSSFIT_RECIPES,
    EVALUATE_RECIPES,
    EXTRACT_RECIPES,
    PREDICT_RECIPES,
    TRAIN_RECIPES,
    TUNE_RECIPES,
)

_RECIPES = {
    "extract": EXTRACT_RECIPES,
    "train": TRAIN_RECIPES,
    "tune": TUNE_RECIPES,
    "crossfit": CROSSFIT_RECIPES,
    "evaluate": EVALUATE_RECIPES,
    "predict": PREDICT_RECIPES,
}
_REPOSITORY = Path(__file__).resolve().parents[2]


def _pages() -> list[Path]:
    return [_REPOSITORY / "README.md", *sorted((_REPOSITORY / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[str]:
    """Lines of the page's fenced blocks, continuation lines joined."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def _job_commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in _pages():
        for line in commands(page):
            words = shlex.split(line, comments=True) if "jobs/" in line else []
            for i, word in enumerate(words):
                if match := re.fullmatch(r"jobs/(\w+)\.py", word):
                    found.append((match[1], words[i + 1 :]))
    return found


@pytest.mark.parametrize(("job", "arguments"), _job_commands(), ids=str)
def test_a_documented_command_is_accepted(job: str, arguments: list[str]) -> None:
    """Recipes exist, options are spelled right, and values pass the config's own checks."""
    assert (_REPOSITORY / "jobs" / f"{job}.py").stat().st_mode & 0o100
    if job not in _RECIPES:
        return
    recipes = _RECIPES[job]
    config = app.choose_config(
        recipes, default=next(iter(recipes)), prog=job, description="", arguments=arguments
    )
    assert config is not None


def test_the_readme_begins_with_the_two_commands() -> None:
    lines = list(commands(_REPOSITORY / "README.md"))
    assert [line.split("#")[0].strip() for line in lines[:2]] == ["make demo", "make test"]


def test_every_linked_page_exists() -> None:
    for page in _pages():
        for target in re.findall(r"\]\((?!https?:)([\w./-]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
