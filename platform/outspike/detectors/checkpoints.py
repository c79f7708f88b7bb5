"""Weights that somebody else published, loaded strictly and without running any code in them."""

import logging
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from outspike.config import (
    AedConfig,
    DetectorConfig,
    GvVadConfig,
    IefVadConfig,
    MsfConfig,
    SaaConfig,
)
from outspike.detectors.aed import published as aed_published
from outspike.detectors.aed.detector import Aed
from outspike.detectors.base import Detector
from outspike.detectors.gv_vad import published as gv_vad_published
from outspike.detectors.gv_vad.detector import GvVad
from outspike.detectors.ief_vad import published as ief_vad_published
from outspike.detectors.ief_vad.detector import IefVad
from outspike.detectors.mindspore_ckpt import read_mindspore
from outspike.detectors.msf import published as msf_published
from outspike.detectors.msf.detector import Msf
from outspike.detectors.saa import published as saa_published
from outspike.detectors.saa.detector import Saa
from outspike.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)


def import_checkpoint(
    name: str, path: str | Path, config: DetectorConfig | None = None
) -> Detector:
    """Build a detector and load a published checkpoint into it.

    Args:
        name: ``msf``, ``ief_vad``, ``gv_vad``, ``saa``, ``aed`` or ``aed_t``.
        path: a state dict written by ``torch.save`` or as safetensors, or the form of a run in
            progress, ``{epoch, model_state_dict, ...}``; for SAA also a MindSpore ``.ckpt``.
        config: settings to build with. Files of MSF, SAA and AED imply their own (in the default
            form), those of GV-VAD too unless they fuse otherwise than by ``concat``; one of
            IEF-VAD says nothing of heads, nu, refinement rate or noise model: they must be given.

    Returns:
        The detector in eval mode.

    Raises:
        CheckpointError: not a plain table of tensors, or entries that are missing, unknown or of
            another shape, all of them listed.
        ConfigError: unknown detector, or settings that the file cannot supply.
    """
    if name == "saa":
        return _import_saa(path, config)
    state = read_state(path)
    if name == "msf":
        return _import_msf(state, str(path), config)
    if name == "ief_vad":
        return _import_ief_vad(state, str(path), config)
    if name == "gv_vad":
        return _import_gv_vad(state, str(path), config)
    if name in ("aed", "aed_t"):
        return _import_aed(name, state, str(path), config)
    raise ConfigError(
        f"{name!r}: published checkpoints exist for 'msf', 'ief_vad', 'gv_vad', 'saa', 'aed' and "
        "'aed_t'."
    )


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A table of tensors from safetensors or a pickle that holds nothing else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    if path.suffix == ".safetensors":
        loaded: Any = load_file(path)
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise CheckpointError(
                f"{path}: refused, since it is not a plain table of tensors ({reason}). Objects "
                "and code in a pickle are never run; save the state dict alone."
            ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model_state_dict"), Mapping):
        loaded = loaded["model_state_dict"]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise CheckpointError(f"{path}: expected names and tensors, found {type(loaded).__name__}.")
    return dict(loaded)


def _import_msf(state: dict[str, Tensor], path: str, config: DetectorConfig | None) -> Msf:
    implied = msf_published.config_of(state)
    if config is None:
        config = implied
    if not isinstance(config, MsfConfig):
        raise ConfigError(f"{path}: an MSF checkpoint needs an MsfConfig, not {config.kind!r}.")
    logger.info("imported=msf path=%s width=%d hidden=%d", path, implied.width, implied.hidden)
    model = Msf(config)
    _load(
        model,
        state,
        msf_published.NAMES.key_map(model),
        path,
        unused=msf_published.is_unused,
        optional=lambda key: key in msf_published.OPTIONAL,
    )
    return model


def _import_ief_vad(state: dict[str, Tensor], path: str, config: DetectorConfig | None) -> IefVad:
    if not isinstance(config, IefVadConfig):
        raise ConfigError(
            f"{path}: the file does not say num_heads, nu, refinement_rate, epsilon or "
            "noise_model; pass the IefVadConfig it was trained with."
        )
    model = IefVad(config)
    _load(model, state, ief_vad_published.NAMES.key_map(model), path)
    return model


def _import_gv_vad(state: dict[str, Tensor], path: str, config: DetectorConfig | None) -> GvVad:
    config = config or gv_vad_published.config_of(state)
    if not isinstance(config, GvVadConfig):
        raise ConfigError(f"{path}: a GV-VAD checkpoint needs a GvVadConfig, not {config.kind!r}.")
    model = GvVad(config)
    unused = [key for key in state if gv_vad_published.is_unused(key, model)]
    logger.info("imported=gv_vad path=%s unused=%s", path, ",".join(unused) or "none")
    _load(model, state, gv_vad_published.NAMES.key_map(model), path, unused=unused.__contains__)
    return model


def _import_saa(path: str | Path, config: DetectorConfig | None) -> Saa:
    mindspore = Path(path).suffix == ".ckpt" and not zipfile.is_zipfile(path)
    if mindspore and Path(path).is_file():
        state = saa_published.from_mindspore(read_mindspore(path))
    else:
        state = read_state(path)
    config = config or saa_published.config_of(state)
    if not isinstance(config, SaaConfig):
        raise ConfigError(f"{path}: an SAA checkpoint needs an SaaConfig, not {config.kind!r}.")
    model = Saa(config)
    _load(
        model,
        state,
        saa_published.NAMES.key_map(model),
        str(path),
        unused=saa_published.is_unused,
        optional=saa_published.is_optional,
    )
    return model


def _import_aed(
    name: str, state: dict[str, Tensor], path: str, config: DetectorConfig | None
) -> Aed:
    config = config or aed_published.config_of(state)
    if not isinstance(config, AedConfig) or config.kind != name:
        raise ConfigError(
            f"{path}: asked for {name!r}, the file or the settings are of {config.kind!r}."
        )
    model = Aed(config)
    _load(model, state, aed_published.NAMES.key_map(model), path)
    return model


def _load(
    model: Detector,
    state: Mapping[str, Tensor],
    key_map: Mapping[str, str],
    path: str,
    *,
    unused: Callable[[str], bool] = lambda key: False,
    optional: Callable[[str], bool] = lambda key: False,
) -> None:
    """Copy entries under their new names after checking every name and shape."""
    target = model.state_dict()
    missing = sorted(key for key in key_map if key not in state and not optional(key))
    extra = sorted(key for key in state if key not in key_map and not unused(key))
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(target[key_map[key]].shape)}"
        for key, value in state.items()
        if key in key_map and value.shape != target[key_map[key]].shape
    ]
    broken = [
        key
        for key, value in state.items()
        if key in key_map and value.is_floating_point() and not value.isfinite().all()
    ]
    faults = {"missing": missing, "unknown": extra, "wrong shape": shapes, "not finite": broken}
    if any(faults.values()):
        listed = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in faults.items() if keys)
        raise CheckpointError(f"{path}: does not fit {type(model).__name__}: {listed}.")
    renamed = {key_map[key]: value for key, value in state.items() if key in key_map}
    for key in target:
        renamed.setdefault(key, target[key])
    model.load_state_dict(renamed, strict=True)
    model.eval()
