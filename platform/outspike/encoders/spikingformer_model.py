"""The Spikingformer feature extractor in evaluation mode (``ucf_crime_dvs_msf.md`` section 3).

A convolutional spiking transformer without softmax. Every neuron keeps its membrane from one call
to the next until :meth:`Spikingformer.reset`, so a recording may be given in pieces of any length.
Module names are those of published state dictionaries.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from outspike.encoders.spiking_neurons import LeakyNeuron, SpikingNetwork
from outspike.encoders.weights import misfits
from outspike.errors import CheckpointError, ConfigError

_ATTENTION_SCALE = 0.125  # a constant of the source, whatever the width of a head


@dataclass(frozen=True, kw_only=True)
class SpikingformerConfig:
    """Sizes of the network. ``size`` is the side of its square input in pixels."""

    width: int = 256
    depth: int = 2
    heads: int = 16
    mlp_ratio: int = 4
    size: int = 128

    def __post_init__(self) -> None:
        if self.width % 8 or self.width % self.heads or self.size % 16:
            raise ConfigError(f"{self}: width must be divisible by 8 and by heads, size by 16.")


#: Published sizes by width: heads and input size cannot be told from a state dictionary.
KNOWN = {
    256: SpikingformerConfig(width=256, depth=2, heads=16, size=128),
    768: SpikingformerConfig(width=768, depth=8, heads=8, size=224),
}


class _Tokenizer(nn.Module):
    """Five convolutions, four of them behind a neuron and a halving of the picture."""

    def __init__(self, config: SpikingformerConfig) -> None:
        super().__init__()
        width = config.width
        sizes = (width // 8, width // 4, width // 2, width, width)
        self.proj_conv = nn.Conv2d(2, sizes[0], 3, padding=1, bias=False)
        self.proj_bn = nn.BatchNorm2d(sizes[0])
        self._neurons = nn.ModuleList(LeakyNeuron() for _ in range(4))
        for i in range(1, 5):
            conv = nn.Conv2d(sizes[i - 1], sizes[i], 3, padding=1, bias=False)
            self.add_module(f"proj{i}_conv", conv)
            self.add_module(f"proj{i}_bn", nn.BatchNorm2d(sizes[i]))

    def forward(self, frames_TNPHW: Tensor) -> Tensor:
        """``[T, N, P, H, W] -> [T, N, C, H/16, W/16]``."""
        leading = frames_TNPHW.shape[:2]
        x = self.proj_bn(self.proj_conv(frames_TNPHW.flatten(0, 1)))
        for i, neuron in enumerate(self._neurons, start=1):
            spikes = neuron(x.unflatten(0, leading)).flatten(0, 1)
            pooled = functional.max_pool2d(spikes, kernel_size=3, stride=2, padding=1)
            conv, norm = self.get_submodule(f"proj{i}_conv"), self.get_submodule(f"proj{i}_bn")
            x = norm(conv(pooled))
        tokens: Tensor = x.unflatten(0, leading)
        return tokens


class _Attention(nn.Module):
    """Spiking self-attention: ``(q k^T) v`` of binary q, k, v, scaled by a constant."""

    def __init__(self, config: SpikingformerConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self._input_neuron = LeakyNeuron()
        self._output_neuron = LeakyNeuron(threshold=0.5)
        self._qkv_neurons = nn.ModuleList(LeakyNeuron() for _ in range(3))
        width = config.width
        for name in ("q", "k", "v"):
            self.add_module(f"{name}_conv", nn.Conv1d(width, width, 1, bias=False))
            self.add_module(f"{name}_bn", nn.BatchNorm1d(width))
        self.proj_conv = nn.Conv1d(width, width, 1)
        self.proj_bn = nn.BatchNorm1d(width)

    def forward(self, x_TNCHW: Tensor) -> Tensor:
        """Same shape out, before the residual is added."""
        leading, picture = x_TNCHW.shape[:2], x_TNCHW.shape[-2:]
        spikes = self._input_neuron(x_TNCHW).flatten(3)
        q, k, v = (
            self._heads_of(name, neuron, spikes)
            for name, neuron in zip("qkv", self._qkv_neurons, strict=True)
        )
        mixed = (q @ k.transpose(-2, -1)) @ v * _ATTENTION_SCALE
        merged = mixed.transpose(-2, -1).flatten(2, 3)  # channel = head * width of a head + i
        out = self.proj_bn(self.proj_conv(self._output_neuron(merged).flatten(0, 1)))
        attended: Tensor = out.unflatten(-1, picture).unflatten(0, leading)
        return attended

    def _heads_of(self, name: str, neuron: nn.Module, spikes_TNCL: Tensor) -> Tensor:
        """``[T, N, C, L] -> [T, N, heads, L, C / heads]``."""
        conv, norm = self.get_submodule(f"{name}_conv"), self.get_submodule(f"{name}_bn")
        x = norm(conv(spikes_TNCL.flatten(0, 1))).unflatten(0, spikes_TNCL.shape[:2])
        split: Tensor = neuron(x).unflatten(2, (self._heads, -1)).transpose(-2, -1)
        return split


class _Mlp(nn.Module):
    def __init__(self, config: SpikingformerConfig) -> None:
        super().__init__()
        hidden = config.width * config.mlp_ratio
        self._neuron1, self._neuron2 = LeakyNeuron(), LeakyNeuron()
        self.mlp1_conv = nn.Conv2d(config.width, hidden, 1)
        self.mlp1_bn = nn.BatchNorm2d(hidden)
        self.mlp2_conv = nn.Conv2d(hidden, config.width, 1)
        self.mlp2_bn = nn.BatchNorm2d(config.width)

    def forward(self, x_TNCHW: Tensor) -> Tensor:
        leading = x_TNCHW.shape[:2]
        x = self._neuron1(x_TNCHW).flatten(0, 1)
        x = self.mlp1_bn(self.mlp1_conv(x)).unflatten(0, leading)
        x = self._neuron2(x).flatten(0, 1)
        out: Tensor = self.mlp2_bn(self.mlp2_conv(x)).unflatten(0, leading)
        return out


class _Block(nn.Module):
    def __init__(self, config: SpikingformerConfig) -> None:
        super().__init__()
        self.attn = _Attention(config)
        self.mlp = _Mlp(config)

    def forward(self, x_TNCHW: Tensor) -> Tensor:
        x = x_TNCHW + self.attn(x_TNCHW)
        out: Tensor = x + self.mlp(x)
        return out


class Spikingformer(SpikingNetwork):
    """Event frames ``[T, N, P, H, W]`` (counts) to features ``[T, N, C]``, one per time step."""

    def __init__(self, config: SpikingformerConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.size = config.width, config.size
        self.patch_embed = _Tokenizer(config)
        self.block = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.eval().requires_grad_(False)

    def forward(self, frames_TNPHW: Tensor) -> Tensor:
        """Features; membranes stay where this call leaves them."""
        return self.stages(frames_TNPHW)[-1].mean(dim=(-2, -1))

    def stages(self, frames_TNPHW: Tensor) -> list[Tensor]:
        """Token maps ``[T, N, C, H/16, W/16]`` after the tokenizer and after every block."""
        maps = [self.patch_embed(frames_TNPHW)]
        for block in self.block:
            maps.append(block(maps[-1]))
        return maps


def from_state_dict(
    state: Mapping[str, Tensor], config: SpikingformerConfig | None = None
) -> Spikingformer:
    """Build the extractor of a published state dictionary.

    ``head.*`` and the never-called ``block.*.norm1`` and ``norm2`` are left out; anything else
    that is absent, unknown or of another shape is refused. Without ``config`` the width picks one
    of the published sizes.

    Raises:
        CheckpointError: the entries do not make this network; lists them.
        ConfigError: the width is not a published one and no config is given.
    """
    used = {
        name: value
        for name, value in state.items()
        if not name.startswith("head.") and ".norm1." not in name and ".norm2." not in name
    }
    model = Spikingformer(_config_of(used) if config is None else config)
    if faults := misfits(model.state_dict(), used):
        raise CheckpointError(f"Not a Spikingformer of {model.config}: {'; '.join(faults)}")
    model.load_state_dict(used)
    return model.eval()


def _config_of(state: Mapping[str, Tensor]) -> SpikingformerConfig:
    last = state.get("patch_embed.proj4_conv.weight")
    if last is None:
        raise CheckpointError(
            "No entry patch_embed.proj4_conv.weight, so this is not a Spikingformer."
        )
    width = last.shape[0]
    if width not in KNOWN:
        raise ConfigError(
            f"A Spikingformer {width} wide is none of the published ones "
            f"({', '.join(map(str, KNOWN))}), and its heads and input size cannot be told from "
            "its weights."
        )
    return KNOWN[width]
