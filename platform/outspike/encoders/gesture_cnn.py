"""``gesture-cnn``: features by a small spiking CNN that was trained on DVS128 Gesture.

The network of sinabs's gesture example: seven convolutions and two linear layers without biases,
each followed by integrate-and-fire neurons; the layer numbers are those of its state dictionary
(``0.weight`` to ``24.weight``). With 0.17 million weights it is small enough to come along with a
test set, and it makes features on a laptop. The file tells neither the neurons' settings nor the
kind of pooling: with mean pooling the firing rates of real recordings stay between one and forty
per cent in every layer, with sum pooling they grow a hundredfold, so the mean it is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from outspike.config import EncoderConfig
from outspike.encoders.spiking import SpikingFeatures
from outspike.encoders.spiking_neurons import IntegratingNeuron, SpikingNetwork
from outspike.encoders.weights import load_state, misfits
from outspike.errors import CheckpointError

_SIZE = 128
#: Number of each layer in the state dictionary, and the shape of its weight.
_CONVOLUTIONS = {
    0: (16, 2, 2, 2),
    2: (16, 16, 3, 3),
    5: (32, 16, 3, 3),
    8: (32, 32, 3, 3),
    11: (64, 32, 3, 3),
    14: (64, 64, 3, 3),
    18: (256, 64, 2, 2),
}
_LINEAR = {22: (128, 256), 24: (11, 128)}
_POOLED = (2, 5, 8, 11, 14)


class GestureCnn(SpikingNetwork):
    """Event frames ``[T, N, P, 128, 128]`` to the 128 neurons before the gestures ``[T, N, 128]``.

    Raises:
        CheckpointError: the state is not this network's; lists what differs.
    """

    size = _SIZE
    width = 128

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers = _CONVOLUTIONS | _LINEAR
        wanted = {f"{number}.weight": torch.empty(shape) for number, shape in layers.items()}
        if faults := misfits(wanted, state):
            raise CheckpointError(f"Not the spiking gesture network: {'; '.join(faults)}")
        for name, value in state.items():
            self.register_buffer(name.replace(".", "_"), value.float())
        self._neurons = nn.ModuleDict(
            {str(number): IntegratingNeuron() for number in (*_CONVOLUTIONS, *_LINEAR)}
        )
        self.eval().requires_grad_(False)

    def forward(self, frames_TNPHW: Tensor) -> Tensor:
        """Spikes of the last hidden layer."""
        return self.layers(frames_TNPHW)[-2]

    def layers(self, frames_TNPHW: Tensor) -> list[Tensor]:
        """Spikes ``[T, N, ...]`` of every layer, the eleven gestures last."""
        x, spikes = frames_TNPHW, []
        leading = x.shape[:2]
        for number, (_, _, side, _) in _CONVOLUTIONS.items():
            padding, stride = (1, 1) if side == 3 else (0, 2 if number == 0 else 1)
            weight = self.get_buffer(f"{number}_weight")
            current = functional.conv2d(x.flatten(0, 1), weight, stride=stride, padding=padding)
            x = self._fire(number, current, leading)
            spikes.append(x)
            if number in _POOLED:
                x = _pooled(x)
        x = x.flatten(2)
        for number in _LINEAR:
            current = functional.linear(x.flatten(0, 1), self.get_buffer(f"{number}_weight"))
            x = self._fire(number, current, leading)
            spikes.append(x)
        return spikes

    def _fire(self, number: int, current: Tensor, leading: torch.Size) -> Tensor:
        neurons = self._neurons[str(number)]
        spikes: Tensor = neurons(current.reshape(*leading, *current.shape[1:]))
        return spikes


def _pooled(spikes_TNCHW: Tensor) -> Tensor:
    """Means of 2 x 2 neurons."""
    pooled = functional.avg_pool2d(spikes_TNCHW.flatten(0, 1), 2)
    return pooled.reshape(*spikes_TNCHW.shape[:2], *pooled.shape[1:])


class GestureCnnFeatures(SpikingFeatures):
    """Rows ``[1, 128]``: mean spikes a step of the last hidden layer over the snippet."""

    network: GestureCnn

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, GestureCnn(load_state(config.weights, config.kind)))
