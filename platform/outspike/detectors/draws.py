"""Random draws that depend on (seed, step, bag) only.

Masks are hashed from a key per bag and a counter per element instead of taken from a generator:
neither the rank a bag lands on, nor its neighbours, nor the padding around it changes what is
drawn, and a resumed run draws what the uninterrupted one would have drawn.
"""

import hashlib

import torch
from torch import Tensor

from outspike.detectors.eager import eager

_MASK32 = 0xFFFFFFFF
_GOLDEN_RATIO = 0x1E3779B1  # odd and below 2**31: int64 products of 32-bit values cannot overflow


def draw_key(seed: int, step: int, bag_id: str) -> int:
    """A 64-bit signed key for everything drawn for one bag at one step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{bag_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def subkeys(keys_B: Tensor, num: int) -> Tensor:
    """Independent keys for ``num`` parts (crops, rows) of each bag, ``[B] -> [B * num]``."""
    index = torch.arange(num, device=keys_B.device, dtype=torch.int64)[None, :] * _GOLDEN_RATIO
    low = _mix32(((keys_B & _MASK32)[:, None] + index) & _MASK32)
    high = _mix32((((keys_B >> 32) & _MASK32)[:, None] ^ _mix32(low)) & _MASK32)
    return (((high >> 1) << 32) | low).flatten()


def keyed_uniform_bits(keys_B: Tensor, num: int, salt: int) -> Tensor:
    """31 random bits for each of ``num`` counters of each key, ``[B] -> [B, num]`` int64.

    The first ``m`` columns do not depend on ``num``. ``salt`` separates the layers of a network.
    """
    counter = torch.arange(num, device=keys_B.device, dtype=torch.int64)[None, :]
    low = (keys_B & _MASK32)[:, None]
    high = ((keys_B >> 32) & _MASK32)[:, None]
    mixed = _mix32((counter * _GOLDEN_RATIO + low) & _MASK32)
    mixed = _mix32(mixed ^ _mix32((high + salt * _GOLDEN_RATIO) & _MASK32))
    return mixed >> 1


def keyed_dropout(x: Tensor, rate: float, keys_B: Tensor, salt: int) -> Tensor:
    """Dropout of ``x [B, ...]`` at a rate below 1, with masks hashed from one key per bag.

    Element ``i`` of a bag (row-major over the trailing axes) has the same fate whatever follows it,
    so put the padded axis first.
    """
    if rate <= 0.0:
        return x
    keep = keep_mask(keys_B, x[0].numel(), rate, salt).view(x.shape)
    return torch.where(keep, x * (1.0 / (1.0 - rate)), 0.0)


def keep_mask(keys_B: Tensor, num: int, rate: float, salt: int) -> Tensor:
    """Which of ``num`` elements of each bag dropout spares, bool ``[B, num]``."""
    limit = int(rate * 2**31)
    if keys_B.device.type != "cpu":
        return keyed_uniform_bits(keys_B, num, salt) >= limit
    return _compiled_mask(keys_B, num, limit, salt)


@eager
def _compiled_mask(keys_B: Tensor, num: int, limit: int, salt: int) -> Tensor:
    from outspike.detectors import kernels

    keep = torch.empty(len(keys_B), num, dtype=torch.bool)
    kernels.keep_mask(keys_B.contiguous().numpy(), salt, limit, keep.numpy())
    return keep


def _mix32(x: Tensor) -> Tensor:
    """A 32-bit avalanche (xor-shift and multiply, two rounds) on non-negative int64 values."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK32
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK32
    return x ^ (x >> 15)
