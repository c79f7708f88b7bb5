"""Neurons of pretrained spiking networks, for inference: membranes live in the module.

Every neuron keeps its membrane from one call to the next until :meth:`SpikingNeuron.reset`, so a
sequence may be given in pieces of any length. Training uses :mod:`outspike.detectors.neurons`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class SpikingNeuron(nn.Module, ABC):
    """A layer of neurons over the leading axis."""

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold
        self._membrane: Tensor | None = None

    @abstractmethod
    def step(self, membrane: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes of one time step, and the membrane it leaves."""

    def forward(self, current: Tensor) -> Tensor:
        """Spikes ``[T, ...]`` for input ``[T, ...]``."""
        membrane = torch.zeros_like(current[0]) if self._membrane is None else self._membrane
        spikes = []
        for now in current:
            spike, membrane = self.step(membrane, now)
            spikes.append(spike)
        self._membrane = membrane
        return torch.stack(spikes)

    def reset(self) -> None:
        """Forget the membrane."""
        self._membrane = None


class LeakyNeuron(SpikingNeuron):
    """Leaky integrate-and-fire with decaying input and hard reset to 0.

    ``h = v + (x - v) / tau``; a spike where ``h >= threshold``. The comparison includes equality:
    Spikingformer's attention neuron meets its threshold exactly, and often
    (``ucf_crime_dvs_msf.md`` section 3.5).
    """

    def __init__(self, threshold: float = 1.0, tau: float = 1.5) -> None:
        super().__init__(threshold)
        self._tau = tau

    def step(self, membrane: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Charge, fire, reset to zero."""
        charged = membrane + (current - membrane) / self._tau
        spike = (charged >= self.threshold).to(current.dtype)
        return spike, charged * (1.0 - spike)


class IntegratingNeuron(SpikingNeuron):
    """Integrate-and-fire without leak: as many spikes a step as whole thresholds are reached.

    Each spike takes a threshold off the membrane, which never sinks below ``lowest``: what the
    library sinabs calls IAF, with the settings of its gesture example.
    """

    def __init__(self, threshold: float = 1.0, lowest: float = -1.0) -> None:
        super().__init__(threshold)
        self._lowest = lowest

    def step(self, membrane: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Charge, fire, subtract."""
        charged = membrane + current
        spikes = (charged / self.threshold).floor().clamp_min(0.0)
        return spikes, (charged - spikes * self.threshold).clamp_min(self._lowest)


class SpikingNetwork(nn.Module, ABC):
    """A network of such neurons: event frames ``[T, N, P, H, W]`` to features ``[T, N, C]``.

    ``size`` is the side of its square input in pixels, ``width`` is ``C``.
    """

    width: int
    size: int

    @abstractmethod
    def forward(self, frames_TNPHW: Tensor) -> Tensor:
        """One row of features per time step; membranes stay where this call leaves them."""

    def reset(self) -> None:
        """Let every neuron forget."""
        for module in self.modules():
            if isinstance(module, SpikingNeuron):
                module.reset()
