"""``outspike demo`` is what the README says: the whole path, and nothing to do the second time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

_TIMEOUT_S = 900


def _demo(folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "outspike"), "demo"],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_demo_promotes_a_detector_and_a_second_one_finds_everything_done(
    tmp_path: Path,
) -> None:
    """Ray Data and Ray Train, zarr and Delta Lake, an MLflow registry, a report, predictions."""
    first = _demo(tmp_path)
    assert "is champion of miniature" in first
    report = tmp_path / "outspike-report"
    assert (report / "report.html").stat().st_size > 100_000
    results = json.loads((report / "results.json").read_text())
    assert results["floor"]["differences"]["auc"]["low"] > 0
    for name in ("csv", "json", "png", "mp4"):
        assert list((report / "predictions").rglob(f"*.{name}")), name
    second = _demo(tmp_path)
    assert "everything was done already" in second
    assert re.search(r"done \d+   new 0", second)
