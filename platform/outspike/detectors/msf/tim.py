"""TIM: a recurrent spiking layer that mixes each step with what came before it (section 5.4)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from outspike.detectors.neurons import Neuron

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

    def forward(self, c_BTC: Tensor, state: TimState | None = None) -> tuple[Tensor, TimState]:
        """Spikes ``[B, T, C]`` (the first step as given) and the membranes after the last step."""
        rest = torch.zeros_like(c_BTC[:, 0])
        inner, outer = (state.inner, state.outer) if state else (rest, rest)
        taps = self.weight if self.batch_mixing else self.weight[:, :, 1:2]
        out, inner, outer = _Tim.apply(  # type: ignore[no-untyped-call]
            c_BTC.transpose(0, 1), taps, inner, outer, self.neurons()
        )
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


def _neighbours(r_BC: Tensor, num_taps: int) -> Tensor:
    """What each tap sees, side by side: ``[B, C] -> [B, taps * C]``, zeros beyond the batch."""
    if num_taps == 1:
        return r_BC
    zero = torch.zeros_like(r_BC[:1])
    return torch.cat([torch.cat([zero, r_BC[:-1]]), r_BC, torch.cat([r_BC[1:], zero])], dim=1)


def _neighbours_adjoint(seen: Tensor, num_taps: int) -> Tensor:
    if num_taps == 1:
        return seen
    before, here, after = seen.chunk(3, dim=1)
    here = here.clone()
    here[:-1] += before[1:]
    here[1:] += after[:-1]
    return here


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
    ) -> tuple[Tensor, Tensor, Tensor]:
        inner, outer = neurons
        num_taps = taps.shape[2]
        matrix = taps.permute(2, 1, 0).reshape(-1, taps.shape[0]).contiguous()  # [taps*C, C]
        h_in, h_out = torch.empty_like(c), torch.empty_like(c)
        out = torch.empty_like(c, memory_format=torch.contiguous_format)
        out[0] = c[0]
        r = out[0]
        share = (1 - _MIX) * c
        for t in range(1, len(c)):
            h = h_in[t]
            torch.sub(_neighbours(r, num_taps) @ matrix, v_in, out=h).div_(inner.tau).add_(v_in)
            fired = inner.fires(h)
            v_in = h * ~fired
            h = h_out[t]
            torch.add(fired.to(c.dtype) * _MIX, share[t], out=h)
            h.sub_(v_out).div_(outer.tau).add_(v_out)
            fired = outer.fires(h)
            v_out = h * ~fired
            out[t] = fired
            r = out[t]
        ctx.neurons = neurons
        ctx.save_for_backward(h_in, h_out, out, taps, matrix)
        v_in, v_out = v_in.clone(), v_out.clone()
        ctx.mark_non_differentiable(v_in, v_out)
        return out, v_in, v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h_in, h_out, out, taps, matrix = ctx.saved_tensors
        inner, outer = ctx.neurons
        num_taps = taps.shape[2]
        grad_out = grads[0]
        slope_in, slope_out = inner.surrogate(h_in) * _MIX, outer.surrogate(h_out)
        keep_in, keep_out = (~inner.fires(h_in)).to(out), (~outer.fires(h_out)).to(out)
        grad_c, grad_u = torch.empty_like(out), torch.zeros_like(out)
        grad_r = torch.zeros_like(out[0])
        carry_in, carry_out = torch.zeros_like(grad_r), torch.zeros_like(grad_r)
        for t in range(len(out) - 1, 0, -1):
            grad_h = (grad_out[t] + grad_r).mul_(slope_out[t]).addcmul_(carry_out, keep_out[t])
            grad_z = torch.div(grad_h, outer.tau, out=grad_c[t])
            carry_out = grad_h - grad_z
            grad_h = (grad_z * slope_in[t]).addcmul_(carry_in, keep_in[t])
            torch.div(grad_h, inner.tau, out=grad_u[t])
            carry_in = grad_h - grad_u[t]
            grad_r = _neighbours_adjoint(grad_u[t] @ matrix.T, num_taps)
        grad_c[1:] *= 1 - _MIX
        grad_c[0] = grad_out[0] + grad_r
        grad_taps = None
        if ctx.needs_input_grad[1]:
            seen = (
                torch.cat([_neighbours(r, num_taps) for r in out[:-1]])
                if num_taps > 1
                else (out[:-1].flatten(0, 1))
            )
            grad_matrix = seen.T @ grad_u[1:].flatten(0, 1)
            grad_taps = grad_matrix.view(num_taps, taps.shape[1], taps.shape[0]).permute(2, 1, 0)
        return grad_c, grad_taps, None, None, None
