"""A search on a real local Ray: nested runs that all end, and one that goes on after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import ray

from outspike.cluster import ray_session
from outspike.config import (
    DataConfig,
    MsfConfig,
    OptimConfig,
    SelectionConfig,
    StoreConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
    from_json,
    to_json,
)
from outspike.errors import ConfigError
from outspike.recording import Recording
from outspike.registry.tracking import connect, find_runs
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.tune.run import confirm, describe, search
from outspike.urls import SourceStat

pytestmark = pytest.mark.cluster

_WIDTH = 8


@pytest.fixture(autouse=True)
def _left_alone() -> Iterator[None]:
    yield
    assert not ray.is_initialized(), "the job must leave the Ray it started"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve normal and twelve anomalous bags that differ in their mean."""
    store = FeatureStore.create(str(tmp_path_factory.mktemp("store") / "s"))
    recordings = [
        Recording(
            dataset="tiny",
            video_id=f"v{label}-{number:02d}",
            url=f"/v/{label}{number}.mp4",
            split="train",
            label=label,
        )
        for label in (0, 1)
        for number in range(12)
    ]
    store.put_recordings(recordings)
    spec = FeatureSetSpec(
        name="motion", document={"encoder": "motion"}, num_crops=1, width=_WIDTH, dtype="float32"
    )
    writer = store.segment_writer(spec)
    start, stop = SnippetGrid().ranges(96)
    for recording in recordings:
        rng = np.random.default_rng([*recording.key.encode()])
        rows = rng.standard_normal((len(start), 1, _WIDTH)) + (recording.label or 0)
        writer.begin(recording, stat=SourceStat(url=recording.url, size=1, etag="1"))
        writer.append(rows.astype(np.float32), start, stop)
        writer.end(96, Fraction(25))
    writer.close()
    store.commit(writer.drain())
    return store.url


@pytest.fixture
def config(store_url: str, uri: str, tmp_path: Path) -> TuneConfig:
    train = TrainConfig(
        name="tiny",
        data=DataConfig(dataset="tiny"),
        store=StoreConfig(url=store_url),
        detector=MsfConfig(
            feature_set="motion", width=_WIDTH, hidden=4, dropout=0.0, smooth_weight=8.0
        ),
        encoders=(),
        window=WindowConfig(rule="uniform", length=4),
        optim=OptimConfig(lr=1e-3),
        selection=SelectionConfig(split="holdout", share=0.34, every_steps=2),
        steps=6,
        bags_per_batch=4,
        checkpoint_every=2,
        log_every=2,
        storage=str(tmp_path / "runs"),
        tracking_uri=uri,
    )
    return TuneConfig(
        name=tmp_path.name,
        train=train,
        space=("optim.lr=log:1e-4:1e-1", "window.length=choice:2,4"),
        num_trials=4,
        grace_steps=2,
        max_concurrent=2,
        cpus_per_trial=0.5,
        num_cpus=2,
    )


def runs_of(config: TuneConfig) -> tuple[list, list]:
    """The parent's and the trials' runs."""
    found = find_runs(config.train.tracking_uri, {"outspike.search": config.name})
    trials = [run for run in found if "outspike.trial" in run.data.tags]
    return [run for run in found if run not in trials], trials


