"""Checkpoints: safetensors and JSON, complete or not there, never pickle.

A checkpoint is a folder of a run::

    <run>/checkpoints/step-00000050/model.safetensors       detector.* and ssls.*
                                    optimiser.safetensors   <parameter>/<state>
                                    checkpoint.json         step, config hash, sizes, hashes

On a local path the folder is written beside its place and renamed into it. On S3
``checkpoint.json`` is put last: a folder without it does not exist. Random state is not stored,
since every draw derives from the seed and the step.
"""

import hashlib
import json
import logging
import re
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from outspike import urls
from outspike.errors import CheckpointError, MissingUrlError

logger = logging.getLogger(__name__)

FORMAT = 1
MARKER = "checkpoint.json"
_FOLDER = "checkpoints"
_MODEL = "model.safetensors"
_OPTIMISER = "optimiser.safetensors"
_NAME = re.compile(r"(?:^|/)step-(\d{8})$")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on exactly where it was."""

    step: int
    """Steps done."""
    config_hash: str
    """Of the config the run was started with."""
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    """``{"<parameter>/<state>": tensor}``."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the evaluation at this step, if there was one."""
    best_step: int | None = None
    """Step of the checkpoint that selection holds best so far."""
    best_metric: float | None = None


def folder_of(run_url: str, step: int) -> str:
    """Address of the checkpoint of a step."""
    return urls.join(run_url, _FOLDER, f"step-{step:08d}")


def save(run_url: str, checkpoint: Checkpoint) -> str:
    """Write a checkpoint below a run and return its address.

    A complete one that is there already is replaced; readers see the old, none, or the new one.

    Raises:
        UrlError: it cannot be written; nothing of it is left on a local path.
    """
    url = folder_of(run_url, checkpoint.step)
    files = {
        _MODEL: _to_bytes(checkpoint.model),
        _OPTIMISER: _to_bytes(checkpoint.optimiser),
    }
    files[MARKER] = _marker(checkpoint, files)
    if urls.is_local(url):
        with urls.plain_errors(url):
            _write_local(urls.local_path(url), files)
    else:
        remove(url)
        for name, data in files.items():  # the marker is the last of them
            urls.write_bytes(urls.join(url, name), data)
    logger.debug("checkpoint=%s step=%d", url, checkpoint.step)
    return url


def load(url: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: it is incomplete, of another format, or its bytes are not what was written.
    """
    try:
        marker: dict[str, Any] = json.loads(urls.read_bytes(urls.join(url, MARKER)))
    except MissingUrlError as error:
        raise CheckpointError(
            f"{url}: no {MARKER}; the checkpoint was not finished. Use another one of the run."
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{url}/{MARKER}: not JSON ({error}).") from error
    if marker.get("format") != FORMAT:
        raise CheckpointError(
            f"{url}: checkpoint format {marker.get('format')!r}, this version reads {FORMAT}."
        )
    tensors = {name: _read(url, name, marker["files"]) for name in (_MODEL, _OPTIMISER)}
    return Checkpoint(
        step=marker["step"],
        config_hash=marker["config_hash"],
        model=tensors[_MODEL],
        optimiser=tensors[_OPTIMISER],
        metrics=marker["metrics"],
        best_step=marker["best_step"],
        best_metric=marker["best_metric"],
    )


def complete_steps(run_url: str) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending; none for a run that is not there.

    Checkpoints may come and go meanwhile; one that goes is left out.
    """
    folder = urls.join(run_url, _FOLDER)
    names = (_NAME.search(name) for name in _complete(folder))
    return sorted(int(name.group(1)) for name in names if name)


def _complete(folder: str) -> list[str]:
    """Names of the folders in a folder that have a marker."""
    if urls.is_local(folder):
        path = urls.local_path(folder)
        found = list(path.iterdir()) if path.is_dir() else []
        return [entry.name for entry in found if (entry / MARKER).is_file()]
    try:
        return [url.rsplit("/", 1)[0] for url in urls.list_files(folder, suffixes=(MARKER,))]
    except MissingUrlError:
        return []


def prune(run_url: str, *, keep: set[int]) -> None:
    """Remove the complete checkpoints of all other steps."""
    for step in complete_steps(run_url):
        if step not in keep:
            remove(folder_of(run_url, step))


def remove(url: str) -> None:
    """Remove a checkpoint, its marker first; nothing happens where there is none."""
    filesystem = urls.filesystem(url)
    with urls.plain_errors(url):
        for path in (urls.join(url, MARKER), url):
            if filesystem.exists(urls.path_in(path)):
                filesystem.rm(urls.path_in(path), recursive=True)


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    # safetensors refuses tensors that share memory; tied weights are stored once for each name.
    alone = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(alone)


def _marker(checkpoint: Checkpoint, files: dict[str, bytes]) -> bytes:
    document = {
        "format": FORMAT,
        "step": checkpoint.step,
        "config_hash": checkpoint.config_hash,
        "metrics": checkpoint.metrics,
        "best_step": checkpoint.best_step,
        "best_metric": checkpoint.best_metric,
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        },
    }
    return json.dumps(document, indent=1, allow_nan=False).encode()


def _write_local(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        remove(str(path))
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(url: str, name: str, files: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    data = urls.read_bytes(urls.join(url, name))
    expected = files[name]
    if len(data) != expected["size"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise CheckpointError(
            f"{url}/{name}: {len(data)} bytes that are not the {expected['size']} written; the "
            "checkpoint is damaged. Use another one of the run."
        )
    tensors: dict[str, Tensor] = safetensors.torch.load(data)
    return tensors
