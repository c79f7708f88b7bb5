"""A model carries the package: its wheel is whole, installs, and runs where nothing else is."""

import csv
import io
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import outspike
from outspike.registry.wheel import pinned_requirements, write_wheel

#: Imports from the unpacked folder only: -I keeps PYTHONPATH and the working folder out, and the
#: folder goes before what is installed.
_IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import outspike, outspike.config, outspike.timebase, outspike.recipes
from outspike.datasets import DATASETS
from importlib.metadata import distribution
found = distribution("outspike")
assert outspike.__file__.startswith(sys.argv[1]), outspike.__file__
assert str(found.locate_file("")).startswith(sys.argv[1]), found.locate_file("")
print(outspike.__version__, len(DATASETS))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wheel(tmp_path_factory.mktemp("wheel"))


def test_it_imports_from_an_unpacked_folder(wheel: Path, tmp_path: Path) -> None:
    """Unpacked anywhere, the package and its metadata are found there and nowhere else."""
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _IMPORT, str(folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == outspike.__version__


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    """Code, tables and templates alike; no caches."""
    package = Path(outspike.__file__).parent
    files = {
        f"outspike/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names - files == {
        f"outspike-{outspike.__version__}.dist-info/{name}"
        for name in ("METADATA", "WHEEL", "RECORD")
    }
    assert files <= names
    assert {Path(name).suffix for name in files} >= {".py", ".typed"}
    assert any(name.startswith("outspike/datasets/") and not name.endswith(".py") for name in files)


def test_its_record_is_true(wheel: Path) -> None:
    """Every file is in RECORD with its size, as an installer checks."""
    with zipfile.ZipFile(wheel) as archive:
        [record] = [name for name in archive.namelist() if name.endswith("RECORD")]
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        assert {row[0] for row in rows} == set(archive.namelist())
        for name, _, size in rows:
            assert name == record or len(archive.read(name)) == int(size)


def test_the_same_sources_give_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """Two registrations of one checkout carry one wheel."""
    assert write_wheel(tmp_path).read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_it_installs(wheel: Path, tmp_path: Path) -> None:
    """pip takes it."""
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*pip, "--target", str(tmp_path), str(wheel)], check=True)
    assert (tmp_path / "outspike" / "py.typed").exists()


def test_requirements_can_be_installed() -> None:
    """Exact versions of what is declared, in a form that a package index knows."""
    pinned = [Requirement(text) for text in pinned_requirements()]
    names = {requirement.name for requirement in pinned}
    assert {"torch", "numpy", "zarr", "av"} <= names
    assert not {"pytest", "spikingjelly"} & names
    for requirement in pinned:
        [specifier] = requirement.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version
        assert version(requirement.name).startswith(specifier.version)
