"""Compiled loops over time for the neurons on a CPU.

Per element these do what :mod:`outspike.detectors.neurons` does with whole tensors, in the same
order and precision (no fast-math), so spikes and membranes are the same bits. Compiled code is kept
on disk; the first call on a fresh machine takes a second or two.
"""

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]


def constants(like: "Tensor", *values: float) -> Array:
    """Settings of a kernel in the precision of a tensor, so that nothing is widened."""
    return np.array(values, dtype=like.detach().numpy().dtype)


@numba.njit(cache=True)
def lif_forward(
    x: Array, v: Array, lengths: Array, constants: Array, strict: bool, h: Array, spikes: Array
) -> None:
    """Charge and fire ``x [T, B, C]``; fills ``h`` and ``spikes``, leaves the membrane in ``v``.

    ``constants`` are (tau, threshold) in the dtype of ``x``. Steps past a bag's length make no
    spike and do not touch its membrane.
    """
    tau, threshold = constants[0], constants[1]
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            inside = t < lengths[b]
            for c in range(x.shape[2]):
                before = v[b, c]
                charged = before + (x[t, b, c] - before) / tau
                fires = charged > threshold if strict else charged >= threshold
                h[t, b, c] = charged
                spikes[t, b, c] = fires and inside
                after = x.dtype.type(0) if fires else charged
                v[b, c] = after if inside else before


@numba.njit(cache=True)
def lif_backward(
    charge: Array, spikes: Array, v: Array, lengths: Array, tau: Array, grad_x: Array
) -> None:
    """Gradient of the input from that of the charge; ``v`` turns from the last into the first."""
    for t in range(charge.shape[0] - 1, -1, -1):
        for b in range(charge.shape[1]):
            inside = t < lengths[b]
            for c in range(charge.shape[2]):
                carried = v[b, c]
                kept = charge.dtype.type(0) if spikes[t, b, c] else carried
                grad_h = charge[t, b, c] + kept
                grad_in = grad_h / tau[0]
                grad_x[t, b, c] = grad_in if inside else charge.dtype.type(0)
                v[b, c] = grad_h - grad_in if inside else carried


@numba.njit(cache=True)
def tim_forward(
    c: Array,
    matrix: Array,
    v_in: Array,
    v_out: Array,
    settings: Array,
    h_in: Array,
    h_out: Array,
    out: Array,
) -> None:
    """The TIM recurrence over ``c [T, B, C]``; fills charges and spikes, moves both membranes.

    ``matrix [C, C]`` is (input, output); ``settings`` are tau and
    threshold of the inner and of the outer neuron, and the shares of the recurrence and the input.
    Only inputs that are not zero are multiplied: spikes are few.
    """
    num_steps, num_bags, num_channels = c.shape
    zero = c.dtype.type(0)
    u = np.empty((num_bags, num_channels), dtype=np.float64)
    out[0] = c[0]
    for t in range(1, num_steps):
        _spread(out[t - 1], matrix, u)
        for b in range(num_bags):
            for k in range(num_channels):
                charged = v_in[b, k] + (c.dtype.type(u[b, k]) - v_in[b, k]) / settings[0]
                fires = charged > settings[1]
                h_in[t, b, k] = charged
                v_in[b, k] = zero if fires else charged
                z = (settings[4] if fires else zero) + settings[5] * c[t, b, k]
                charged = v_out[b, k] + (z - v_out[b, k]) / settings[2]
                fires = charged > settings[3]
                h_out[t, b, k] = charged
                v_out[b, k] = zero if fires else charged
                out[t, b, k] = fires


