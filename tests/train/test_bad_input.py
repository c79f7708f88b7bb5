"""What cannot be trained is one clear line at the command line, before anything is written."""

import logging
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from outspike import app, cli
from outspike.store.store import FeatureStore


@pytest.fixture(scope="module")
def stores(small_data: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store that can be trained on, and others that cannot."""
    motion, other = small_data.spec("motion"), small_data.spec("motion", version=2)
    kinds = {
        "good": (4, 4, [motion]),
        "mixed": (4, 4, [motion, other]),
        "no-anomalous": (8, 0, [motion]),
        "no-normal": (0, 8, [motion]),
        "few": (3, 3, [motion]),
    }
    urls = {}
    for name, (normal, anomalous, specs) in kinds.items():
        urls[name] = str(tmp_path_factory.mktemp(name))
        store = FeatureStore.create(urls[name])
        small_data.fill(store, small_data.recordings(normal, anomalous), specs)
    return urls


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a small training on a store."""

    def make(store: str, *more: str) -> list[str]:
        settings = {
            "data.dataset": "tiny",
            "store.url": store,
            "detector.feature-set": "motion",
            "detector.width": "8",
            "detector.hidden": "4",
            "detector.input-norm": "none",
            "detector.input-clip": "None",
            "selection.split": "last",
            "steps": "4",
            "bags-per-batch": "8",
            "num-workers": "0",
            "storage": str(tmp_path / "runs"),
            "tracking-uri": f"sqlite:///{tmp_path}/mlflow.db",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return ["msf-folder", *words, *more]

    return make


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[list[str]], tuple[int, str]]]:
    """Exit code of ``jobs/train.py`` and what it wrote to standard error."""
    ours = logging.getLogger("outspike")
    before = ours.handlers, ours.propagate, ours.level

    def run(arguments: list[str]) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            app.run_job(lambda: cli.train(arguments))
        assert isinstance(end.value.code, int)
        return end.value.code, capfd.readouterr().err

    yield run
    ours.handlers, ours.propagate, ours.level = before


@pytest.mark.parametrize(
    ("store", "more", "code", "line"),
    [
        ("good", ["--store.version", "99"], 1, "no version 99; there are versions 0 to"),
        ("mixed", [], 1, "use one of these addresses"),
        ("no-anomalous", [], 1, "no anomalous bag, and a step needs 4"),
        ("no-normal", [], 1, "no normal bag, and a step needs 4"),
        ("few", [], 1, "3 normal bags, but bags_per_batch=8 takes 4"),
        ("nowhere", [], 1, "no feature store there"),
        ("good", ["--detector.width", "9"], 2, "8 wide, detector 'msf' reads 9"),
        ("good", ["--tracking-uri", "http://127.0.0.1:9"], 1, "MLflow at http://127.0.0.1:9"),
        ("good", ["--compute.accumulate", "2"], 2, "cannot be trained in pieces"),
        ("good", ["--resume", "nobody"], 2, "No run 'nobody'"),
    ],
    ids=[
        *("version", "mixed", "no-anomalous", "no-normal", "few", "no-store", "width"),
        *("registry", "pieces", "resume"),
    ],
)
def test_it_is_one_line_and_nothing_is_written(
    stores, command, told, tmp_path, store, more, code, line
):
    """Found before training starts; no run folder is begun."""
    url = stores.get(store, str(tmp_path / "nowhere"))
    found, said = told(command(url, *more))
    assert found == code, said
    errors = [text for text in said.splitlines() if " ERROR " in text]
    assert len(errors) == 1, said
    assert line in errors[0]
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--num-workers", "5"], "num_workers=5"),
        (["--optim.leraning-rate", "1"], "--optim.leraning-rate"),
        (["--compute.pin-memory"], "gpus_per_worker"),
        (["--bags-per-batch", "7"], "must be even"),
    ],
)
def test_settings_that_contradict_each_other_are_bad_usage(
    stores, command, told, tmp_path, more, line
):
    """Exit code 2, with the setting's name; more ranks than bags among them."""
    code, said = told(command(stores["good"], *more))
    assert code == 2
    assert line in said
    assert not (tmp_path / "runs").exists()


def test_an_unknown_recipe_is_one_line_with_the_nearest_names(told):
    """Not the whole list of options of all of them."""
    code, said = told(["msf-miniatur"])
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "no recipe 'msf-miniatur'. Did you mean msf-miniature" in said


def test_a_compiler_that_is_not_there_is_told_before_the_start(stores, command, told, monkeypatch):
    """Only where it is asked for."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, said = told(command(stores["good"], "--compute.compile"))
    assert (code, said.count(" ERROR ")) == (2, 1)
    assert "needs a C++ compiler on the workers, and 'no-such-compiler'" in said


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    stores, command, repository, tmp_path, workers
):
    """Checkpoints that do not fit are not there; with room again the run is finished."""
    small = tmp_path / "small"
    small.mkdir()
    words = [
        sys.executable,
        str(repository / "jobs" / "train.py"),
        *command(stores["good"], "--storage", str(small), "--steps", "60", "--checkpoint-every"),
        *("20", "--num-workers", workers),
    ]
    checkpoints = f"ls {small}/*/checkpoints"
    script = f"""
        mount -t tmpfs -o size=48k tmpfs {small} || exit 9
        {shlex.join(words)} 2> {tmp_path}/errors; echo "first $?"
        {checkpoints} -A
        mount -o remount,size=50m {small} || exit 9
        {shlex.join(words)}; echo "second $?"
    """
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = (tmp_path / "errors").read_text()
    assert "first 1" in done.stdout, said + done.stderr
    errors = [line for line in said.splitlines() if " ERROR " in line]
    assert len(errors) == 1, said
    assert "No space left on device" in errors[0]
    assert "second 0" in done.stdout, done.stderr