def test_a_search_leaves_nested_runs_that_have_ended(
    config: TuneConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Four trials, one parent, a table, the best config; the same command then finds it done."""
    result = search(config)
    assert capfd.readouterr().out == ""
    assert len(result.trials) == 4
    metrics = [trial.metric for trial in result.trials]
    assert metrics == sorted(metrics, reverse=True)
    assert result.best is not None
    assert result.best.optim.lr == result.trials[0].values["optim.lr"]
    [parent], trials = runs_of(config)
    assert parent.info.run_id == result.run_id
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in trials} == {"FINISHED"}
    assert len(trials) == 4
    stopped = [run for run in trials if "outspike.stopped_early" in run.data.tags]
    assert len(stopped) == sum(trial.step < 6 for trial in result.trials)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {result.run_id}
    by_id = {run.data.tags["outspike.trial"].split("/")[1]: run for run in trials}
    for trial in result.trials:
        run = by_id[trial.trial_id]
        assert float(run.data.params["optim.lr"]) == trial.values["optim.lr"]
        assert run.data.tags["outspike.catalog_version"] == "1"
        assert "held_out/video_auc" in run.data.metrics
    files = Path(connect(config.train.tracking_uri).download_artifacts(result.run_id, "", tmp_path))
    rows = list(csv.DictReader((files / "trials.csv").read_text().splitlines()))
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in result.trials]
    assert {"video_auc", "step", "optim.lr", "window.length"} <= set(rows[0])
    assert from_json(TrainConfig, json.loads((files / "best.json").read_text())) == result.best
    assert "trials.csv" in result.table()

    again = search(config)
    assert again == result
    assert len(runs_of(config)[1]) == 4
    assert dict(describe(config))["search"].startswith(f"{config.name}, goes on")
    with pytest.raises(ConfigError, match="other settings"):
        search(replace(config, num_trials=5))


@pytest.mark.slow
def test_trials_of_several_workers_find_what_trials_of_one_process_find(
    config: TuneConfig, tmp_path: Path
) -> None:
    """The same table, by workers of Ray Train; nothing they had is left when the search ends."""
    config = replace(config, sampler="random", early_stop=False, num_trials=2)
    tables = {}
    for workers in (0, 2):
        config = replace(config, name=f"{tmp_path.name}-{workers}", workers_per_trial=workers)
        result = search(config)
        tables[workers] = {
            (t.values["optim.lr"], t.values["window.length"]): t.metric for t in result.trials
        }
        assert {run.info.status for group in runs_of(config) for run in group} == {"FINISHED"}
    assert tables[2] == pytest.approx(tables[0], abs=1e-5)


@pytest.mark.slow
def test_trials_of_several_workers_are_stopped_with_them(config: TuneConfig) -> None:
    """ASHA ends trials that are behind, though workers elsewhere compute them."""
    settings = replace(config.train, steps=200)
    config = replace(
        config,
        train=replace(settings, selection=replace(settings.selection, every_steps=20)),
        space=("optim.lr=choice:0.01,1e-9",),
        sampler="grid",
        grace_steps=20,
        max_concurrent=1,
        workers_per_trial=2,
    )
    result = search(config)
    assert [trial.error for trial in result.trials] == [None, None]
    _, trials = runs_of(config)
    assert {run.info.status for run in trials} == {"FINISHED"}
    stopped = [run for run in trials if "outspike.stopped_early" in run.data.tags]
    assert len(stopped) == sum(trial.step < 200 for trial in result.trials) > 0


def test_more_workers_than_a_cluster_has_are_refused(config: TuneConfig) -> None:
    """Before any trial waits for them; folds are not handed to workers at all."""
    with (
        ray_session(2),
        pytest.raises(ConfigError, match=r"2 trials of 2 workers need 4.1 CPUs, .* has 2"),
    ):
        search(replace(config, workers_per_trial=2))
    assert dict(describe(config))["search"].startswith(f"{config.name}, new")
    folds = replace(config.train.selection, split="cross_validation")
    with pytest.raises(ConfigError, match="own process"):
        replace(config, workers_per_trial=2, train=replace(config.train, selection=folds))


@pytest.mark.slow
def test_cross_validation_compares_trials(config: TuneConfig) -> None:
    """Every trial is judged by the pooled scores of its folds."""
    selection = SelectionConfig(split="cross_validation", num_folds=2, every_steps=3)
    config = replace(
        config, train=replace(config.train, selection=selection), num_trials=2, sampler="random"
    )
    result = search(config)
    assert len(result.trials) == 2
    assert all(trial.metric is not None and trial.error is None for trial in result.trials)
    _, trials = runs_of(config)
    assert {run.info.status for run in trials} == {"FINISHED"}
    assert all("held_out/video_auc" in run.data.metrics for run in trials)


@pytest.mark.slow
def test_a_trial_that_fails_does_not_stop_the_others(config: TuneConfig) -> None:
    """Its run ends FAILED and its error is in the table; what cannot start at all is one line."""
    config = replace(
        config,
        space=("optim.lr=choice:1e-3,1e30", "seed=choice:0,1"),
        sampler="grid",
        early_stop=False,
    )
    result = search(config)
    failed = [trial for trial in result.trials if trial.error]
    assert [trial.values["optim.lr"] for trial in failed] == [1e30, 1e30]
    assert all("not finite" in (trial.error or "") for trial in failed)
    assert len(result.trials) == 4
    assert result.trials[0].error is None
    _, trials = runs_of(config)
    statuses = [run.info.status for run in trials]
    assert statuses.count("FAILED") == len(failed)
    assert "RUNNING" not in statuses
    with pytest.raises(ConfigError, match="No search 'other' to resume"):
        search(replace(config, name="other", resume=True))


@pytest.mark.slow
def test_a_search_ends_when_nothing_is_gained(config: TuneConfig) -> None:
    """The budget of patience ends it long before its number of trials, and it says so."""
    config = replace(
        config, sampler="random", early_stop=False, num_trials=40, patience=2, max_concurrent=1
    )
    result = search(config)
    assert 3 <= len(result.trials) < 40
    assert result.ended == "no gain in 2 trials"
    assert "(no gain in 2 trials)" in result.table()
    assert search(config) == result


@pytest.mark.slow
def test_a_population_hands_weights_on(config: TuneConfig) -> None:
    """Four members, compared every two of six steps: each segment is a run of its own that begins
    where the one it goes on with ended, and the worst goes on with the weights of another."""
    config = replace(config, sampler="pbt", num_trials=4)
    result = search(config)
    assert len(result.trials) == 12
    assert sorted(trial.step for trial in result.trials) == [2] * 4 + [4] * 4 + [6] * 4
    _, runs = runs_of(config)
    by_key = {run.data.tags["outspike.trial"].split("/")[1]: run for run in runs}
    assert by_key.keys() == {trial.trial_id for trial in result.trials}
    assert {run.info.status for run in runs} == {"FINISHED"}
    client = connect(config.train.tracking_uri)
    for trial in result.trials:
        run = by_key[trial.trial_id]
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "held_out/video_auc")]
        assert steps == [trial.step]
        if trial.step == 2:
            assert trial.continues is None
        else:
            assert run.data.tags["outspike.continues"] == f"{config.name}/{trial.continues}"
    for step in (4, 6):
        parents = [trial.continues for trial in result.trials if trial.step == step]
        assert len(parents) == 4
        assert len(set(parents)) == 3, "one member is replaced"
    assert search(config) == result


@pytest.mark.slow
def test_a_search_outlives_its_registry(config: TuneConfig, tmp_path: Path) -> None:
    """A database that is no database for a while stops no trial, and loses no metric."""
    database = tmp_path / "own.db"
    train = replace(
        config.train,
        tracking_uri=f"sqlite:///{database}",
        steps=60,
        detector=replace(config.train.detector, hidden=32),
    )
    config = replace(config, train=train, sampler="random", early_stop=False)
    trials = Path(train.storage) / config.name / "trials"
    kept: list[Path] = []

    def go_away_and_come_back() -> None:
        deadline = time.monotonic() + 240
        while not list(trials.glob("*/checkpoints/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        database.rename(tmp_path / "away.db")
        database.write_bytes(b"this is no database")
        while not kept and time.monotonic() < deadline:
            kept.extend(trials.glob("*/unsent-metrics.jsonl"))
            time.sleep(0.05)
        (tmp_path / "away.db").rename(database)

    outage = threading.Thread(target=go_away_and_come_back)
    outage.start()
    result = search(config)
    outage.join()
    assert kept, "nothing was measured while it was away"
    assert all(trial.step == 60 and trial.error is None for trial in result.trials)
    [parent], runs = runs_of(config)
    assert {run.info.status for run in (parent, *runs)} == {"FINISHED"}
    assert len(runs) == 4
    client = connect(train.tracking_uri)
    for run in runs:
        steps = {m.step for m in client.get_metric_history(run.info.run_id, "held_out/video_auc")}
        assert steps == set(range(2, 61, 2))
    assert not list(trials.glob("*/unsent-metrics.jsonl"))


#: Environment variable by which the processes of a driver are known.
_MARK = "OUTSPIKE_TEST_DRIVER"
_DRIVER = """
import json, sys
from outspike.config import TuneConfig, from_json
from outspike.tune.run import search
search(from_json(TuneConfig, json.loads(open(sys.argv[1]).read())))
"""


@pytest.fixture
def killed(config: TuneConfig, tmp_path: Path) -> Callable[..., TuneConfig]:
    """A search whose driver got a signal after its first trial had ended."""

    def kill(how: signal.Signals) -> TuneConfig:
        slow = replace(config.train, steps=60, detector=replace(config.train.detector, hidden=32))
        longer = replace(config, train=slow, num_trials=5, early_stop=False)
        path = tmp_path / "search.json"
        path.write_text(json.dumps(to_json(longer)))
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(path)],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), _MARK: str(tmp_path)},
        )
        try:
            outcomes = tmp_path / "runs" / config.name / "trials"
            _until(lambda: list(outcomes.glob("*/outcome.json")), driver)
        finally:
            os.kill(driver.pid, how)
            driver.wait(120)
        # its trials see that their driver is gone, and end; until then they still write
        began = time.monotonic()
        while _trials_of(str(tmp_path)) and time.monotonic() - began < 240:
            time.sleep(0.2)
        assert not _trials_of(str(tmp_path))
        return longer

    return kill


def _trials_of(mark: str) -> list[int]:
    """Ids of Ray's workers that a driver with this mark has left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if not title.startswith((b"ray::ImplicitFunc", b"ray::IDLE")):
                continue
            if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has ended in the meantime
            continue
    return found


def _until(happened: Callable[[], object], driver: "subprocess.Popen[bytes]") -> None:
    began = time.monotonic()
    while not happened():
        assert driver.poll() is None, "the driver ended too early"
        assert time.monotonic() - began < 240
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-C"])
def test_a_search_goes_on_after_a_kill(
    killed: Callable[..., TuneConfig], how: signal.Signals
) -> None:
    """All trials end, those that had ended are not trained again, and no run is left RUNNING."""
    config = killed(how)
    folder = Path(config.train.storage) / config.name / "trials"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/outcome.json")}
    assert 0 < len(before) < 5
    result = search(config)
    assert len(result.trials) == 5
    assert all(trial.metric is not None and trial.error is None for trial in result.trials)
    assert all(trial.step == 60 for trial in result.trials)
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written
    [parent], trials = runs_of(config)
    assert parent.info.status == "FINISHED"
    names = [run.data.tags["outspike.trial"].split("/")[1] for run in trials]
    assert len(set(names)) == len(names)
    assert {trial.trial_id for trial in result.trials} <= set(names)
    assert "RUNNING" not in {run.info.status for run in trials}
    client = connect(config.train.tracking_uri)
    for run in trials:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "held_out/video_auc")]
        assert len(steps) == len(set(steps)), "an evaluation was done twice"


@pytest.mark.slow
def test_a_grid_is_gone_through_whole_and_its_best_is_confirmed_with_fresh_seeds(
    config: TuneConfig,
) -> None:
    """Every case with every seed, each once; then the best one with seeds no trial has had."""
    config = replace(
        config,
        space=("optim.optimiser,optim.lr=cases:adam,0.01|sgd,0.1", "seed=choice:0,1"),
        sampler="grid",
        early_stop=False,
        confirm_seeds=2,
    )
    result = search(config)
    drawn = {
        (t.values["optim.optimiser"], t.values["optim.lr"], t.values["seed"]) for t in result.trials
    }
    assert drawn == {(*case, seed) for case in (("adam", 0.01), ("sgd", 0.1)) for seed in (0, 1)}
    assert [len(group.metrics) for group in result.over_seeds()] == [2, 2]
    assert result.best is not None
    confirmed = confirm(config, result.best)
    assert {t.values["seed"] for t in confirmed.trials} == {
        result.best.seed + 1,
        result.best.seed + 2,
    }
    [group] = confirmed.over_seeds()
    assert len(group.metrics) == 2
    page = Path(config.train.storage) / config.name / "search.html"
    assert "data-best" in page.read_text()
