"""The README's "Your own videos" block does what it says, typed as it stands."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outspike.synth.miniature import generate, load_labels

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

_TIMEOUT_S = 900


@pytest.fixture(scope="module")
def workplace(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recordings the README speaks of, and the jobs beside them."""
    root = tmp_path_factory.mktemp("own")
    (root / "jobs").symlink_to(repository / "jobs")
    (root / ".venv").symlink_to(sys.prefix)
    generate(root / "miniature")
    for recording in load_labels(str(root / "miniature")):
        if recording.modality == "video" and not recording.synthetic:
            name = "theft" if recording.label else "normal"
            folder = root / "recordings" / recording.split / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(recording.url, folder)
    shutil.copytree(root / "miniature" / "unseen", root / "new-videos")
    return root


def _block(repository: Path) -> str:
    text = (repository / "README.md").read_text().split("## Your own videos")[1]
    blocks: list[str] = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if "jobs/train.py" in block)


def test_the_readme_block_extracts_trains_and_scores(repository: Path, workplace: Path) -> None:
    """Every line runs; the promotion gate may say no, but then in a sentence."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(repository / "platform"), "OMP_NUM_THREADS": "1"}
    script = _block(repository).replace("models:/my-model@champion", "models:/my-model/1")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "models:/my-model/1" in done.stdout
    tables = sorted((workplace / "scores").rglob("*.csv"))
    assert len(tables) == len(list((workplace / "new-videos").glob("*.mp4")))
    with tables[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"video_id", "frame_start", "frame_stop", "score"}
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
