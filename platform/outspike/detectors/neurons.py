"""Leaky integrate-and-fire neurons over whole sequences, without hidden state.

The membrane goes in and comes out as an argument, so nothing has to be reset and a stream can be
carried on. The charge is ``h = v + (x - v) / tau``; a spike resets the membrane to zero, and the
reset is a constant to the gradient (``ucf_crime_dvs_msf.md`` section 4.1).

Who runs the loop over time is chosen at run time: a compiled kernel on the CPU, spikingjelly's
multi-step node (Triton) on CUDA where it is installed, and plain torch otherwise. On a CPU all
three give the same spikes and membranes bit for bit.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from outspike.detectors.eager import eager

Backend = Literal["auto", "compiled", "spikingjelly", "torch"]


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A neuron's constants: time constant, threshold, comparison and surrogate gradient."""

    tau: float
    threshold: float
    kind: Literal["sigmoid", "strict_quadratic"] = "sigmoid"
    """``sigmoid``: fires at ``h >= threshold``; ``strict_quadratic``: fires above it only."""
    alpha: float = 4.0
    """Steepness of the surrogate (4 for sigmoid, 2 for quadratic in the published models)."""

    def fires(self, h: Tensor) -> Tensor:
        """Where the membrane makes a spike, bool."""
        return h >= self.threshold if self.kind == "sigmoid" else h > self.threshold

    def surrogate(self, h: Tensor) -> Tensor:
        """Derivative that stands in for that of the step; itself it has none.

        Works in place: on long sequences fresh memory costs more than the arithmetic.
        """
        u = h.detach() - self.threshold
        if self.kind == "sigmoid":
            s = u.mul_(self.alpha).sigmoid_()
            rest = 1.0 - s
            return s.mul_(self.alpha).mul_(rest)
        return torch.sub(self.alpha, u.abs_().mul_(self.alpha**2)).clamp_min_(0.0)


