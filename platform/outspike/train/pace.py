"""How fast a run goes, how long it waits for bags, what memory it takes, how much neurons fire."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from outspike.detectors.base import Detector
from outspike.detectors.neurons import observed


class Pace:
    """Throughput and memory of this process between two lines of the log.

    Args:
        bags_per_batch: of all ranks together.
        device: of this rank.
    """

    def __init__(self, bags_per_batch: int, device: str) -> None:
        self._bags = bags_per_batch
        self._device = device
        self._since: tuple[int, float, float] | None = None

    def start(self, step: int, waited_s: float) -> None:
        """Count from here: steps done, and seconds waited for bags so far."""
        self._since = (step, time.perf_counter(), waited_s)

    def take(self, step: int, waited_s: float) -> dict[str, float]:
        """What to log after ``step`` steps, and a fresh start."""
        assert self._since is not None
        first, began, waited = self._since
        seconds = max(time.perf_counter() - began, 1e-9)
        self.start(step, waited_s)
        told = {
            "pace/steps_per_s": (step - first) / seconds,
            "pace/bags_per_s": (step - first) * self._bags / seconds,
            "pace/waiting_share": (waited_s - waited) / seconds,
            "memory/host_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        if self._device.startswith("cuda"):
            told["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        return told


class SpikeRates:
    """Share of neurons that fire, by layer, of this rank's bags in the forward last watched."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    @contextmanager
    def watching(self, detector: Detector) -> Iterator[None]:
        """Watch one forward pass; members of an ensemble are averaged."""
        layers = detector.spiking_layers
        found: list[Tensor] = []
        if not layers:
            yield
            return
        with observed(lambda spikes, lengths: found.append(_rate(spikes, lengths))):
            yield
        self.last = {
            f"spikes/{name}": float(torch.stack(found[place :: len(layers)]).mean())
            for place, name in enumerate(layers)
        }


def _rate(spikes_TBC: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Spikes a neuron and true step; silent padding is not counted."""
    if lengths_B is None:
        return spikes_TBC.detach().float().mean()
    return spikes_TBC.detach().sum().float() / (lengths_B.sum() * spikes_TBC.shape[2])
