"""Made-up downloads: empty files in the layout a data set is published in."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

MakeFiles = Callable[[Iterable[str]], str]


@pytest.fixture
def make_files(tmp_path: Path) -> MakeFiles:
    """Write empty files by path relative to a fresh root; answers with the root."""

    def make(paths: Iterable[str]) -> str:
        for path in paths:
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        return str(tmp_path)

    return make
