"""TIM: a recurrent spiking layer that mixes each step with what came before it (section 5.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from outspike.detectors.eager import eager
from outspike.detectors.neurons import Backend, Neuron, choose_backend, tell_spikes

_MIX = 0.6


@dataclass(frozen=True)
class TimState:
    """Membranes of the inner and outer neurons, ``[B, C]`` each."""

    inner: Tensor
    outer: Tensor


class TemporalInteraction(nn.Module):
    """``r_t = fire(0.6 * fire(W r_{t-1}) + 0.4 * c_t)``, with ``r_0 = c_0`` copied through.

    The published layer convolves three taps over the *batch* axis, so that a bag hears from its
    neighbours (``batch_mixing``). By default only the centre tap acts, which is what the published
    layer computes for a batch of one; the outer taps start at zero, get no gradient, and are kept
    so that a published checkpoint survives the round trip.
    """

    def __init__(self, channels: int, *, tau: float, batch_mixing: bool) -> None:
        super().__init__()
        self.batch_mixing = batch_mixing
        self.tau = tau
        weight = nn.Conv1d(channels, channels, 3, bias=False).weight.detach()
        if not batch_mixing:
            weight[:, :, 0] = 0.0
            weight[:, :, 2] = 0.0
        self.weight = nn.Parameter(weight)
        self.inner_threshold: Tensor
        self.outer_threshold: Tensor
        self.inner_alpha: Tensor
        self.outer_alpha: Tensor
        self.register_buffer("inner_threshold", torch.tensor(0.3))
        self.register_buffer("outer_threshold", torch.tensor(0.5))
        self.register_buffer("inner_alpha", torch.tensor(2.0))
        self.register_buffer("outer_alpha", torch.tensor(2.0))
        self._neurons: tuple[Neuron, Neuron] | None = None

    def forward(
        self, c_BTC: Tensor, state: TimState | None = None, *, backend: Backend = "auto"
    ) -> tuple[Tensor, TimState]:
        """Spikes ``[B, T, C]`` (the first step as given) and the membranes after the last step."""
        rest = torch.zeros_like(c_BTC[:, 0])
        inner, outer = (state.inner, state.outer) if state else (rest, rest)
        neurons = self.neurons()
        if backend == "auto":  # mixing exists for parity, so it keeps the published operations
            backend = "torch" if self.batch_mixing else choose_backend(c_BTC, neurons[0])
        taps = self.weight if self.batch_mixing else self.weight[:, :, 1:2].contiguous()
        out, inner, outer = _Tim.apply(  # type: ignore[no-untyped-call]
            c_BTC.transpose(0, 1), taps, inner, outer, neurons, backend == "compiled"
        )
        tell_spikes(out, None)
        return out.transpose(0, 1), TimState(inner, outer)

    def neurons(self) -> tuple[Neuron, Neuron]:
        """Inner and outer neuron, with the thresholds that a checkpoint brought along."""
        if self._neurons is None:
            self._neurons = (
                _strict(self.tau, self.inner_threshold, self.inner_alpha),
                _strict(self.tau, self.outer_threshold, self.outer_alpha),
            )
        return self._neurons

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._neurons = None


def _strict(tau: float, threshold: Tensor, alpha: Tensor) -> Neuron:
    return Neuron(tau=tau, threshold=threshold.item(), kind="strict_quadratic", alpha=alpha.item())


def _deliver(r_BC: Tensor, taps: Tensor) -> Tensor:
    """What the taps make of one step, ``[B, C] -> [B, C]``; three of them reach other bags."""
    if taps.shape[2] == 1:
        return r_BC @ taps[:, :, 0].T
    return F.conv1d(r_BC.T[None], taps, padding=1)[0].T


def _adjoint(taps: Tensor) -> Callable[[Tensor], Tensor]:
    """What brings the gradient of :func:`_deliver` back, ``[B, C] -> [B, C]``."""
    if taps.shape[2] == 1:
        return partial(_from_one_tap, taps[:, :, 0])
    # One product with all taps: convolutions in double precision are slow on a CPU.
    return partial(_from_three_taps, taps.permute(2, 0, 1).flatten(0, 1))


def _from_one_tap(matrix: Tensor, grad_BC: Tensor) -> Tensor:
    return grad_BC @ matrix


def _from_three_taps(stacked: Tensor, grad_BC: Tensor) -> Tensor:
    """Tap ``k`` heard bag ``b + k - 1``, so its gradient goes there."""
    padded = F.pad(grad_BC, (0, 0, 1, 1))
    return torch.cat([padded[2:], grad_BC, padded[:-2]], dim=1) @ stacked


def _taps_gradient(r_TBC: Tensor, grad_TBC: Tensor, taps: Tensor) -> Tensor:
    """Gradient of the weights ``[C, C, taps]`` from all steps at once."""
    grad = grad_TBC.flatten(0, 1).T
    if taps.shape[2] == 1:
        return (grad @ r_TBC.flatten(0, 1))[..., None]
    padded = F.pad(r_TBC, (0, 0, 1, 1))
    heard = (padded[:, k : k + r_TBC.shape[1]].flatten(0, 1) for k in range(taps.shape[2]))
    return torch.stack([grad @ rows for rows in heard], dim=2)


class _Tim(torch.autograd.Function):
    """The whole recurrence in one function: ``[T, B, C]`` in and out, backward written by hand."""

    @staticmethod
    def forward(
        ctx: Any,
        c: Tensor,
        taps: Tensor,
        v_in: Tensor,
        v_out: Tensor,
        neurons: tuple[Neuron, Neuron],
        compiled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        run = _forward_compiled if compiled else _forward_torch
        out, h_in, h_out, v_in, v_out = run(c, taps, v_in, v_out, neurons)
        ctx.neurons, ctx.compiled = neurons, compiled
        ctx.save_for_backward(h_in, h_out, out, taps)
        ctx.mark_non_differentiable(v_in, v_out)
        return out, v_in, v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        dtype = saved[0].dtype
        if saved[-1].shape[2] > 1:
            # The recurrence amplifies rounding; the published gradients are met best without any.
            saved, grads = [x.double() for x in saved], (grads[0].double(),)
        h_in, h_out, out, taps = saved
        run = _backward_compiled if ctx.compiled else _backward_torch
        grad_c, grad_u = run(grads[0], h_in, h_out, taps, ctx.neurons)
        grad_taps = None
        if ctx.needs_input_grad[1]:
            grad_taps = _taps_gradient(out[:-1], grad_u[1:], taps).to(dtype)
        return grad_c.to(dtype), grad_taps, None, None, None, None


def _forward_torch(
    c: Tensor, taps: Tensor, v_in: Tensor, v_out: Tensor, neurons: tuple[Neuron, Neuron]
) -> tuple[Tensor, ...]:
    inner, outer = neurons
    h_in, h_out = torch.empty_like(c), torch.empty_like(c)
    out = torch.empty_like(c, memory_format=torch.contiguous_format)
    out[0] = c[0]
    share = (1 - _MIX) * c
    for t in range(1, len(c)):
        h = h_in[t]
        u = _deliver(out[t - 1], taps)
        torch.sub(u, v_in, out=h).div_(inner.tau).add_(v_in)
        fired = inner.fires(h)
        v_in = h.masked_fill(fired, 0.0)
        h = h_out[t]
        torch.add(fired.to(c.dtype) * _MIX, share[t], out=h)
        h.sub_(v_out).div_(outer.tau).add_(v_out)
        fired = outer.fires(h)
        v_out = h.masked_fill(fired, 0.0)
        out[t] = fired
    return out, h_in, h_out, v_in.clone(), v_out.clone()


def _backward_torch(
    grad_out: Tensor, h_in: Tensor, h_out: Tensor, taps: Tensor, neurons: tuple[Neuron, Neuron]
) -> tuple[Tensor, Tensor]:
    inner, outer = neurons
    slope_in, slope_out = inner.surrogate(h_in), outer.surrogate(h_out)
    keep_in = (~inner.fires(h_in)).to(grad_out.dtype)
    keep_out = (~outer.fires(h_out)).to(grad_out.dtype)
    grad_c, grad_u = torch.empty_like(h_in), torch.zeros_like(h_in)
    grad_r = torch.zeros_like(grad_out[0])
    carry_in, carry_out = torch.zeros_like(grad_r), torch.zeros_like(grad_r)
    bring_back = _adjoint(taps)
    for t in range(len(grad_out) - 1, 0, -1):
        grad_h = (grad_out[t] + grad_r).mul_(slope_out[t]).addcmul_(carry_out, keep_out[t])
        grad_z = torch.div(grad_h, outer.tau, out=grad_c[t])
        carry_out = grad_h - grad_z
        grad_h = (grad_z * _MIX).mul_(slope_in[t]).addcmul_(carry_in, keep_in[t])
        torch.div(grad_h, inner.tau, out=grad_u[t])
        carry_in = grad_h - grad_u[t]
        grad_r = bring_back(grad_u[t])
    grad_c[1:] *= 1 - _MIX
    grad_c[0] = grad_out[0] + grad_r
    return grad_c, grad_u


@eager
def _forward_compiled(
    c: Tensor, taps: Tensor, v_in: Tensor, v_out: Tensor, neurons: tuple[Neuron, Neuron]
) -> tuple[Tensor, ...]:
    from outspike.detectors import kernels

    c = c.contiguous()
    h_in, h_out, out = torch.zeros_like(c), torch.zeros_like(c), torch.empty_like(c)
    v_in, v_out = v_in.clone(), v_out.clone()
    kernels.tim_forward(
        c.numpy(),
        taps[:, :, 0].T.contiguous().numpy(),
        v_in.numpy(),
        v_out.numpy(),
        _settings(c, neurons),
        h_in.numpy(),
        h_out.numpy(),
        out.numpy(),
    )
    return out, h_in, h_out, v_in, v_out


@eager
def _backward_compiled(
    grad_out: Tensor, h_in: Tensor, h_out: Tensor, taps: Tensor, neurons: tuple[Neuron, Neuron]
) -> tuple[Tensor, Tensor]:
    from outspike.detectors import kernels

    grad_out = grad_out.contiguous()
    grad_c, grad_u = torch.empty_like(h_in), torch.zeros_like(h_in)
    grad_r = torch.zeros_like(h_in[0])
    carries = torch.zeros_like(h_in[0]), torch.zeros_like(h_in[0])
    constant = (
        neurons[0].surrogate(h_in).numpy(),
        neurons[1].surrogate(h_out).numpy(),
        h_in.numpy(),
        h_out.numpy(),
        _settings(h_in, neurons),
        carries[0].numpy(),
        carries[1].numpy(),
        grad_c.numpy(),
        grad_u.numpy(),
    )
    bring_back = _adjoint(taps)
    for t in range(len(h_in) - 1, 0, -1):
        kernels.tim_backward_step(t, grad_out.numpy(), grad_r.numpy(), *constant)
        grad_r = bring_back(grad_u[t])
    grad_c[0] = grad_out[0] + grad_r
    return grad_c, grad_u


def _settings(like: Tensor, neurons: tuple[Neuron, Neuron]) -> Any:
    from outspike.detectors import kernels

    inner, outer = neurons
    return kernels.constants(
        like, inner.tau, inner.threshold, outer.tau, outer.threshold, _MIX, 1 - _MIX
    )
