"""Randomness of training as a pure function of what it is for.

Nothing keeps a generator between steps: each draw names its seed, purpose, step and bag, so a
resumed or re-sharded run draws what the uninterrupted one would have drawn.
"""

import hashlib

import numpy as np
import torch


def derive(seed: int, *words: int | str) -> int:
    """A 64-bit number for one purpose, e.g. ``derive(seed, "window", step, bag_id)``.

    Neighbouring seeds and steps give unrelated numbers; the same words always give the same one,
    on every platform and Python version.
    """
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in (seed, *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, *words: int | str) -> np.random.Generator:
    """A fresh NumPy generator for one purpose."""
    return np.random.Generator(np.random.PCG64(derive(seed, *words)))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set torch's global generators for one step of one rank (dropout, and nothing else).

    Ranks differ, or every rank would drop the same units of its own bags.
    """
    torch.manual_seed(derive(seed, "torch", step, rank) % 2**63)


def seed_model(seed: int) -> None:
    """Set torch's global generators for the initial weights, the same on every rank."""
    torch.manual_seed(derive(seed, "model") % 2**63)
