"""A registered model is found, fetched and loaded, by us and by MLflow, here and elsewhere."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest

from outspike.datasets.catalog import known_defects
from outspike.errors import CheckpointError, RegistryError
from outspike.recording import Recording
from outspike.registry.card import model_card
from outspike.registry.models import download_bundle, register
from outspike.registry.tracking import connect, start_run
from outspike.registry.versions import champion, find, newest
from outspike.scoring.bundle import Bundle
from outspike.scoring.score import score_recording

#: What a stranger with nothing but MLflow and the model's address does.
_ELSEWHERE = """
import json, sys
sys.path.insert(0, sys.argv[4])
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
rows = model.predict(pandas.DataFrame({"url": [sys.argv[3]]}))
import outspike
print(json.dumps({"rows": rows.to_dict("list"), "package": outspike.__file__}))
"""
_UNINSTALLED = """
import sys
sys.path = [path for path in sys.path if not (path.endswith("platform"))]
"""


def test_versions_count_up_and_carry_their_tags(uri: str, scoring_bundle: Path) -> None:
    """Each registration is a new version of its run, with tags and a card, and found again."""
    run = start_run(uri, "training")
    first = register(run, "counting", scoring_bundle, {"outspike.store": "s"})
    second = register(run, "counting", scoring_bundle, {})
    assert (first.version, second.version) == (1, 2)
    assert first.address == "models:/counting/1"
    assert find(uri, "models:/counting/1") == first
    assert find(uri, "counting") == newest(uri, "counting") == second
    stored = connect(uri).get_model_version("counting", "1")
    assert stored.tags["outspike.store"] == "s"
    assert stored.run_id == run.run_id
    assert stored.description.startswith("# counting")
    assert "not judged" in stored.description


def test_registering_leaves_the_run_and_the_process_as_they_were(
    uri: str, scoring_bundle: Path
) -> None:
    """The run goes on, and MLflow's process-wide address is the user's own again."""
    run = start_run(uri, "training")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        register(run, "polite", scoring_bundle, {})
        assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"
    finally:
        mlflow.set_tracking_uri(None)
    assert connect(uri).get_run(run.run_id).info.status == "RUNNING"
    run.finish()


def test_a_champion_is_found_by_its_alias(uri: str, scoring_bundle: Path) -> None:
    """No champion at first; afterwards the one with the alias."""
    run = start_run(uri, "training")
    version = register(run, "winning", scoring_bundle, {})
    run.finish()
    assert champion(uri, "winning") is None
    connect(uri).set_registered_model_alias("winning", "champion", "1")
    assert champion(uri, "winning") == version == find(uri, "models:/winning@champion")


def test_a_bundle_comes_back_as_it_was(uri: str, scoring_bundle: Path, tmp_path: Path) -> None:
    """The downloaded files are the registered ones, byte for byte."""
    run = start_run(uri, "training")
    version = register(run, "fetching", scoring_bundle, {})
    run.finish()
    fetched = download_bundle(version, tmp_path / "fetched")
    for name in ("bundle.json", "weights.safetensors"):
        assert (fetched / name).read_bytes() == (scoring_bundle / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "from its own wheel"])
def test_it_loads_elsewhere_and_scores_the_same(
    uri: str, scoring_bundle: Path, video: Recording, tmp_path: Path, installed: bool
) -> None:
    """A fresh interpreter in another folder gives the scores of scoring.score_recording."""
    run = start_run(uri, "training")
    version = register(run, "elsewhere", scoring_bundle, {})
    run.finish()
    expected = score_recording(video, Bundle.load(scoring_bundle))
    package = str(Path(score_recording.__code__.co_filename).parents[2])
    code = _ELSEWHERE if installed else _UNINSTALLED + _ELSEWHERE
    arguments = [uri, version.address, video.url, package if installed else str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    rows = answer["rows"]
    assert rows["video_id"] == ["street"] * len(expected.scores)
    assert rows["frame_start"] == expected.start.tolist()
    assert rows["frame_stop"] == expected.stop.tolist()
    assert np.float32(rows["score"]).tobytes() == expected.scores.tobytes()
    assert answer["package"].startswith(package) == installed


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("models:/nobody@champion", r"not in the registry .*models there: .*Train and promote"),
        ("models:/nobody/1", "not in the registry"),
        ("nobody", "No model 'nobody'"),
        ("models:/nobody", "expected models:/NAME/VERSION"),
        ("models:/nobody/latest", "expected models:/NAME/VERSION"),
        ("models:/nobody/1@champion", "expected models:/NAME/VERSION"),
        ("it's", "cannot be a model's name"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(uri: str, address: str, says: str) -> None:
    """Unknown models and malformed addresses name what was meant."""
    with pytest.raises(RegistryError, match=says) as caught:
        find(uri, address)
    assert "\n" not in str(caught.value)


def test_models_of_others_are_refused(uri: str, tmp_path: Path) -> None:
    """A model that holds no bundle of ours, or whose files are gone, is said to be so."""
    run = start_run(uri, "training")
    client = connect(uri)
    client.create_registered_model("foreign")
    (tmp_path / "other" / "artifacts").mkdir(parents=True)
    for source in (tmp_path / "other", tmp_path / "gone"):
        client.create_model_version("foreign", str(source), run.run_id)
    run.finish()
    with pytest.raises(RegistryError, match="holds 0 bundles"):
        download_bundle(find(uri, "models:/foreign/1"), tmp_path / "one")
    with pytest.raises(RegistryError, match="files are gone"):
        download_bundle(find(uri, "models:/foreign/2"), tmp_path / "two")


def test_only_bundles_are_registered(uri: str, tmp_path: Path) -> None:
    """A folder that is no bundle makes no version."""
    run = start_run(uri, "training")
    with pytest.raises(CheckpointError, match="not a model bundle"):
        register(run, "nothing", tmp_path, {})
    run.finish()
    with pytest.raises(RegistryError):
        newest(uri, "nothing")


def test_a_judged_model_says_how_good_it_is(uri: str, saved: Callable[..., Path]) -> None:
    """The card holds the store's version, the features and the metrics with their intervals."""
    run = start_run(uri, "training")
    register(run, "judged", saved("event-pyramid"), {})
    run.finish()
    card = connect(uri).get_model_version("judged", "1").description
    assert "| video_auc | 1.0000 |" in card
    assert "`event-pyramid-" in card
    assert "catalog version: `" in card
    assert "20 test recordings, 10 of them anomalous" in card


def test_the_card_tells_what_was_trained_on_and_what_is_wrong_with_it(
    saved: Callable[..., Path],
) -> None:
    """Counts, the weight of generated clips, the known defects of the split, and each class."""
    trained_on = {
        "dataset": "xd_violence",
        "split": "as-trained",
        "normal": 20,
        "anomalous": 10,
        "generated": 5,
        "held_out": 4,
        "learns_frames": False,
        "steps": 200,
        "bags_per_batch": 8,
        "synthetic_per_batch": 2,
        "ssls": "per_sample, fixed, weight 0.5",
        "known_defects": list(known_defects("xd_violence", "as-trained")),
    }
    card = model_card("m", Bundle.load(saved("event-pyramid", trained_on=trained_on)))
    assert "`xd_violence`, split `as-trained`: 20 normal, 10 anomalous, 5 generated" in card
    assert "25% of every step are generated clips; SSLS: per_sample, fixed, weight 0.5" in card
    assert "known of this split: " in card
    assert trained_on["known_defects"]
    assert "4 more chose the checkpoint" in card
