"""Names of the published SAA checkpoints: PyTorch's, and those of the MindSpore form.

(``snippet_anomalous_attention.md`` section 2.)
"""

from collections.abc import Mapping

from torch import Tensor

from outspike.config import SaaConfig
from outspike.detectors.saa.detector import Saa
from outspike.detectors.saa.model import DILATIONS
from outspike.errors import CheckpointError

_PREFIXES = {
    **{f"temporal.branches.{i}.conv.": f"aggregate.conv_{i + 1}.0." for i in range(len(DILATIONS))},
    **{f"temporal.branches.{i}.norm.": f"aggregate.conv_{i + 1}.2." for i in range(len(DILATIONS))},
    "temporal.gate.": "aggregate.conv_4.0.",
    "temporal.merge.conv.": "aggregate.conv_5.0.",
    "temporal.merge.norm.": "aggregate.conv_5.2.",
    "temporal.non_local.out.conv.": "aggregate.non_local.W.0.",
    "temporal.non_local.out.norm.": "aggregate.non_local.W.1.",
    **{f"temporal.non_local.{n}.": f"aggregate.non_local.{n}." for n in ("theta", "phi", "g")},
    **{f"attention.layers.{i}.": f"attn.attention.{n}." for i, n in enumerate((0, 3, 5))},
    **{f"classifier.layers.{i}.": f"classifier.fc{i + 1}." for i in range(3)},
}
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


def published_name(key: str) -> str:
    """Published name of one of our entries.

    Raises:
        CheckpointError: the entry has no place in the published layout.
    """
    for ours, theirs in _PREFIXES.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    raise CheckpointError(
        f"{key}: the published SAA layout has no input scaling, projection or audio convolution; "
        "use input_norm='none', a width that is a multiple of 8, and audio_fusion='concat'."
    )


def key_map(model: Saa) -> dict[str, str]:
    """Published name of every entry, and ours."""
    return {published_name(key): key for key in model.state_dict()}


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
    for key, number in axes.items():
        if key not in state or state[key].dim() != number:
            found = f"has shape {tuple(state[key].shape)}" if key in state else "is absent"
            raise CheckpointError(f"{key} {found}; a published SAA checkpoint has {number} axes.")
    width, attention, first, second = (len(state[key]) for key in axes)
    return SaaConfig(
        width=width,
        attention_width=attention,
        classifier_widths=(first, second),
        bias="aggregate.conv_1.0.bias" in state,
    )


def export_published(model: Saa) -> dict[str, Tensor]:
    """The state dict that the published PyTorch code loads."""
    state = model.state_dict()
    return {published_name(key): value.detach().clone() for key, value in state.items()}