@numba.njit(cache=True)
def tim_backward_step(
    t: int,
    grad_out: Array,
    grad_r: Array,
    slope_in: Array,
    slope_out: Array,
    h_in: Array,
    h_out: Array,
    settings: Array,
    carry_in: Array,
    carry_out: Array,
    grad_c: Array,
    grad_u: Array,
) -> None:
    """One step back: gradients of the input and of what the taps delivered at step ``t``.

    ``grad_r [B, C]`` came back from step ``t + 1``; ``slope_*`` are the surrogate derivatives, and
    ``carry_*`` the gradients of both membranes, which are moved on.
    """
    zero = grad_out.dtype.type(0)
    for b in range(grad_r.shape[0]):
        for k in range(grad_r.shape[1]):
            kept = zero if h_out[t, b, k] > settings[3] else carry_out[b, k]
            grad_h = (grad_out[t, b, k] + grad_r[b, k]) * slope_out[t, b, k] + kept
            grad_z = grad_h / settings[2]
            carry_out[b, k] = grad_h - grad_z
            grad_c[t, b, k] = settings[5] * grad_z
            kept = zero if h_in[t, b, k] > settings[1] else carry_in[b, k]
            grad_h = settings[4] * grad_z * slope_in[t, b, k] + kept
            grad_u[t, b, k] = grad_h / settings[0]
            carry_in[b, k] = grad_h - grad_u[t, b, k]


@numba.njit(cache=True)
def similarity_rows(dots: Array, norm: Array, lengths: Array, start: int, settings: Array) -> None:
    """Turn scalar products ``dots [B, rows, T]`` into rows of the similarity graph, in place.

    The first row is that of snippet ``start``; ``norm [B, T]`` are the lengths of all snippets'
    vectors, ``settings`` the similarity that counts as related, and what keeps 0 / 0 away. Softmax
    of similarities that are 0 where unrelated: only the related ones need an exponential.
    """
    similar, epsilon = settings[0], settings[1]
    zero, one = dots.dtype.type(0), dots.dtype.type(1)
    for b in range(dots.shape[0]):
        size = lengths[b]
        for i in range(dots.shape[1]):
            row = dots[b, i]
            if start + i >= size:
                row[:] = zero
                continue
            own = norm[b, start + i]
            for j in range(size):
                cosine = row[j] / (own * norm[b, j] + epsilon)
                row[j] = cosine if cosine > similar else zero
            total = np.float64(size)
            for j in range(size):
                weight = one
                if row[j] != zero:
                    weight = np.exp(row[j])
                    total += np.float64(weight) - 1.0
                row[j] = weight
            divisor = dots.dtype.type(total)
            for j in range(size):
                row[j] /= divisor
            row[size:] = zero


@numba.njit(cache=True)
def keep_mask(keys: Array, salt: int, limit: int, keep: Array) -> None:
    """Fill ``keep [B, n]`` with ``hash(key, counter, salt) >= limit``, the hash being that of
    :func:`outspike.detectors.draws.keyed_uniform_bits`.
    """
    mask = np.uint64(0xFFFFFFFF)
    ratio = np.uint64(0x1E3779B1)
    for b in range(keep.shape[0]):
        low = np.uint64(keys[b]) & mask
        high = (np.uint64(keys[b]) >> np.uint64(32)) & mask
        layer = _mix32((high + np.uint64(salt) * ratio) & mask)
        for i in range(keep.shape[1]):
            mixed = _mix32((np.uint64(i) * ratio + low) & mask)
            bits = _mix32(mixed ^ layer) >> np.uint64(1)
            keep[b, i] = bits >= np.uint64(limit)


@numba.njit(cache=True)
def _mix32(x: Any) -> Any:
    mask = np.uint64(0xFFFFFFFF)
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x21F0AAAD)) & mask
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(0x735A2D97)) & mask
    return x ^ (x >> np.uint64(15))


@numba.njit(cache=True)
def _spread(source: Array, matrix: Array, total: Array) -> None:
    """``total = source @ matrix`` for a mostly empty source, summed in float64."""
    total[:] = 0
    for b in range(source.shape[0]):
        for j in range(source.shape[1]):
            value = np.float64(source[b, j])
            if value != 0:
                for k in range(total.shape[1]):
                    total[b, k] += value * matrix[j, k]
