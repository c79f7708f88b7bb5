"""What was published with AED: names of its checkpoints, and how its test cuts recordings.

(``lad2000_aed.md`` sections 3 and 7.)
"""

import re
from collections.abc import Mapping

from torch import Tensor

from outspike.config import AedConfig
from outspike.detectors.aed.detector import Aed
from outspike.detectors.aed.network import CELLS
from outspike.errors import CheckpointError

_RENAMES = (
    (r"network\.cells\.0\.gates\.", r"convlstm1.Gates."),
    (r"network\.cells\.1\.gates\.", r"convlstm2.Gates."),
    (r"network\.down\.", r"fc_down."),
    (r"network\.class_head\.inner\.", r"cls_head.fc_1."),
    (r"network\.class_head\.outer\.", r"cls_head.fc_2."),
    (r"network\.frame_head\.inner\.", r"reg_head.fc_1."),
    (r"network\.frame_head\.outer\.", r"reg_head.fc_2."),
)


def published_name(key: str) -> str:
    """Published name of one of our entries.

    Raises:
        CheckpointError: the entry has no place in the published layout.
    """
    for pattern, replacement in _RENAMES:
        renamed, hits = re.subn(rf"^{pattern}", replacement, key)
        if hits:
            return renamed
    raise CheckpointError(
        f"{key}: the published AED layout has no input scaling or projection; use "
        f"input_norm='none' and a width that is a multiple of {CELLS}."
    )


def key_map(model: Aed) -> dict[str, str]:
    """Published name of every entry, and ours."""
    return {published_name(key): key for key in model.state_dict()}


def config_of(state: Mapping[str, Tensor], *, frames_per_snippet: int = 16) -> AedConfig:
    """Settings that the shapes of a published checkpoint imply, in the default (correct) form.

    A file of two classes takes them for normal and anomalous; others are numbered.

    Raises:
        CheckpointError: an entry that tells a size is absent or has another number of axes.
    """
    axes = {
        "convlstm1.Gates.weight": 4,
        "fc_down.weight": 2,
        "cls_head.fc_1.weight": 2,
        "cls_head.fc_2.weight": 2,
        "reg_head.fc_2.weight": 2,
    }
    for key, number in axes.items():
        if key not in state or state[key].dim() != number:
            found = f"has shape {tuple(state[key].shape)}" if key in state else "is absent"
            raise CheckpointError(f"{key} {found}; a published AED checkpoint has {number} axes.")
    gates, num_inputs = state["convlstm1.Gates.weight"].shape[:2]
    num_classes = state["cls_head.fc_2.weight"].shape[0]
    num_scores = state["reg_head.fc_2.weight"].shape[0]
    return AedConfig(
        kind="aed_t" if "convlstm2.Gates.weight" in state else "aed",
        width=CELLS * (num_inputs - gates // 4),
        window=num_scores // frames_per_snippet,
        frames_per_snippet=frames_per_snippet,
        hidden=gates // 4,
        down=state["fc_down.weight"].shape[0],
        head=state["cls_head.fc_1.weight"].shape[0],
        classes=() if num_classes == 2 else tuple(f"class {i}" for i in range(num_classes)),
    )


def export_published(model: Aed) -> dict[str, Tensor]:
    """The state dict that the published code loads."""
    state = model.state_dict()
    return {published_name(key): value.detach().clone() for key, value in state.items()}


def judged_frames(num_frames: int, window: int, num_repeated: int, *, snippet: int = 16) -> int:
    """Frames of a scored recording that the published evaluation keeps, from its first on.

    Whole groups of ``window`` snippets count, and of a recording whose last snippet was repeated
    the last group does not: up to ``window - 1`` real snippets are dropped with it, and a recording
    of one group contributes nothing.
    """
    groups = num_frames // (snippet * window)
    return snippet * window * (groups - (num_repeated > 0))
