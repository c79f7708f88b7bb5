"""The published MSF checkpoint and its 47 entries (``ucf_crime_dvs_msf.md`` section 6)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from outspike.config import MsfConfig
from outspike.detectors.msf.detector import DILATIONS, Msf
from outspike.detectors.names import PublishedNames
from outspike.errors import CheckpointError

#: Absent from some files; the module's own defaults are the published constants.
OPTIONAL = {
    "MSF.tim.in_lif.threshold": "fusion.tim.inner_threshold",
    "MSF.tim.out_lif.threshold": "fusion.tim.outer_threshold",
    "MSF.tim.in_lif.act_fun.alpha": "fusion.tim.inner_alpha",
    "MSF.tim.out_lif.act_fun.alpha": "fusion.tim.outer_alpha",
}
NAMES = PublishedNames(
    layout="MSF",
    rules=(
        *((re.escape(ours) + "$", published) for published, ours in OPTIONAL.items()),
        (r"classifier\.", "classifier."),
        (r"fusion\.gate\.", "MSF.conv_4.0."),
        (r"fusion\.graph\.similar_in\.", "MSF.SpikingGCN.gc1."),
        (r"fusion\.graph\.similar_out\.", "MSF.SpikingGCN.gc2."),
        (r"fusion\.graph\.distant_in\.", "MSF.SpikingGCN.gc3."),
        (r"fusion\.graph\.distant_out\.", "MSF.SpikingGCN.gc4."),
        (r"fusion\.graph\.linear\.", "MSF.SpikingGCN.linear."),
        (r"fusion\.tim\.", "MSF.tim.interactor."),
        *(
            (rf"fusion\.branches\.{i}\.{ours}\.", f"MSF.conv_{i + 1}.{theirs}.")
            for i in range(len(DILATIONS))
            for ours, theirs in (("conv", 0), ("norm", 1))
        ),
    ),
    limits="no input projection or scaling; only a model with input_norm='none' and width == 4 * "
    "hidden has a place there",
)
_SIGMA = "MSF.SpikingGCN.disAdj.sigma"


def is_unused(key: str) -> bool:
    """Whether a published entry has no effect on any score (section 5.6)."""
    return key == _SIGMA or key.startswith(("fc.", "tim."))


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
    state = NAMES.export(model)
    width = 4 * model.config.hidden
    filler = nn.Linear(width, width)
    state["fc.weight"], state["fc.bias"] = filler.weight.detach(), filler.bias.detach()
    state["tim.interactor.weight"] = nn.Conv1d(width, width, 3, bias=False).weight.detach()
    for name in OPTIONAL:
        state[name.removeprefix("MSF.")] = state[name].clone()
    state[_SIGMA] = torch.tensor([0.1])
    return state
