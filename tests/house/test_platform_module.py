"""Our folder ``platform/`` shares its name with a module of the standard library, which must win.

Python prefers the standard library as long as the folder holds no ``__init__.py`` and no module
file of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = "import platform; print(platform.system())"


def _system_seen_by(command: list[str], cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_folder_is_no_package(repository: Path) -> None:
    """Neither an ``__init__.py`` nor any module file lies directly in ``platform/``."""
    assert not list((repository / "platform").glob("*.py"))
    assert not list((repository / "platform" / "outspike").rglob("platform.py"))


@pytest.mark.parametrize("path", ["", ".", "platform"], ids=["bare", "root", "source-root"])
def test_the_standard_library_answers_in_commands(repository: Path, path: str) -> None:
    """``python -c`` in the root, with and without the root on the path."""
    seen = _system_seen_by([sys.executable, "-c", ASK], repository, PYTHONPATH=path)
    assert seen.strip() == "Linux"


def test_the_standard_library_answers_in_scripts(repository: Path, tmp_path: Path) -> None:
    """A script run from the root, as ``python jobs/x.py`` is."""
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    assert _system_seen_by([sys.executable, str(script)], repository).strip() == "Linux"


def test_the_standard_library_answers_under_pytest(repository: Path, tmp_path: Path) -> None:
    """``python -m pytest`` puts the working directory on the path."""
    (tmp_path / "test_ask.py").write_text(
        "def test_system():\n    import platform\n    assert platform.system() == 'Linux'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    seen = _system_seen_by([*command, "--rootdir", str(tmp_path), str(tmp_path)], repository)
    assert "1 passed" in seen


@pytest.mark.cluster
def test_the_standard_library_answers_in_ray(repository: Path) -> None:
    """In a driver started in the root, and in its workers."""
    code = (
        "import platform, ray\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False,\n"
        "         object_store_memory=100_000_000)\n"
        "@ray.remote\n"
        "def ask():\n"
        "    import platform\n"
        "    return platform.system()\n"
        "print('seen', platform.system(), ray.get(ask.remote()))\n"
        "ray.shutdown()\n"
    )
    seen = _system_seen_by([sys.executable, "-c", code], repository, PYTHONPATH="platform:.")
    assert "seen Linux Linux" in seen
