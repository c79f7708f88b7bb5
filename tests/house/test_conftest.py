"""The test suite's own promises: skips are counted, shown, and can be made failures."""

import subprocess
import sys
from pathlib import Path

import pytest

_SUITE = """
import pytest
@pytest.mark.media
def test_real(media):
    assert media.is_dir()
def test_plain():
    pass
"""


def _run(folder: Path, repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(_SUITE)
    (folder / "conftest.py").write_text((repository / "tests" / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  media:\n  cluster:\n  gpu:\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        [*command, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "OUTSPIKE_MEDIA": str(folder / "absent")},
        check=False,
    )


def test_absent_media_are_skipped_counted_and_named(tmp_path: Path, repository: Path) -> None:
    """Without real recordings the run passes and says how many tests it did not run, and why."""
    done = _run(tmp_path, repository)
    assert done.returncode == 0, done.stdout
    assert "real-media tests skipped: 1" in done.stdout
    assert "set OUTSPIKE_MEDIA" in done.stdout


@pytest.mark.parametrize("extra", [(), ("-n", "2")])
def test_no_skips_turns_a_skip_into_a_failure(
    tmp_path: Path, repository: Path, extra: tuple[str, ...]
) -> None:
    """``make test-media`` and ``make test-slow`` must not be green because nothing ran."""
    done = _run(tmp_path, repository, "--no-skips", *extra)
    assert done.returncode == 1, done.stdout
    assert "1 selected tests were skipped" in done.stdout
