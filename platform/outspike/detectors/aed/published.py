"""What was published with AED: names of its checkpoints, and how its test cuts recordings.

(``lad2000_aed.md`` sections 3 and 7.)
"""

from collections.abc import Mapping

from torch import Tensor

from outspike.config import AedConfig
from outspike.detectors.aed.network import CELLS
from outspike.detectors.names import PublishedNames, require_axes

NAMES = PublishedNames(
    layout="AED",
    rules=(
        (r"network\.cells\.0\.gates\.", "convlstm1.Gates."),
        (r"network\.cells\.1\.gates\.", "convlstm2.Gates."),
        (r"network\.down\.", "fc_down."),
        (r"network\.class_head\.inner\.", "cls_head.fc_1."),
        (r"network\.class_head\.outer\.", "cls_head.fc_2."),
        (r"network\.frame_head\.inner\.", "reg_head.fc_1."),
        (r"network\.frame_head\.outer\.", "reg_head.fc_2."),
    ),
    limits="no input scaling or projection; use input_norm='none' and a width that is a multiple "
    f"of {CELLS}",
)


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
    require_axes(state, axes, NAMES.layout)
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


def judged_frames(num_frames: int, window: int, num_repeated: int, *, snippet: int = 16) -> int:
    """Frames of a scored recording that the published evaluation keeps, from its first on.

    Whole groups of ``window`` snippets count, and of a recording whose last snippet was repeated
    the last group does not: up to ``window - 1`` real snippets are dropped with it, and a recording
    of one group contributes nothing.
    """
    groups = num_frames // (snippet * window)
    return snippet * window * (groups - (num_repeated > 0))
