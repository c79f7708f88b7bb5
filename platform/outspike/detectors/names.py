"""Names of published state dicts: renaming entries there and back, and reading sizes off shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from outspike.detectors.base import Detector
from outspike.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class PublishedNames:
    """How a published state dict calls the entries of one of our detectors."""

    layout: str
    """What the layout is called in messages."""
    rules: tuple[tuple[str, str], ...]
    """Pattern that the beginning of our name must match, and what takes its place; the first rule
    that fits counts."""
    limits: str
    """What the layout has no names for, and which settings leave it out."""

    def of(self, key: str) -> str:
        """Published name of one of our entries.

        Raises:
            CheckpointError: the entry has no place in the published layout.
        """
        for pattern, replacement in self.rules:
            renamed, hits = re.subn(rf"^{pattern}", replacement, key)
            if hits:
                return renamed
        raise CheckpointError(f"{key}: the published {self.layout} layout has {self.limits}.")

    def key_map(self, model: Detector) -> dict[str, str]:
        """Published name of every entry, and ours."""
        return {self.of(key): key for key in model.state_dict()}

    def export(self, model: Detector) -> dict[str, Tensor]:
        """The entries of a detector under their published names, as copies."""
        state = model.state_dict()
        return {name: state[key].detach().clone() for name, key in self.key_map(model).items()}


def require_axes(state: Mapping[str, Tensor], axes: Mapping[str, int], layout: str) -> None:
    """Check that the entries which tell sizes are there and have so many axes.

    Raises:
        CheckpointError: naming the first that does not.
    """
    for key, number in axes.items():
        if key not in state or state[key].dim() != number:
            found = f"has shape {tuple(state[key].shape)}" if key in state else "is absent"
            raise CheckpointError(
                f"{key} {found}; a published {layout} checkpoint has {number} axes there."
            )
