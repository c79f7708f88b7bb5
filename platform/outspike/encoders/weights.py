"""Pretrained weights from files: read without running anything, compared with what is wanted."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outspike.errors import CheckpointError, ConfigError


def misfits(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    *,
    optional: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """What keeps a state dictionary from being loaded: missing, unknown and misshaped entries."""
    faults = [f"missing {name}" for name in wanted if name not in given and not optional(name)]
    faults += [f"unknown {name}" for name in given if name not in wanted]
    faults += [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    return faults


def read_checkpoint(path: Path) -> Any:
    """What ``torch.save`` wrote, tensors and plain containers only.

    Raises:
        CheckpointError: anything else, code in a pickle included, which is never run.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises a different class for every kind of bad file
        raise CheckpointError(f"{path}: not a checkpoint of plain tensors: {error}") from error


def load_state(weights: str | None, kind: str) -> Mapping[str, Tensor]:
    """Read a state dictionary: ``.safetensors``, plain arrays in ``.npz``, or a torch checkpoint.

    Raises:
        ConfigError: no weights are given, or there is no such file.
        CheckpointError: the file holds something else.
    """
    if weights is None:
        raise ConfigError(
            f"{kind} needs pretrained weights: set weights= to a checkpoint file; the features of "
            "a random network would mean nothing."
        )
    path = Path(weights)
    if not path.is_file():
        raise ConfigError(f"weights={weights!r}: no such file.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: dict[str, Tensor] = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: not a safetensors file: {error}") from error
        return tensors
    return _arrays(path) if path.suffix == ".npz" else _named_tensors(path)


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not an archive of plain arrays: {error}") from error


def _named_tensors(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: expected named tensors, plain or under 'state_dict'.")
    return {name.removeprefix("module."): value for name, value in content.items()}
