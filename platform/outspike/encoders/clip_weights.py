"""CLIP vision towers from a local folder, a hub id, or a published event-CLIP checkpoint file.

A tower is always checked to be complete: a checkpoint that lacks a tensor would otherwise leave
random numbers in its place.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from outspike.encoders.weights import read_checkpoint
from outspike.errors import CheckpointError, ConfigError

_HEAD_WIDTH = 64  # every CLIP vision transformer has heads of this width

#: Vision tower entries of OpenAI's naming -> transformers' naming, within a block.
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_WHOLE = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}


class ClipTower(nn.Module):
    """Pictures ``[n, 3, H, W]`` to embeddings ``[n, D]``, not normalised."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model.eval().requires_grad_(False)
        config: Any = model.config
        self.image_size = int(config.image_size)
        self.width = int(config.projection_dim)
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")
        self.architecture = {name: int(getattr(config, name)) for name in names} | {
            "image_size": self.image_size,
            "activation": str(config.hidden_act),
            "layer_norm_eps": float(config.layer_norm_eps),
        }
        self.digest = digest(model.state_dict())

    def forward(self, pictures: Tensor) -> Tensor:
        """Embed."""
        embeddings: Tensor = self._model(pixel_values=pictures).image_embeds
        return embeddings


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, whatever file they came from."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load_tower(weights: str | None, kind: str) -> ClipTower:
    """Load a vision tower in float32.

    ``weights`` is a local folder as ``save_pretrained`` writes it, a hub id, or a ``.pt`` file
    with OpenAI names, plain or under the ``encoder_k`` of a published event-CLIP checkpoint.

    Raises:
        ConfigError: nothing is given, or nothing can be found there.
        CheckpointError: what is there is not a complete CLIP vision tower.
    """
    if weights is None:
        raise ConfigError(
            f"{kind} needs pretrained weights: set weights= to a local folder, a hub id such as "
            "openai/clip-vit-base-patch32, or a checkpoint file."
        )
    path = Path(weights)
    if path.is_file():
        return ClipTower(_from_file(path))
    return ClipTower(_from_folder(weights, path.is_dir()))


def _from_folder(weights: str, is_local: bool) -> nn.Module:
    from transformers import CLIPVisionModelWithProjection

    try:
        # With output_loading_info the answer is a pair, which its annotation does not say.
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            weights, local_files_only=is_local, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        where = "holds no CLIP vision tower" if is_local else "is no local folder, nor a hub id"
        raise ConfigError(f"weights={weights!r} {where} that can be loaded: {error}") from error
    model, report = loaded
    faults = [*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])]
    if faults:
        raise CheckpointError(
            f"{weights}: the vision tower is not complete; missing or of another shape: "
            f"{', '.join(sorted(faults))}."
        )
    tower: nn.Module = model
    return tower


def _from_file(path: Path) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    state = _openai_vision(_read(path), path)
    try:
        width = state["conv1.weight"].shape[0]
        patch = state["conv1.weight"].shape[-1]
        side = round((state["positional_embedding"].shape[0] - 1) ** 0.5)
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            num_hidden_layers=1 + max(int(n) for n in _block_numbers(state)),
            num_attention_heads=max(1, width // _HEAD_WIDTH),
            image_size=side * patch,
            patch_size=patch,
            projection_dim=state["proj"].shape[1],
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: no complete CLIP vision transformer in it ({error})."
        ) from error
    model: nn.Module = CLIPVisionModelWithProjection(config)
    _load_renamed(model, state, path)
    return model


def _read(path: Path) -> Mapping[str, Any]:
    content = read_checkpoint(path)
    if isinstance(content, Mapping) and "checkpoint" in content:
        content = content["checkpoint"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected named tensors.")
    return content


def _openai_vision(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Entries of the vision tower, prefixes removed (``encoder_k.``, ``visual.``)."""
    names = [name for name, value in content.items() if isinstance(value, Tensor)]
    chosen = [name for name in names if "encoder_k." in name] or names
    state = {}
    for name in chosen:
        short = name.rpartition("encoder_k.")[2]
        if "visual." in short:
            state[short.partition("visual.")[2]] = content[name]
    if not state:
        raise CheckpointError(f"{path}: no entry of a CLIP vision tower ('visual.') in it.")
    return state


def _block_numbers(state: Mapping[str, Tensor]) -> list[str]:
    return re.findall(r"^transformer\.resblocks\.(\d+)\.", "\n".join(state), re.MULTILINE)


def _load_renamed(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        renamed.update(_rename(name, value.float(), path))
    try:
        missing, unexpected = model.load_state_dict(renamed, strict=False)
    except RuntimeError as error:  # torch's report of wrong shapes
        raise CheckpointError(f"{path}: {error}") from error
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: the vision tower is not complete; missing {missing}, unknown {unexpected}."
        )


def _rename(name: str, value: Tensor, path: Path) -> dict[str, Tensor]:
    if name == "proj":
        return {"visual_projection.weight": value.T.contiguous()}
    if name in _WHOLE:
        return {_WHOLE[name]: value}
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if match is None:
        raise CheckpointError(f"{path}: unknown entry {name!r} in its vision tower.")
    prefix = f"vision_model.encoder.layers.{match[1]}"
    if match[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = match[2].rpartition("_")[2]
        parts = value.chunk(3)
        return {
            f"{prefix}.self_attn.{letter}_proj.{kind}": part.clone()
            for letter, part in zip("qkv", parts, strict=True)
        }
    module, _, kind = match[2].rpartition(".")
    if module not in _BLOCK:
        raise CheckpointError(f"{path}: unknown entry {name!r} in its vision tower.")
    return {f"{prefix}.{_BLOCK[module]}.{kind}": value}
