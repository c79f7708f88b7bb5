"""A registered model in an environment that has nothing but what the model lists."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outspike.recording import Recording
from outspike.registry.models import download_model, register
from outspike.registry.tracking import start_run
from outspike.scoring.bundle import Bundle
from outspike.scoring.score import score_recording

pytestmark = pytest.mark.slow

_SCORE = """
import importlib.util, json, sys
assert importlib.util.find_spec("outspike") is None, "it is to come from the model's own wheel"
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = model.predict(pandas.DataFrame({"url": [sys.argv[2]]}))
import outspike
print(json.dumps({"rows": rows.to_dict("list"), "package": outspike.__file__}))
"""
_TIMEOUT_S = 1800


def run(*command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """Python of a new virtual environment, with pip and nothing else."""
    made = run(sys.executable, "-m", "venv", str(tmp_path / "new"), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    return tmp_path / "new" / "bin" / "python"


def test_it_needs_its_list_of_requirements_and_its_wheel(
    uri: str, scoring_bundle: Path, video: Recording, interpreter: Path, tmp_path: Path
) -> None:
    """Installed from the model's requirements.txt alone, it scores a video bit for bit as here."""
    log = start_run(uri, "training")
    version = register(log, "portable", scoring_bundle, {})
    log.finish()
    model = download_model(version, tmp_path / "model")
    listed = str(model / "requirements.txt")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-cache-dir")
    tried = run(
        str(interpreter), "-m", "pip", "download", *quiet, "--no-deps", "packaging", cwd=tmp_path
    )
    if tried.returncode:
        pytest.skip(f"pip reaches no package index: {tried.stderr.strip().splitlines()[-1]}")
    done = run(str(interpreter), "-m", "pip", "install", *quiet, "-r", listed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scored = run(str(interpreter), "-I", "-c", _SCORE, str(model), video.url, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    answer = json.loads(scored.stdout.splitlines()[-1])
    expected = score_recording(video, Bundle.load(scoring_bundle))
    assert answer["rows"]["frame_start"] == expected.start.tolist()
    assert np.float32(answer["rows"]["score"]).tobytes() == expected.scores.tobytes()
    assert not answer["package"].startswith(str(tmp_path / "new"))
