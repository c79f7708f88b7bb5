"""I3D (Inception-v1 inflated to three dimensions), Kinetics-400, up to its average pooling.

Layers, ``SAME`` padding and the names of published state dictionaries are those of
``i3d_extraction.md`` section 2 (Carreira and Zisserman, CVPR 2017, as ported to torch).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from outspike.encoders.weights import misfits
from outspike.errors import CheckpointError

WIDTH = 1024
#: Frames of a clip and side of its pictures: the average pooling spans all of both.
CLIP_FRAMES, SIDE = 16, 224

_CLASSIFIER = "conv3d_0c_1x1."
_COUNTER = "num_batches_tracked"

Triple = tuple[int, int, int]

#: Widths of a mixed block: branch 0, branch 1 (reduce, out), branch 2 (reduce, out), branch 3.
_MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


def same_padding(kernel: Triple, stride: Triple) -> list[int]:
    """TensorFlow's ``SAME`` as ``functional.pad`` takes it: ``kernel - stride`` zeros an axis.

    The smaller half comes first. It does not depend on the size of the input.
    """
    padding: list[int] = []
    for length, step in reversed(list(zip(kernel, stride, strict=True))):
        total = max(length - step, 0)
        padding += [total // 2, total - total // 2]
    return padding


class _Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self._padding = same_padding((kernel,) * 3, (stride,) * 3)
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=False)
        self.batch3d = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, self._padding)
        out: Tensor = functional.relu(self.batch3d(self.conv3d(padded)))
        return out


class _MaxPool(nn.Module):
    """Maximum over zero-padded windows; windows that hang over the end count."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride
        self._padding = same_padding(kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, self._padding)
        return functional.max_pool3d(padded, self._kernel, self._stride, ceil_mode=True)


class _Mixed(nn.Module):
    """Four branches side by side on the channels."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        plain, reduce_1, out_1, reduce_2, out_2, pooled = widths
        self.branch_0 = _Unit(inputs, plain)
        self.branch_1 = nn.Sequential(_Unit(inputs, reduce_1), _Unit(reduce_1, out_1, 3))
        self.branch_2 = nn.Sequential(_Unit(inputs, reduce_2), _Unit(reduce_2, out_2, 3))
        self.branch_3 = nn.Sequential(_MaxPool((3, 3, 3), (1, 1, 1)), _Unit(inputs, pooled))
        self.outputs = plain + out_1 + out_2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], 1
        )


class I3d(nn.Module):
    """Clips ``[n, C, 16, 224, 224]`` (RGB: C = 3, flow: C = 2) to features ``[n, 1024]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        stages: dict[str, nn.Module] = {
            "conv3d_1a_7x7": _Unit(channels, 64, 7, 2),
            "maxPool3d_2a_3x3": _MaxPool((1, 3, 3), (1, 2, 2)),
            "conv3d_2b_1x1": _Unit(64, 64),
            "conv3d_2c_3x3": _Unit(64, 192, 3),
            "maxPool3d_3a_3x3": _MaxPool((1, 3, 3), (1, 2, 2)),
        }
        width = 192
        for name, widths in _MIXED.items():
            if name == "mixed_4b":
                stages["maxPool3d_4a_3x3"] = _MaxPool((3, 3, 3), (2, 2, 2))
            if name == "mixed_5b":
                stages["maxPool3d_5a_2x2"] = _MaxPool((2, 2, 2), (2, 2, 2))
            block = _Mixed(width, widths)
            stages[name], width = block, block.outputs
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.stage_names = tuple(stages)
        self.eval().requires_grad_(False)

    def forward(self, clips: Tensor) -> Tensor:
        """Features."""
        for name in self.stage_names:
            clips = self.get_submodule(name)(clips)
        pooled = functional.avg_pool3d(clips, (2, 7, 7), stride=(1, 1, 1))
        return pooled.flatten(1)


def from_state_dict(state: Mapping[str, Tensor], channels: int) -> I3d:
    """Build the network of a published state dictionary.

    A ``module.`` prefix is taken off. The classifier ``conv3d_0c_1x1`` and the counters of batch
    norms decide no feature and may be absent; anything else must be there, and nothing more.

    Raises:
        CheckpointError: entries are missing, unknown or of another shape; lists them.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    model = I3d(channels)
    own = model.state_dict()
    used = {name: value for name, value in state.items() if not name.startswith(_CLASSIFIER)}
    if faults := misfits(own, used, optional=_is_counter):
        raise CheckpointError(f"Not an I3D of {channels} input channels: {'; '.join(faults)}")
    model.load_state_dict(own | used)
    return model


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER
