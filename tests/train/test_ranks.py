"""Ranks that share the bags of a batch take the steps that one rank takes with all of them."""

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from outspike.config import ComputeConfig, DataConfig, OptimConfig, SslsConfig, StoreConfig, to_json
from outspike.store.store import FeatureStore

SGD = OptimConfig(optimiser="sgd", lr=0.05)
CASES = {
    "msf-double": ("msf", "float64", {"optim": OptimConfig(optimiser="adam", lr=1e-3)}),
    "ief_vad-double": ("ief_vad", "float64", {"optim": OptimConfig(lr=1e-3, clip_norm=0.5)}),
    "msf-single": ("msf", "float32", {"optim": SGD}),
    "ief_vad-single": ("ief_vad", "float32", {"optim": SGD}),
    "msf-generated": (
        "msf",
        "float64",
        {
            "synthetic_per_batch": 2,
            "ssls": SslsConfig(policy="learned", scale=2.0, isolate_stats=True),
            "dropout": 0.5,
        },
    ),
    "gv_vad-single": ("gv_vad", "float32", {"optim": SGD}),
    "gv_vad-generated": (
        "gv_vad",
        "float64",
        {
            "synthetic_per_batch": 2,
            "ssls": SslsConfig(policy="learned", scale=2.0),
            "dropout": 0.5,
        },
    ),
    "saa-double": ("saa", "float64", {"optim": OptimConfig(lr=1e-3)}),
    "saa-generated": (
        "saa",
        "float64",
        {"synthetic_per_batch": 3, "ssls": SslsConfig(scale=0.5, isolate_stats=True)},
    ),
    "ief_vad-pieces": (
        "ief_vad",
        "float64",
        {
            "synthetic_per_batch": 2,
            "ssls": SslsConfig(policy="learned", scale=2.0),
            "compute": ComputeConfig(accumulate=2, prefetch=2),
        },
    ),
    "aed-double": ("aed_t", "float64", {"optim": OptimConfig(lr=1e-3)}),
    "aed-single": ("aed_t", "float32", {"optim": SGD}),
}
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
#: A bias right before a normalisation, whose true gradient is zero, so that optimisers move it by
#: rounding noise; and the running mean that takes it up.
NOISE = ("context.out.bias", "context.norm.running_mean")


@pytest.fixture(scope="session")
def _ranks_out(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="session")
def supervised_store(small_data, tmp_path_factory) -> str:
    """A store whose recordings have frame labels that training may see."""
    url = str(tmp_path_factory.mktemp("supervised"))
    recordings = small_data.annotated(small_data.recordings(6, 9), "folder")
    small_data.fill(FeatureStore.create(url), recordings, [small_data.spec("motion")])
    return url


@pytest.fixture
def outcome(config_of, supervised_store, _ranks_out):
    """``outcome(name, world_size)``: what a case left behind; all cases of a world run once."""

    def get(name: str, size: int):
        folder = _ranks_out / f"of{size}"
        if not folder.exists():
            folder.mkdir()
            _run(_write_cases(config_of, supervised_store, folder), folder, size)
        tensors = load_file(folder / f"{name}.safetensors")
        return tensors, json.loads((folder / f"{name}.json").read_text())

    return get


def _write_cases(config_of, supervised_store: str, folder: Path) -> Path:
    cases = []
    for name, (detector, dtype, changes) in CASES.items():
        settings = {"dropout": changes["dropout"]} if "dropout" in changes else {}
        rest = {key: value for key, value in changes.items() if key != "dropout"}
        if detector == "gv_vad":
            settings["prompt_bank"] = _write_bank(folder)
        if detector == "aed_t":
            rest["data"] = DataConfig(dataset="folder")
            rest["store"] = StoreConfig(url=supervised_store)
            rest["protocol"] = "folder"
        config = config_of(detector, steps=20, **rest)
        config = dataclasses.replace(
            config, detector=dataclasses.replace(config.detector, **settings)
        )
        cases.append({"name": name, "config": to_json(config), "dtype": dtype})
    path = folder / "cases.json"
    path.write_text(json.dumps(cases))
    return path


def _write_bank(folder: Path) -> str:
    """Anomaly prompts as wide as the features that stand for captions."""
    rows = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    np.save(folder / "bank.npy", rows)
    return str(folder / "bank.npy")


def _run(cases: Path, folder: Path, size: int) -> None:
    program = str(Path(__file__).with_name("ranks.py"))
    arguments = [str(cases), str(folder)]
    if size == 1:
        runpy.run_path(program)["main"](*arguments)
        return
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, program, *arguments, str(rank), str(size), f"{folder}/meet"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    told = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(told)


@pytest.mark.parametrize(
    "size", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", CASES)
def test_ranks_that_share_a_batch_are_one_with_all_of_it(outcome, name, size):
    """Losses of 20 steps, gradients, buffers and weights agree as design section 6 states.

    Three ranks hold two bags of either half, one and one; of four, some hold no generated bag.
    """
    (one, losses_one), (many, losses_many) = outcome(name, 1), outcome(name, size)
    tolerance = TOLERANCE[CASES[name][1]]
    assert losses_one.keys() == losses_many.keys()
    for step in losses_one:
        for term, value in losses_one[step].items():
            assert losses_many[step][term] == pytest.approx(value, rel=tolerance, abs=tolerance)
    assert one.keys() == many.keys()
    for key in (key for key in one if not key.endswith(NOISE)):
        scale = max(float(np.abs(one[key]).max(initial=0.0)), 0.1)
        np.testing.assert_allclose(
            many[key], one[key], rtol=tolerance, atol=tolerance * scale, err_msg=key
        )
