"""What a score costs in arithmetic: operations counted while a detector scores recordings.

A layer that is fed spikes adds a weight where there is one and does nothing elsewhere; every other
layer multiplies and adds for each of its weights. Both are counted on real recordings, so that the
sparsity is the trained network's own, and weighed with the energy of one operation in 45 nm CMOS
(M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9:
32-bit floating point multiplication 3.7 pJ, addition 0.9 pJ). Memory traffic, which a real device
spends most on, is not in it, nor are the encoders.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from outspike.detectors.base import Detector
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.stored import open_pinned, protocol_bags, renamed
from outspike.scoring.bundle import Bundle
from outspike.scoring.score import score_bags
from outspike.store.bags import Bag, BagReader

#: Energy of one 32-bit operation in 45 nm (Horowitz 2014).
ADD_PJ, MULTIPLY_PJ = 0.9, 3.7
MAC_PJ = ADD_PJ + MULTIPLY_PJ
_NUM_BAGS = 8
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Operations for one snippet, on average over the recordings they were counted on."""

    num_snippets: int
    dense_macs: float
    """Multiply-accumulates of all layers and matrix products, zeros or not."""
    spiking_macs: float
    """Those among them whose input is spikes, which a spiking device does not take."""
    synaptic_operations: float
    """Additions it takes instead: spikes that arrive, times the weights each meets."""
    spikes: float
    """Spikes that arrive at such layers."""

    @property
    def dense_pj(self) -> float:
        """Energy if every operation is taken."""
        return MAC_PJ * self.dense_macs

    @property
    def spiking_pj(self) -> float:
        """Energy if spikes are added and everything else is computed."""
        rest = self.dense_macs - self.spiking_macs
        return MAC_PJ * rest + ADD_PJ * self.synaptic_operations

    def document(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def cost_of(bundle: Bundle) -> Cost:
    """Count on some test recordings of the bundle's store.

    Raises:
        StoreError, DatasetError, ConfigError: they are not there, or the protocol has none.
    """
    reader = BagReader(open_pinned(bundle), [spec.address for spec in bundle.feature_sets])
    found = protocol_bags(reader, get_protocol(bundle.protocol), "test")
    names = {spec.name: spec.address for spec in bundle.feature_sets}
    return count(bundle.detector, (renamed(b, names) for b in itertools.islice(found, _NUM_BAGS)))


def count(detector: Detector, bags: Iterable[Bag]) -> Cost:
    """Count while the detector scores ``bags``."""
    tally = _Tally()
    chosen = list(bags)
    with _watched(detector, tally), FlopCounterMode(display=False) as flops:
        score_bags(detector, chosen)
    snippets = sum(bag.num_snippets for bag in chosen)
    return Cost(
        num_snippets=snippets,
        dense_macs=flops.get_total_flops() / 2 / snippets,
        spiking_macs=tally.spiking_macs / snippets,
        synaptic_operations=tally.synaptic_operations / snippets,
        spikes=tally.spikes / snippets,
    )


class _Tally:
    def __init__(self) -> None:
        self.spiking_macs = self.synaptic_operations = self.spikes = 0.0

    def see(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """A layer has run; only one that was fed nothing but zeros and ones counts as spiking."""
        [given] = inputs
        spikes = float(torch.count_nonzero(given))
        if not bool(((given == 0) | (given == 1)).all()):
            return
        macs = output.numel() * _fan_in(layer)
        self.spiking_macs += macs
        self.spikes += spikes
        # a weight for every output a spike reaches: its share of all multiplications
        self.synaptic_operations += macs * spikes / given.numel()


def _fan_in(layer: nn.Module) -> int:
    assert isinstance(layer.weight, Tensor)
    return layer.weight[0].numel()


@contextmanager
def _watched(detector: nn.Module, tally: _Tally) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in detector.modules():
            if isinstance(layer, _WEIGHTED):
                stack.callback(layer.register_forward_hook(tally.see).remove)
        yield
