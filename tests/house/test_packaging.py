"""What an installation promises: a light import, pinned versions, valid cluster files."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAVY = {"torch", "ray", "mlflow", "zarr", "deltalake", "pandas", "matplotlib", "transformers"}


def project(repository: Path) -> dict[str, Any]:
    with (repository / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def constraints(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints-cpu.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    return {canonicalize_name(name): version for name, version in pins}


def tracked(repository: Path, *arguments: str) -> list[str]:
    """Lines of ``git ls-files``; the test is skipped where there is no git or no clone."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = subprocess.run(
        ["git", "-c", "core.quotepath=off", "ls-files", *arguments],
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
    )
    if done.returncode:
        pytest.skip("not a git clone")
    return done.stdout.splitlines()


def _run(code: str, repository: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": "platform"},
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("module", ["outspike", "outspike.config", "outspike.recipes"])
def test_importing_the_package_is_light(repository: Path, module: str) -> None:
    """Settings and recipes can be read on a machine that has nothing heavy, and quickly."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(_run(code, repository))}
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["outspike.events", "outspike.video", "outspike.datasets"])
def test_lower_rooms_import_without_torch_or_ray(repository: Path, module: str) -> None:
    """Decoding, events and data sets serve on machines without either."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(_run(code, repository))}
    assert not loaded & {"torch", "ray", "mlflow", "zarr", "deltalake"}


def test_every_requirement_is_pinned_inside_its_range(repository: Path) -> None:
    """The constraints file covers every requirement of a CPU host, within what pyproject allows."""
    metadata = project(repository)["project"]
    extras = metadata["optional-dependencies"]
    listed = [
        *metadata["dependencies"],
        *extras["dev"],
        *extras["docs"],
        *extras["bench"],
        *extras["events"],
    ]
    pins = constraints(repository)
    for requirement in map(
        Requirement, [*listed, *project(repository)["build-system"]["requires"]]
    ):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pin), f"{requirement} does not admit {pin}"


def test_constraints_are_plain_pins(repository: Path) -> None:
    """No path, no address, no index: the file serves on any machine."""
    pins = constraints(repository)
    assert not {"torchvision", "torchaudio", "spikingjelly", "outspike"} & set(pins)
    assert not any("/" in version or " " in version for version in pins.values())


def test_extras_and_overrides_are_there(repository: Path) -> None:
    """The extras users are told about, and the override that keeps torchvision off CPU hosts."""
    settings = project(repository)
    assert set(settings["project"]["optional-dependencies"]) == {
        "gpu",
        "events",
        "spiking",
        "dev",
        "docs",
        "bench",
    }
    overrides = settings["tool"]["uv"]["override-dependencies"]
    assert {Requirement(text).name for text in overrides} == {"torchvision", "torchaudio"}


def test_jobs_can_be_submitted_by_path(repository: Path) -> None:
    """``ray job submit jobs/x.py`` runs the file itself: it needs a shebang and the exec bit."""
    for script in sorted((repository / "jobs").glob("*.py")):
        assert script.read_text().startswith("#!/usr/bin/env python3\n"), script
        assert script.stat().st_mode & stat.S_IXUSR, script


def test_exec_bits_are_committed(repository: Path) -> None:
    """A clone must have them too; Ray's upload does not notice a later chmod."""
    listed = tracked(repository, "-s", "jobs/*.py", ".ci/run")
    assert all(line.startswith("100755") for line in listed), listed


