"""The published MSF checkpoint and its 47 entries (``ucf_crime_dvs_msf.md`` section 6)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from outspike.config import MsfConfig
from outspike.detectors.msf.detector import DILATIONS, Msf
from outspike.errors import CheckpointError

_PREFIXES = {
    "classifier.": "classifier.",
    "MSF.conv_4.0.": "fusion.gate.",
    "MSF.SpikingGCN.gc1.": "fusion.graph.similar_in.",
    "MSF.SpikingGCN.gc2.": "fusion.graph.similar_out.",
    "MSF.SpikingGCN.gc3.": "fusion.graph.distant_in.",
    "MSF.SpikingGCN.gc4.": "fusion.graph.distant_out.",
    "MSF.SpikingGCN.linear.": "fusion.graph.linear.",
    "MSF.tim.interactor.": "fusion.tim.",
    **{f"MSF.conv_{i + 1}.0.": f"fusion.branches.{i}.conv." for i in range(len(DILATIONS))},
    **{f"MSF.conv_{i + 1}.1.": f"fusion.branches.{i}.norm." for i in range(len(DILATIONS))},
}
#: Absent from some files; the module's own defaults are the published constants.
OPTIONAL = {
    "MSF.tim.in_lif.threshold": "fusion.tim.inner_threshold",
    "MSF.tim.out_lif.threshold": "fusion.tim.outer_threshold",
    "MSF.tim.in_lif.act_fun.alpha": "fusion.tim.inner_alpha",
    "MSF.tim.out_lif.act_fun.alpha": "fusion.tim.outer_alpha",
}
_SIGMA = "MSF.SpikingGCN.disAdj.sigma"


def is_unused(key: str) -> bool:
    """Whether a published entry has no effect on any score (section 5.6)."""
    return key == _SIGMA or key.startswith(("fc.", "tim."))


def key_map(model: Msf) -> dict[str, str]:
    """Published name of every acting entry, and our name for it."""
    names = dict(OPTIONAL)
    inverse = {ours: published for published, ours in _PREFIXES.items()}
    for key in model.state_dict():
        for prefix, published in inverse.items():
            if key.startswith(prefix) and key not in OPTIONAL.values():
                names[published + key.removeprefix(prefix)] = key
    return names


def config_of(state: Mapping[str, Tensor]) -> MsfConfig:
    """Settings that the shapes of a published checkpoint imply, in the default (correct) form.

    Raises:
        CheckpointError: the file has no first branch to tell the width from.
    """
    weight = state.get("MSF.conv_1.0.weight")
    if weight is None or weight.dim() != 3 or weight.shape[1] != 4 * weight.shape[0]:
        found = "is absent" if weight is None else f"has shape {tuple(weight.shape)}"
        raise CheckpointError(
            f"MSF.conv_1.0.weight {found}; a published MSF checkpoint has [F/4, F, 3] there."
        )
    return MsfConfig(width=weight.shape[1], hidden=weight.shape[0])


def export_published(model: Msf) -> dict[str, Tensor]:
    """The 47-entry state dict that the published code loads.

    The eleven entries that never act are filled with their initial values.

    Raises:
        CheckpointError: the model scales or projects its inputs, which the published one cannot.
    """
    if model.project is not None or model.standardise is not None:
        raise CheckpointError(
            "The published layout has no input projection or scaling; only a model with "
            "input_norm='none' and width == 4 * hidden can be exported."
        )
    ours = model.state_dict()
    state = {name: ours[key].detach().clone() for name, key in key_map(model).items()}
    width = 4 * model.config.hidden
    filler = nn.Linear(width, width)
    state["fc.weight"], state["fc.bias"] = filler.weight.detach(), filler.bias.detach()
    state["tim.interactor.weight"] = nn.Conv1d(width, width, 3, bias=False).weight.detach()
    for name in OPTIONAL:
        state[name.removeprefix("MSF.")] = state[name].clone()
    state[_SIGMA] = torch.tensor([0.1])
    return state