def lif(
    x_TBC: Tensor,
    v_BC: Tensor | None,
    neuron: Neuron,
    *,
    lengths_B: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Run neurons over a padded sequence.

    Args:
        x_TBC: input current, time first.
        v_BC: membrane before the first step; None means at rest.
        neuron: constants shared by all.
        lengths_B: true number of steps of each row, at least 1; later steps make no spikes and
            leave the membrane as it is. None means that all steps count.
        backend: ``auto`` chooses by device and by what is installed.

    Returns:
        Spikes ``[T, B, C]`` in the dtype of the input, and the membrane after the last true step.
    """
    if v_BC is None:
        v_BC = torch.zeros_like(x_TBC[0])
    if backend == "auto":
        backend = choose_backend(x_TBC, neuron)
    if backend == "spikingjelly":
        spikes, v = _lif_spikingjelly(x_TBC, v_BC, neuron, lengths_B)
        tell_spikes(spikes, lengths_B)
        return spikes, v
    spikes, v = _Lif.apply(  # type: ignore[no-untyped-call]
        x_TBC, v_BC, neuron, lengths_B, backend == "compiled"
    )
    tell_spikes(spikes, lengths_B)
    return spikes, v


#: Told the spikes ``[T, B, C]`` and the lengths ``[B]`` (or None) of every layer that fires.
Observer = Callable[[Tensor, Tensor | None], None]
_observers: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Let somebody see the spikes of all layers that run meanwhile, in the order they run."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def tell_spikes(spikes_TBC: Tensor, lengths_B: Tensor | None) -> None:
    """A layer has fired."""
    for observer in _observers:
        observer(spikes_TBC, lengths_B)


def choose_backend(x: Tensor, neuron: Neuron) -> Backend:
    """What ``auto`` means for an input."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        return "compiled"
    if x.is_cuda and neuron.kind == "sigmoid" and has_spikingjelly():
        return "spikingjelly"
    return "torch"


@cache
def has_spikingjelly() -> bool:
    """Whether spikingjelly can be imported."""
    return importlib.util.find_spec("spikingjelly") is not None


class _Lif(torch.autograd.Function):
    """Both engines fill in the charge of every step and its spikes; the gradient runs backwards."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, v: Tensor, neuron: Neuron, lengths: Tensor | None, compiled: bool
    ) -> tuple[Tensor, Tensor]:
        run = _charge_compiled if compiled else _charge_torch
        h, spikes, v = run(x, v, neuron, lengths)
        ctx.neuron, ctx.compiled = neuron, compiled
        ctx.save_for_backward(h, spikes, lengths)
        return spikes.to(x.dtype), v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, spikes, lengths = ctx.saved_tensors
        charge = ctx.neuron.surrogate(h).mul_(grads[0])
        run = _gradient_compiled if ctx.compiled else _gradient_torch
        grad_x, grad_v = run(charge, grads[1], spikes, ctx.neuron, lengths)
        return grad_x, grad_v, None, None, None


def _charge_torch(
    x: Tensor, v: Tensor, neuron: Neuron, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    after = torch.empty_like(h)
    for x_t, h_t, after_t in zip(x.unbind(), h.unbind(), after.unbind(), strict=True):
        torch.sub(x_t, v, out=h_t)
        h_t.div_(neuron.tau).add_(v)
        after_t.copy_(h_t).masked_fill_(neuron.fires(h_t), 0.0)
        v = after_t
    spikes = neuron.fires(h)
    if lengths is None:
        return h, spikes, v.clone()
    last = after.gather(0, _last_step(lengths, v))[0]
    return h, spikes & _inside(lengths, len(x)), last


def _gradient_torch(
    charge: Tensor, grad_v: Tensor, spikes: Tensor, neuron: Neuron, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    keep = (~spikes).to(charge.dtype)
    if lengths is not None:
        # The membrane handed on is that of the last true step, so its gradient enters there.
        charge = charge * _inside(lengths, len(charge))
        last = _last_step(lengths, grad_v)
        charge.scatter_add_(0, last, (grad_v * keep.gather(0, last)[0])[None])
        grad_v = torch.zeros_like(grad_v)
    grad_x = torch.empty_like(charge, memory_format=torch.contiguous_format)
    for t in range(len(charge) - 1, -1, -1):
        grad_h = torch.addcmul(charge[t], grad_v, keep[t])
        torch.div(grad_h, neuron.tau, out=grad_x[t])
        grad_v = grad_h - grad_x[t]
    return grad_x, grad_v


@eager
def _charge_compiled(
    x: Tensor, v: Tensor, neuron: Neuron, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    from outspike.detectors import kernels

    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    spikes = torch.empty_like(h, dtype=torch.bool)
    v = v.clone(memory_format=torch.contiguous_format)
    kernels.lif_forward(
        x.contiguous().numpy(),
        v.numpy(),
        _steps(lengths, x),
        kernels.constants(x, neuron.tau, neuron.threshold),
        neuron.kind == "strict_quadratic",
        h.numpy(),
        spikes.numpy(),
    )
    return h, spikes, v


@eager
def _gradient_compiled(
    charge: Tensor, grad_v: Tensor, spikes: Tensor, neuron: Neuron, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    from outspike.detectors import kernels

    grad_x = torch.empty_like(charge, memory_format=torch.contiguous_format)
    grad_v = grad_v.clone(memory_format=torch.contiguous_format)
    kernels.lif_backward(
        charge.contiguous().numpy(),
        spikes.numpy(),
        grad_v.numpy(),
        _steps(lengths, charge),
        kernels.constants(charge, neuron.tau),
        grad_x.numpy(),
    )
    return grad_x, grad_v


def _steps(lengths: Tensor | None, x: Tensor) -> Any:
    if lengths is None:
        lengths = torch.full((x.shape[1],), len(x))
    return lengths.contiguous().numpy()


def _inside(lengths_B: Tensor, num_steps: int) -> Tensor:
    steps = torch.arange(num_steps, device=lengths_B.device)
    return (steps[:, None] < lengths_B)[..., None]


def _last_step(lengths_B: Tensor, like_BC: Tensor) -> Tensor:
    return (lengths_B - 1)[None, :, None].expand(1, *like_BC.shape)


def _lif_spikingjelly(
    x: Tensor, v: Tensor, neuron: Neuron, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    from spikingjelly.activation_based import neuron as nodes
    from spikingjelly.activation_based import surrogate

    if neuron.kind != "sigmoid":
        raise ValueError(
            "spikingjelly's nodes fire at the threshold itself; use the torch backend."
        )
    node = nodes.LIFNode(
        tau=neuron.tau,
        decay_input=True,
        v_threshold=neuron.threshold,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(alpha=neuron.alpha),
        detach_reset=True,
        step_mode="m",
        store_v_seq=True,
    )
    node.v = v
    spikes = node(x)
    if lengths is None:
        return spikes, node.v_seq[-1]
    last = node.v_seq.gather(0, _last_step(lengths, v))[0]
    return spikes * _inside(lengths, len(x)).to(x.dtype), last
