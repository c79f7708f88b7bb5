"""Finding golden vectors: small stored inputs and outputs of the published reference systems.

A test asks for files by pattern and runs once for each one found, so that another set with other
seeds and sizes (folder given by ``OUTSPIKE_GOLDEN``) runs through the same code::

    @pytest.mark.golden("msf/lif*.npz")
    def test_neurons_repeat_the_reference(golden): ...            # id "msf/lif.npz"

    @pytest.mark.golden("msf/sampling*.npz", cases=r"(case\\d+)/")
    def test_windows_repeat_the_reference(golden): ...            # id "msf/sampling.npz::case0"

With ``cases`` the first group of the expression is matched against the start of every key; each
distinct match is a test of its own, and ``golden.case`` names it. A pattern that matches nothing is
a failing test, never an empty one.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def golden_root() -> Path:
    """Folder of the golden vectors: ``OUTSPIKE_GOLDEN``, else the set beside the tests."""
    return Path(os.environ.get("OUTSPIKE_GOLDEN", Path(__file__).parent / "data"))


class GoldenFile(Mapping[str, NDArray[Any]]):
    """One ``.npz`` file as a read-only mapping from key to array, without pickles."""

    def __init__(self, path: Path, case: str | None = None) -> None:
        self.path = path
        self.case = case
        with np.load(path, allow_pickle=False) as arrays:
            self._arrays = {key: arrays[key] for key in arrays.files}

    def __getitem__(self, key: str) -> NDArray[Any]:
        if key not in self._arrays:
            raise KeyError(f"{self.path} has no entry {key!r}; it has {sorted(self._arrays)}")
        return self._arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"GoldenFile({self.path.name}, case={self.case})"

    def group(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Entries below ``prefix``, with the prefix cut off their names."""
        return {key[len(prefix) :]: self[key] for key in self if key.startswith(prefix)}

    def number(self, key: str) -> Any:
        """A stored scalar as a plain Python value."""
        return self[key].item()

    def sibling(self, name: str) -> "GoldenFile":
        """Another file of the same folder (a state shared by several files, say)."""
        return GoldenFile(self.path.parent / name)


class _Missing:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern


def _found(pattern: str, cases: str | None) -> Iterator[tuple[str, object]]:
    root = golden_root()
    paths = sorted(root.glob(pattern))
    if not paths:
        yield pattern, _Missing(pattern)
    for path in paths:
        name = path.relative_to(root).as_posix()
        if cases is None:
            yield name, (path, None)
            continue
        with np.load(path, allow_pickle=False) as arrays:
            matches = [re.match(cases, key) for key in arrays.files]
        found = dict.fromkeys(match.group(1) for match in matches if match)
        if not found:
            yield name, _Missing(f"{pattern} with keys like {cases}")
        for case in found:
            yield f"{name}::{case}", (path, case)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "golden(pattern, cases=None): run once for each matching golden file"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None or "golden" not in metafunc.fixturenames:
        return
    found = list(_found(marker.args[0], marker.kwargs.get("cases")))
    metafunc.parametrize(
        "golden", [what for _, what in found], ids=[name for name, _ in found], indirect=True
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> GoldenFile:
    """The golden file (and case) this test was parametrised with."""
    if isinstance(request.param, _Missing):
        pytest.fail(
            f"No golden vectors match {request.param.pattern!r} below {golden_root()}; set "
            "OUTSPIKE_GOLDEN to the folder that holds msf/, ief_vad/, gv_vad/, ...",
            pytrace=False,
        )
    path, case = request.param
    return GoldenFile(path, case)
