"""Extraction, training and a search over several hosts, each losing one in the middle.

Recordings, features, checkpoints and the records of runs lie on a host of their own. Whatever is
lost, the outcome is that of the same job undisturbed.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosts import Lab

from outspike.config import (
    DataConfig,
    MsfConfig,
    OptimConfig,
    SelectionConfig,
    StoreConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
    to_json,
)
from outspike.synth.miniature import generate

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

#: Waits until at least so many addresses below a prefix match a pattern.
_AWAIT = """
import re, sys, time
from outspike.errors import MissingUrlError
from outspike.urls import list_files
prefix, pattern, number, patience = sys.argv[1:]
until = time.monotonic() + float(patience)
found = set()
while len(found) < int(number) and time.monotonic() < until:
    try:
        found |= {m[0] for m in (re.search(pattern, url) for url in list_files(prefix)) if m}
    except MissingUrlError:  # nothing is there yet
        time.sleep(0.05)
print(len(found) if len(found) >= int(number) else 0)
"""
_AWAIT_S = 400


def await_files(lab: Lab, prefix: str, pattern: str, number: int) -> None:
    """Wait until something has been written so often below a folder of the bucket."""
    url = f"{lab.bucket}/{prefix}"
    assert lab.ask(_AWAIT, url, pattern, str(number), str(_AWAIT_S)), f"{url}: no {pattern}"


def lose_a_node_with(lab: Lab, title: str) -> None:
    """Take a host away on which a process of this title runs."""
    node = lab.worker_with(title)
    assert node is not None, f"no node besides the head runs {title!r}"
    lab.lose(node)


# ---------------------------------------------------------------------------------- extraction

_UPLOAD = """
import sys
from pathlib import Path
from outspike.urls import write_bytes
for path in sorted(Path(sys.argv[1]).glob("*.mp4")):
    write_bytes(f"{sys.argv[2]}/{path.name}", path.read_bytes())
