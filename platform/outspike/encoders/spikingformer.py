"""``spikingformer``: features of event recordings by a pretrained spiking transformer."""

from typing import Any

from outspike.config import EncoderConfig
from outspike.encoders.spiking import SpikingFeatures
from outspike.encoders.spikingformer_model import (
    Spikingformer,
    SpikingformerConfig,
    from_state_dict,
)
from outspike.encoders.weights import load_state


class SpikingformerFeatures(SpikingFeatures):
    """Rows ``[1, C]``: the network's mean token over the time steps of the snippet.

    ``sizes`` is only needed for weights that are none of the two published widths.
    """

    network: Spikingformer

    def __init__(self, config: EncoderConfig, sizes: SpikingformerConfig | None = None) -> None:
        state = load_state(config.weights, config.kind)
        super().__init__(config, from_state_dict(state, sizes))

    def document(self) -> dict[str, Any]:
        """Settings, sizes, weights digest and revision."""
        return super().document() | {"heads": self.network.config.heads}
