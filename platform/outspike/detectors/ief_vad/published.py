"""Names of the published IEF-VAD checkpoint (``ief_vad.md`` section 3.1)."""

import re
from collections.abc import Mapping

from torch import Tensor

from outspike.config import IefVadConfig
from outspike.detectors.names import PublishedNames, require_axes

_CLASSIFIER = "temporal.classifier.weight"
NAMES = PublishedNames(
    layout="IEF-VAD",
    rules=(
        (
            r"fusion\.(image|event)\.layers\.(\d+)\.in_proj\.",
            r"temporal.\1_attn_layers.\2.in_proj_",
        ),
        (r"fusion\.(image|event)\.layers\.(\d+)\.out_proj", r"temporal.\1_attn_layers.\2.out_proj"),
        (r"fusion\.(image|event)\.layers\.(\d+)\.norm\.", r"temporal.\1_norms.\2."),
        (r"fusion\.(image|event)\.whiten\.", r"temporal.whiten_\1."),
        (r"fusion\.(image|event)\.(mu|logvar)\.", r"temporal.\1_\2."),
        (r"fusion\.refinement\.(\d+)\.inner\.", r"temporal.refinement_blocks.\1.0."),
        (r"fusion\.refinement\.(\d+)\.outer\.", r"temporal.refinement_blocks.\1.2."),
        (r"fusion\.classifier\.", "temporal.classifier."),
    ),
    limits="no input scaling or projection; use input_norm='none' and equal widths",
)


def config_of(state: Mapping[str, Tensor]) -> IefVadConfig:
    """The sizes that a published checkpoint implies; all else is at its published value.

    Heads, nu, refinement rate, epsilon and noise model are in no file: whoever loads one must state
    them, or say that the published ones are meant.

    Raises:
        CheckpointError: the file has no classifier to tell the width from.
    """
    require_axes(state, {_CLASSIFIER: 2}, NAMES.layout)
    width = int(state[_CLASSIFIER].shape[1])
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
