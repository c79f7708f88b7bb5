"""Names of the published SAA checkpoints: PyTorch's, and those of the MindSpore form.

(``snippet_anomalous_attention.md`` section 2.)
"""

from collections.abc import Mapping

from torch import Tensor

from outspike.config import SaaConfig
from outspike.detectors.names import PublishedNames, require_axes
from outspike.detectors.saa.model import DILATIONS

NAMES = PublishedNames(
    layout="SAA",
    rules=(
        *(
            (rf"temporal\.branches\.{i}\.{ours}\.", f"aggregate.conv_{i + 1}.{theirs}.")
            for i in range(len(DILATIONS))
            for ours, theirs in (("conv", 0), ("norm", 2))
        ),
        (r"temporal\.gate\.", "aggregate.conv_4.0."),
        (r"temporal\.merge\.conv\.", "aggregate.conv_5.0."),
        (r"temporal\.merge\.norm\.", "aggregate.conv_5.2."),
        (r"temporal\.non_local\.out\.conv\.", "aggregate.non_local.W.0."),
        (r"temporal\.non_local\.out\.norm\.", "aggregate.non_local.W.1."),
        (r"temporal\.non_local\.(theta|phi|g)\.", r"aggregate.non_local.\1."),
        *((rf"attention\.layers\.{i}\.", f"attn.attention.{n}.") for i, n in enumerate((0, 3, 5))),
        *((rf"classifier\.layers\.{i}\.", f"classifier.fc{i + 1}.") for i in range(3)),
    ),
    limits="no input scaling, projection or audio convolution; use input_norm='none', a width that "
    "is a multiple of 8, and audio_fusion='concat'",
)
_COUNTER = ".num_batches_tracked"
_MINDSPORE = {
    ".gamma": ".weight",
    ".beta": ".bias",
    ".moving_mean": ".running_mean",
    ".moving_variance": ".running_var",
}
#: What a MindSpore training checkpoint holds beside the network.
_TRAINING_STATE = ("moment1.", "moment2.", "accum.", "learning_rate", "beta1_power", "beta2_power")
_TRAINING_COUNTERS = frozenset(
    {"global_step", "epoch_num", "step_num", "loss_scale", "scale_sense"}
)


def is_optional(key: str) -> bool:
    """Counters of batches, which no published form uses and MindSpore does not have."""
    return key.endswith(_COUNTER)


def is_unused(key: str) -> bool:
    """Optimiser state and counters of a MindSpore training checkpoint."""
    return key in _TRAINING_COUNTERS or key.startswith(_TRAINING_STATE)


def from_mindspore(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same entries under their PyTorch names; convolution kernels ``[out, in, 1, k]`` lose the
    axis of one row.
    """
    renamed = {}
    for key, value in state.items():
        stem, dot, last = key.rpartition(".")
        flat = last == "weight" and value.dim() == 4 and value.shape[2] == 1
        name = stem + _MINDSPORE.get(dot + last, dot + last)
        renamed[name] = value.squeeze(2) if flat else value
    return renamed


def config_of(state: Mapping[str, Tensor]) -> SaaConfig:
    """Settings that the shapes of a published checkpoint imply, in the default (correct) form.

    Raises:
        CheckpointError: an entry that tells a size is absent or has another number of axes.
    """
    axes = {
        "aggregate.conv_5.0.weight": 3,
        "attn.attention.0.weight": 3,
        "classifier.fc1.weight": 2,
        "classifier.fc2.weight": 2,
    }
    require_axes(state, axes, NAMES.layout)
    width, attention, first, second = (len(state[key]) for key in axes)
    return SaaConfig(
        width=width,
        attention_width=attention,
        classifier_widths=(first, second),
        bias="aggregate.conv_1.0.bias" in state,
    )
