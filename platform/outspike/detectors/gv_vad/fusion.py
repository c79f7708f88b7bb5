"""From one or two streams to a logit a snippet (``gv_vad_ssls.md`` sections 2.2 and 2.4)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import GvVadConfig
from outspike.detectors.draws import keyed_dropout, subkeys

#: One number for each layer that draws, so that no two of them draw the same.
SALTS = {
    name: number
    for number, name in enumerate(
        ("visual", "text", "fused_visual", "fused_text", "first", "second", "selection")
    )
}


class KeyedDropout:
    """Dropout of one training forward: masks follow the bag, whatever its company."""

    def __init__(self, rate: float, keys_B: Tensor) -> None:
        self.rate = rate
        self.keys = keys_B

    def __call__(self, x_BKSW: Tensor, layer: str) -> Tensor:
        """Drop values of ``[B, K, S, W]``, every crop by its own mask."""
        num_crops = x_BKSW.shape[1]
        keys = self.keys if num_crops == 1 else subkeys(self.keys, num_crops)
        rows = keyed_dropout(x_BKSW.flatten(0, 1), self.rate, keys, SALTS[layer])
        return rows.view(x_BKSW.shape)


def dropped(x_BKSW: Tensor, layer: str, dropout: KeyedDropout | None) -> Tensor:
    """``x`` itself outside training."""
    return x_BKSW if dropout is None else dropout(x_BKSW, layer)


def fused_widths(config: GvVadConfig) -> tuple[int, ...]:
    """Widths of the parts that features consist of, side by side."""
    visual, text = config.visual_width, config.text_width
    if config.feature_group == "vis":
        return (visual,)
    if config.feature_group == "text":
        return (text,)
    widths = {"concat": (visual, text), "add": (text,), "product": (text,)}
    return widths.get(config.fusion, (visual + text,))


class Fusion(nn.Module):
    """Streams ``[B, K, S, W]`` into features, kept as parts to be read side by side.

    Text has one crop. Parts are joined only where a layer needs them joined, since joining would
    copy the text for every crop.
    """

    def __init__(self, config: GvVadConfig) -> None:
        super().__init__()
        self.fusion = config.fusion if config.feature_group == "both" else "concat"
        (*_, width) = fused_widths(config)
        self.visual: nn.Linear | None = None
        self.text: nn.Linear | None = None
        if self.fusion != "concat":
            self.visual = _linear(config.visual_width, width)
        if self.fusion == "add_up":
            self.text = _linear(config.text_width, width)

    def forward(
        self, streams: dict[str, Tensor], dropout: KeyedDropout | None
    ) -> tuple[Tensor, ...]:
        """Parts of the features, ``[B, K or 1, S, W]`` each."""
        if self.visual is None:
            return tuple(streams.values())
        visual = dropped(F.relu(self.visual(streams["visual"])), "fused_visual", dropout)
        text = streams["text"]
        if self.text is not None:
            text = dropped(F.relu(self.text(text)), "fused_text", dropout)
        return (visual * text if self.fusion == "product" else visual + text,)


class Head(nn.Module):
    """Two hidden layers and a logit, read from parts of features."""

    def __init__(self, config: GvVadConfig) -> None:
        super().__init__()
        self.widths = fused_widths(config)
        inner = max(1, config.hidden // 4)
        self.first = _linear(sum(self.widths), config.hidden)
        self.second = _linear(config.hidden, inner)
        self.last = _linear(inner, 1)

    def forward(self, parts: tuple[Tensor, ...], dropout: KeyedDropout | None) -> Tensor:
        """Logits ``[B, K, S]``."""
        weights = torch.split(self.first.weight, list(self.widths), dim=1)
        x = F.linear(parts[0], weights[0], self.first.bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            x += F.linear(part, weight)  # frames come first, so text is spread over their crops
        x = dropped(F.relu(x, inplace=True), "first", dropout)
        x = dropped(F.relu(self.second(x), inplace=True), "second", dropout)
        logits: Tensor = self.last(x)[..., 0]
        return logits


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
