"""Extraction, training and a search over several hosts, each losing one in the middle.

Recordings, features, checkpoints and the records of runs lie on a host of their own. Whatever is
lost, the outcome is that of the same job undisturbed.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hosts import WAIT_S, Lab

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
sys.exit(len(found) < int(number) and f"{prefix}: {len(found)} of {pattern}")
"""


@dataclass
class Job:
    """A command that runs beside the head while something is done to it."""

    lab: Lab
    process: "subprocess.Popen[bytes]"
    log: Path

    def goes_on(self) -> bool:
        return self.process.poll() is None

    def has_written(self, folder: str, pattern: str, number: int) -> None:
        """Wait until it has written so many things of a name below a folder of the bucket."""
        watched = (f"{self.lab.bucket}/{folder}", pattern, str(number), str(WAIT_S))
        watch = self.lab.start(
            sys.executable, "-c", _AWAIT, *watched, log=self.log.with_suffix(".w")
        )
        try:
            self.lab.wait_for(lambda: watch.poll() is not None, self.process, self.log)
        finally:
            watch.kill()
            watch.wait()
        assert watch.returncode == 0, self.log.with_suffix(".w").read_text()

    def loses_a_node_with(self, title: str) -> None:
        """Take a host away on which it has a process of this title."""
        node = self.lab.worker_with(title)
        assert node is not None, f"no node besides the head runs {title!r}"
        self.lab.lose(node)
        assert self.goes_on(), f"it ended before a host was lost:\n{self.log.read_text()}"

    def result(self) -> Any:
        """The JSON it prints as its last line, or None, after it has ended well."""
        assert self.process.wait(WAIT_S) == 0, self.log.read_text()
        last = self.log.read_text().splitlines()[-1]
        return json.loads(last) if last.startswith("[") else None


@pytest.fixture
def start(whole_lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts jobs in the lab; none of them outlives its test."""
    jobs: list[Job] = []

    def begin(name: str, *command: str) -> Job:
        log = tmp_path / f"{name}.log"
        jobs.append(Job(whole_lab, whole_lab.start(*command, log=log), log))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.process.kill()
        job.process.wait()


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
    whole_lab: Lab, start: Callable[..., Job], repository: Path, tmp_path: Path
) -> None:
    """A host with an actor goes dark after the first commits; every recording is there once."""
    made = generate(tmp_path / "made", train=20, test=8, events=0, unseen=0)
    whole_lab.ask(_UPLOAD, f"{made.root}/videos", f"{whole_lab.bucket}/recordings")
    start("undisturbed", *extraction(whole_lab, repository, "store-undisturbed")).result()
    job = start("disturbed", *extraction(whole_lab, repository, "store-disturbed"))
    job.has_written("store-disturbed/catalog/_delta_log", r"\d+\.json", 2)
    job.loses_a_node_with("MapWorker")
    job.result()
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
        steps=160,
        bags_per_batch=8,
        num_workers=2,
        checkpoint_every=10,
        log_every=10,
        storage=f"{lab.bucket}/runs",
        tracking_uri=lab.mlflow,
    )


def write_config(path: Path, config: TrainConfig | TuneConfig) -> str:
    path.write_text(json.dumps(to_json(config)))
    return str(path)


def test_training_that_loses_a_host_learns_the_same(
    whole_lab: Lab, start: Callable[..., Job], config: TrainConfig, tmp_path: Path
) -> None:
    """One of two ranks, on hosts whose names nothing resolves, goes dark: weights, optimiser and
    loss curve are, bit for bit, those of the run that nothing happened to."""
    runs = {}
    for name in ("undisturbed", "disturbed"):
        path = write_config(tmp_path / f"{name}.json", replace(config, name=name))
        job = start(name, sys.executable, "-c", _TRAIN, path)
        if name == "disturbed":
            job.has_written("runs", rf"/{name}-\w+/checkpoints/step-\d+", 2)
            job.loses_a_node_with("RayTrainWorker")
        checkpoint, run_id = job.result()
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
    whole_lab: Lab, start: Callable[..., Job], config: TrainConfig, tmp_path: Path
) -> None:
    """The trials of a host that goes dark go on elsewhere: the same table, each configuration in
    one run of its own, and none left RUNNING."""
    selection = SelectionConfig(split="holdout", share=0.34, every_steps=20)
    base = TuneConfig(
        train=replace(config, num_workers=0, selection=selection),
        space=("optim.lr=log:1e-4:1e-1", "detector.dropout=uniform:0:0.6"),
        sampler="random",
        early_stop=False,
        num_trials=6,
        max_concurrent=3,
    )
    tables: dict[str, Any] = {}
    for name in ("search-undisturbed", "search-disturbed"):
        path = write_config(tmp_path / f"{name}.json", replace(base, name=name))
        job = start(name, sys.executable, "-c", _SEARCH, path)
        if name == "search-disturbed":
            job.has_written(f"runs/{name}", r"/trials/\w+/outcome.json", 1)
            job.loses_a_node_with("ray::ImplicitFunc")
        tables[name] = sorted(job.result(), key=str)
    assert tables["search-disturbed"] == tables["search-undisturbed"]
    assert len(tables["search-disturbed"]) == base.num_trials
    runs = whole_lab.ask(_RUNS, whole_lab.mlflow, "search-disturbed")
    assert {status for status, _, _ in runs} == {"FINISHED"}
    hashes = [found for _, found, is_trial in runs if is_trial]
    assert len(hashes) == len(set(hashes)) == base.num_trials