def test_ray_cluster_file_passes_rays_own_check(repository: Path) -> None:
    """``ray up`` would accept the file."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((repository / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="unexpected"):
        validate_config(prepare_config({**config, "nodes": 3}))


def test_runtime_env_ships_the_package_and_no_data(repository: Path) -> None:
    """Workers find the package by PYTHONPATH in the upload; data stay at home."""
    from ray.runtime_env import RuntimeEnv

    document = yaml.safe_load((repository / "infra" / "runtime_env.yaml").read_text())
    assert document["working_dir"] == "."
    assert document["env_vars"]["PYTHONPATH"] == "platform"
    assert {"/tests", "*.safetensors"} <= set(document["excludes"])
    RuntimeEnv(env_vars=document["env_vars"], excludes=document["excludes"])


def test_kuberay_file_is_well_formed(repository: Path) -> None:
    """It parses, and its Ray version is the pinned one."""
    document = yaml.safe_load((repository / "infra" / "kuberay" / "raycluster.yaml").read_text())
    assert (document["kind"], document["apiVersion"]) == ("RayCluster", "ray.io/v1")
    assert document["spec"]["rayVersion"] == constraints(repository)["ray"]
    groups = [document["spec"]["headGroupSpec"], *document["spec"]["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        mounts = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_compose_file_is_well_formed(repository: Path) -> None:
    """What waits, mounts and connects names what exists, and MLflow's database is the one there."""
    path = repository / "infra" / "compose.yaml"
    document = yaml.safe_load(path.read_text())
    services = document["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= set(services), name
        assert {"image", "build"} & set(service), name
        mounted = {mount.partition(":")[0] for mount in service.get("volumes", [])}
        assert mounted <= set(document["volumes"]), name
    assert set(document["volumes"]) == {
        mount.partition(":")[0] for s in services.values() for mount in s.get("volumes", [])
    }
    assert (path.parent / services["mlflow"]["build"]["context"]).resolve() == repository
    assert (repository / services["mlflow"]["build"]["dockerfile"]).is_file()
    words = services["mlflow"]["command"].split()
    backend = urlsplit(words[words.index("--backend-store-uri") + 1])
    database = services[backend.hostname or ""]["environment"]
    assert (backend.username, backend.password, backend.path[1:]) == (
        database["POSTGRES_USER"],
        database["POSTGRES_PASSWORD"],
        database["POSTGRES_DB"],
    )


def test_docker_accepts_the_compose_file(repository: Path) -> None:
    """Where docker has its compose plug-in, it reads the file without complaint."""
    command = ["docker", "compose", "-f", str(repository / "infra" / "compose.yaml"), "config"]
    if (
        shutil.which("docker") is None
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no docker compose here")
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_large_file_is_tracked(repository: Path) -> None:
    """The guard of pre-commit holds for what is committed."""
    paths = [p for p in tracked(repository) if not p.startswith("tests/golden/data/")]
    existing = [str(repository / p) for p in paths if (repository / p).is_file()]
    command = [sys.executable, str(repository / "infra" / "check_large_files.py"), *existing]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_large_files_are_refused(repository: Path, tmp_path: Path) -> None:
    """A file of 500,001 bytes is named and refused."""
    (tmp_path / "clip.mp4").write_bytes(bytes(500_001))
    command = [sys.executable, str(repository / "infra" / "check_large_files.py")]
    done = subprocess.run(
        [*command, str(tmp_path / "clip.mp4")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "clip.mp4: 500001 bytes" in done.stdout


@pytest.mark.slow
def test_the_wheel_carries_the_package_and_its_tables(repository: Path, tmp_path: Path) -> None:
    """Built without network from the checkout: code, tables, licence, typing mark; nothing else."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=repository,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "outspike/py.typed",
        "outspike/datasets/tables/ucf_crime.csv",
        "outspike/datasets/tables/README.md",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith("outspike") for name in names)


def test_the_makefile_lists_its_targets(repository: Path) -> None:
    """``make`` alone says what there is."""
    done = subprocess.run(["make"], capture_output=True, text=True, cwd=repository, check=True)
    for target in ("demo", "test", "test-slow", "test-media", "lint", "ped2", "fights", "docs"):
        assert f"  {target}" in done.stdout, target


def test_an_unsuited_python_is_one_clear_line(repository: Path, tmp_path: Path) -> None:
    """A wrong interpreter is refused before anything is installed."""
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints-cpu.txt"):
        (tmp_path / name).write_text((repository / name).read_text())
    command = ["make", "install", f"PYTHON={fake}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "is not Python 3.11, 3.12 or 3.13; name one" in done.stdout
    assert not (tmp_path / ".venv").exists()
