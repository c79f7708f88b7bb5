"""Names of the published GV-VAD state dict (``gv_vad_ssls.md`` section 2.6)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from outspike.config import GvVadConfig
from outspike.detectors.gv_vad.detector import GvVad
from outspike.detectors.names import PublishedNames
from outspike.errors import CheckpointError

_BLOCKS = {"visual": "Aggregate", "text": "Aggregate_text"}
_BLOCK_RULES = (
    (r"branches\.0\.conv", "conv_1.0"),
    (r"branches\.0\.norm", "conv_1.2"),
    (r"branches\.1\.conv", "conv_2.0"),
    (r"branches\.1\.norm", "conv_2.2"),
    (r"branches\.2\.conv", "conv_3.0"),
    (r"branches\.2\.norm", "conv_3.2"),
    (r"pointwise", "conv_4.0"),
    (r"mix\.conv", "conv_5.0"),
    (r"mix\.norm", "conv_5.2"),
    (r"context\.(g|theta|phi)", r"non_local.\1"),
    (r"context\.out", "non_local.W.0"),
    (r"context\.norm", "non_local.W.1"),
)
NAMES = PublishedNames(
    layout="GV-VAD",
    rules=(
        *(
            (rf"context\.{stream}\.{ours}\.", f"{block}.{theirs}.")
            for stream, block in _BLOCKS.items()
            for ours, theirs in _BLOCK_RULES
        ),
        (r"head\.first\.", "fc1."),
        (r"head\.second\.", "fc2."),
        (r"head\.last\.", "fc3."),
        (r"fusion\.visual\.", "fc0."),
    ),
    limits="no input scaling, and its names for fusion 'add_up' are not known; use "
    "input_norm='none' and another fusion",
)
_SCALE = "VLR"


def is_unused(key: str, model: GvVad) -> bool:
    """Whether a published entry has no part in any score.

    ``VLR`` is the learned SSLS scale, which belongs to the training and not to the detector; with
    frames alone ``fc0`` is never called.
    """
    return key == _SCALE or (model.config.feature_group == "vis" and key.startswith("fc0."))


def config_of(state: Mapping[str, Tensor]) -> GvVadConfig:
    """Settings that the shapes of a published state dict imply, in the default (correct) form.

    Whether ``fc0`` means fusion ``add`` or ``product`` cannot be told from shapes, nor where a text
    stream without temporal block is fused; such files need a config of their own.

    Raises:
        CheckpointError: neither temporal block is there, or the fusion cannot be told.
    """
    width = {stream: _width(state, block) for stream, block in _BLOCKS.items()}
    head = state.get("fc1.weight")
    if head is None or head.dim() != 2 or not any(width.values()):
        raise CheckpointError(
            "No fc1.weight [H, F + E] beside Aggregate.conv_5.0.weight [F, F, 3] or "
            "Aggregate_text.conv_5.0.weight [E, E, 3]: this is no published GV-VAD state dict."
        )
    groups = {"both": width["visual"] + width["text"], "vis": width["visual"]}
    if not width["visual"]:
        groups = {"text": width["text"]}
    elif not width["text"]:
        del groups["both"]
    else:
        del groups["vis"]
    ((group, read),) = groups.items()
    if read != head.shape[1] or (group == "both" and "fc0.weight" in state):
        raise CheckpointError(
            f"fc1 reads {head.shape[1]} features, the temporal blocks make {groups}: the file does "
            "not tell how they are fused; pass a GvVadConfig with feature_group, fusion and "
            "text_aggregation."
        )
    neutral = GvVadConfig()
    return GvVadConfig(
        feature_group=group,  # type: ignore[arg-type]
        visual_width=width["visual"] or neutral.visual_width,
        text_width=width["text"] or neutral.text_width,
        hidden=head.shape[0],
    )


def _width(state: Mapping[str, Tensor], block: str) -> int:
    weight = state.get(f"{block}.conv_5.0.weight")
    return 0 if weight is None or weight.dim() != 3 else weight.shape[0]


def export_published(model: GvVad, scale: float | None = None) -> dict[str, Tensor]:
    """The state dict that the published code loads.

    Args:
        model: whose weights are written; frames alone get the layer that is never called.
        scale: learned SSLS scale to write first, as ``VLR``.
    """
    state = {} if scale is None else {_SCALE: torch.tensor(scale)}
    state |= NAMES.export(model)
    if model.config.feature_group == "vis":
        width = model.config.visual_width
        state["fc0.weight"], state["fc0.bias"] = torch.zeros(width, width), torch.zeros(width)
    return state