print("null")
"""
_DIGEST = """
import json, sys
from collections import Counter
from outspike.store.store import FeatureStore
store = FeatureStore.open(sys.argv[1])
rows = Counter(zip(*(store.extents[name].to_pylist() for name in ("video_id", "feature_set"))))
print(json.dumps([store.digest(), len({video for video, _ in rows}), len(rows)]))
"""


def extraction(lab: Lab, repository: Path, store: str) -> list[str]:
    """Two actors, which the three nodes of one CPU each cannot both put beside the driver."""
    return [
        *(sys.executable, str(repository / "jobs" / "extract.py"), "folder"),
        *("--data.root", f"{lab.bucket}/recordings", "--store.url", f"{lab.bucket}/{store}"),
        *("--num-actors", "2", "--cpus-per-actor", "1"),
        *("--commit-every-s", "0.5", "--segment-seconds", "0.5"),
    ]


def test_extraction_that_loses_a_host_gives_the_same_store(
    whole_lab: Lab, repository: Path, tmp_path: Path
) -> None:
    """A host with an actor goes dark after the first commits; every recording is there once."""
    made = generate(tmp_path / "made", train=20, test=8, events=0, unseen=0)
    whole_lab.ask(_UPLOAD, f"{made.root}/videos", f"{whole_lab.bucket}/recordings")
    undisturbed = whole_lab.run(*extraction(whole_lab, repository, "store-undisturbed"))
    assert undisturbed.returncode == 0, undisturbed.stderr

    log = tmp_path / "log"
    job = whole_lab.start(*extraction(whole_lab, repository, "store-disturbed"), log=log)
    await_files(whole_lab, "store-disturbed/catalog/_delta_log", r"\d+\.json", 2)
    lose_a_node_with(whole_lab, "MapWorker")
    assert job.poll() is None, f"it ended before a host was lost:\n{log.read_text()}"
    assert job.wait(_AWAIT_S) == 0, log.read_text()
    digests = [
        whole_lab.ask(_DIGEST, f"{whole_lab.bucket}/store-{name}")
        for name in ("undisturbed", "disturbed")
    ]
    assert digests[0] == digests[1]
    assert digests[0][1] == len(list(Path(made.root, "videos").glob("*.mp4")))


# ------------------------------------------------------------------------------------ training

_FILL = """
import runpy, sys
from outspike.store.store import FeatureStore
small = runpy.run_path(sys.argv[1])
store = FeatureStore.create(sys.argv[2])
small["fill"](store, small["recordings_of"](10, 10), [small["spec_of"]("motion")])
print("null")
"""
_TRAIN = """
import json, sys
from outspike.app import configure_logging
from outspike.config import TrainConfig, from_json
from outspike.train.job import train
configure_logging()
found = train(from_json(TrainConfig, json.load(open(sys.argv[1]))))
print(json.dumps([found.checkpoint, found.run_id]))
"""
#: Weights, optimiser state and loss curve of a run.
_LEARNT = """
import hashlib, json, sys
from outspike.registry.tracking import connect
from outspike.train import checkpoint as checkpoints
url, uri, run_id = sys.argv[1:]
found = checkpoints.load(url)
digest = hashlib.sha256()
for tensors in (found.model, found.optimiser):
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
client = connect(uri)
points = sorted((m.step, m.value) for m in client.get_metric_history(run_id, "total"))
print(json.dumps([found.step, digest.hexdigest(), points, client.get_run(run_id).info.status]))
"""


@pytest.fixture(scope="module")
def store_url(lab: Lab, repository: Path) -> str:
    """Ten normal and ten anomalous bags on the S3 server."""
    url = f"{lab.bucket}/bags"
    lab.ask(_FILL, str(repository / "tests" / "train" / "conftest.py"), url)
    return url


@pytest.fixture
def config(lab: Lab, store_url: str) -> TrainConfig:
    return TrainConfig(
        name="hosts",
        data=DataConfig(dataset="tiny"),
        store=StoreConfig(url=store_url),
        detector=MsfConfig(feature_set="motion", width=8, hidden=4, smooth_weight=8.0),
        encoders=(),
        window=WindowConfig(length=8),
        optim=OptimConfig(optimiser="adam", lr=1e-3),
        protocol="folder",
        steps=600,
        bags_per_batch=8,
        num_workers=2,
        checkpoint_every=20,
        log_every=10,
        storage=f"{lab.bucket}/runs",
        tracking_uri=lab.mlflow,
    )


def write_config(path: Path, config: TrainConfig | TuneConfig) -> str:
    path.write_text(json.dumps(to_json(config)))
    return str(path)


def test_training_that_loses_a_host_learns_the_same(
    whole_lab: Lab, config: TrainConfig, tmp_path: Path
) -> None:
    """One of two ranks, on hosts whose names nothing resolves, goes dark: weights, optimiser and
    loss curve are, bit for bit, those of the run that nothing happened to."""
    runs = {}
    for name in ("undisturbed", "disturbed"):
        path = write_config(tmp_path / f"{name}.json", replace(config, name=name))
        log = tmp_path / name
        job = whole_lab.start(sys.executable, "-c", _TRAIN, path, log=log)
        if name == "disturbed":
            await_files(whole_lab, f"runs/{name}", r"step-\d+", 2)
            lose_a_node_with(whole_lab, "RayTrainWorker")
            assert job.poll() is None, f"it ended before a host was lost:\n{log.read_text()}"
        assert job.wait(_AWAIT_S) == 0, log.read_text()
        checkpoint, run_id = json.loads(log.read_text().splitlines()[-1])
        runs[name] = whole_lab.ask(_LEARNT, checkpoint, whole_lab.mlflow, run_id)
    assert runs["disturbed"] == runs["undisturbed"]
    step, _, points, status = runs["disturbed"]
    assert step == config.steps
    assert status == "FINISHED"
    assert [at for at, _ in points] == list(range(10, config.steps + 1, 10)), "each step told once"


# -------------------------------------------------------------------------------------- search

_SEARCH = """
import json, sys
from outspike.app import configure_logging
from outspike.config import TuneConfig, from_json
from outspike.tune.run import search
configure_logging()
found = search(from_json(TuneConfig, json.load(open(sys.argv[1]))))
print(json.dumps([[t.values, t.metric, t.step, t.error] for t in found.trials]))
"""
_RUNS = """
import json, sys
from outspike.registry.tracking import find_runs
runs = find_runs(sys.argv[1], {"outspike.search": sys.argv[2]})
print(json.dumps([[run.info.status, run.data.tags.get("outspike.config_hash"),
                   "outspike.trial" in run.data.tags] for run in runs]))
"""


def test_a_search_that_loses_a_host_finds_the_same(
    whole_lab: Lab, config: TrainConfig, tmp_path: Path
) -> None:
    """The trials of a host that goes dark go on elsewhere: the same table, each configuration in
    one run of its own, and none left RUNNING."""
    selection = SelectionConfig(split="holdout", share=0.34, every_steps=20)
    base = TuneConfig(
        train=replace(config, num_workers=0, steps=200, selection=selection),
        space=("optim.lr=log:1e-4:1e-1", "detector.dropout=uniform:0:0.6"),
        sampler="random",
        early_stop=False,
        num_trials=6,
        max_concurrent=3,
    )
    tables: dict[str, Any] = {}
    for name in ("search-undisturbed", "search-disturbed"):
        path = write_config(tmp_path / f"{name}.json", replace(base, name=name))
        log = tmp_path / name
        job = whole_lab.start(sys.executable, "-c", _SEARCH, path, log=log)
        if name == "search-disturbed":
            await_files(whole_lab, f"runs/{name}", r"trials/[^/]+/outcome.json", 1)
            lose_a_node_with(whole_lab, "trial")
            assert job.poll() is None, f"it ended before a host was lost:\n{log.read_text()}"
        assert job.wait(_AWAIT_S) == 0, log.read_text()
        tables[name] = sorted(json.loads(log.read_text().splitlines()[-1]), key=str)
    assert tables["search-disturbed"] == tables["search-undisturbed"]
    assert len(tables["search-disturbed"]) == base.num_trials
    runs = whole_lab.ask(_RUNS, whole_lab.mlflow, "search-disturbed")
    assert {status for status, _, _ in runs} == {"FINISHED"}
    hashes = [found for _, found, is_trial in runs if is_trial]
    assert len(hashes) == len(set(hashes)) == base.num_trials
