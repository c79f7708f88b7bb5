"""Names of the published IEF-VAD checkpoint (``ief_vad.md`` section 3.1)."""

import re
from collections.abc import Mapping

from torch import Tensor

from outspike.config import IefVadConfig
from outspike.detectors.ief_vad.detector import IefVad
from outspike.errors import CheckpointError

_RENAMES = (
    (r"(image|event)\.layers\.(\d+)\.in_proj\.", r"\1_attn_layers.\2.in_proj_"),
    (r"(image|event)\.layers\.(\d+)\.out_proj\.", r"\1_attn_layers.\2.out_proj."),
    (r"(image|event)\.layers\.(\d+)\.norm\.", r"\1_norms.\2."),
    (r"(image|event)\.whiten\.", r"whiten_\1."),
    (r"(image|event)\.(mu|logvar)\.", r"\1_\2."),
    (r"refinement\.(\d+)\.inner\.", r"refinement_blocks.\1.0."),
    (r"refinement\.(\d+)\.outer\.", r"refinement_blocks.\1.2."),
    (r"classifier\.", r"classifier."),
)


def published_name(key: str) -> str:
    """Published name of one of our entries.

    Raises:
        CheckpointError: the entry has no place in the published layout.
    """
    for pattern, replacement in _RENAMES:
        renamed, hits = re.subn(rf"^fusion\.{pattern}", f"temporal.{replacement}", key)
        if hits:
            return renamed
    raise CheckpointError(
        f"{key}: the published IEF-VAD layout has no input scaling or projection; use "
        "input_norm='none' and equal widths."
    )


def key_map(model: IefVad) -> dict[str, str]:
    """Published name of every entry, and ours."""
    return {published_name(key): key for key in model.state_dict()}


def config_of(state: Mapping[str, Tensor]) -> IefVadConfig:
    """The sizes that a published checkpoint implies; all else is at its published value.

    Heads, nu, refinement rate, epsilon and noise model are in no file: whoever loads one must state
    them, or say that the published ones are meant.

    Raises:
        CheckpointError: the file has no classifier to tell the width from.
    """
    weight = state.get("temporal.classifier.weight")
    if weight is None or weight.dim() != 2:
        found = "is absent" if weight is None else f"has shape {tuple(weight.shape)}"
        raise CheckpointError(
            f"temporal.classifier.weight {found}; a published IEF-VAD checkpoint has [1, D] there."
        )
    width = int(weight.shape[1])
    return IefVadConfig(
        image_width=width,
        event_width=width,
        width=width,
        num_layers=_count(state, r"temporal\.image_attn_layers\.(\d+)\."),
        refinement_steps=_count(state, r"temporal\.refinement_blocks\.(\d+)\."),
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number in entries of that name."""
    numbers = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def export_published(model: IefVad) -> dict[str, Tensor]:
    """The state dict that the published code loads."""
    state = model.state_dict()
    return {published_name(key): value.detach().clone() for key, value in state.items()}
