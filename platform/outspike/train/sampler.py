"""Which bags a step trains on: fixed shares of normal, anomalous and generated ones.

The bags of a step are a pure function of (seed, step), and a rank's share of them one of (rank,
world size), so ``R`` ranks with ``B/R`` bags each see what one rank with ``B`` sees, and the only
state a resumed run needs is the step's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError, DatasetError
from outspike.train.seeding import generator


class LabelledBag(Protocol):
    """What the sampler needs to know of a bag."""

    @property
    def key(self) -> str:
        """``dataset/video_id``."""

    @property
    def label(self) -> int | None:
        """1 anomalous, 0 normal, None when nobody has said."""

    @property
    def synthetic(self) -> bool:
        """Whether it was generated."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Bags of one kind and how many of them each step takes."""

    name: str
    keys: tuple[str, ...]
    per_step: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps before a bag may come again; the incomplete last batch of a pass is dropped."""
        return len(self.keys) // self.per_step


class BalancedSampler:
    """Half normal, half anomalous bags each step, of which a fixed number is generated.

    Within a pool every pass is a fresh shuffle without replacement: a bag comes at most once a
    pass, so never twice in a step, and the bags that a pass leaves out change from pass to pass.

    Args:
        bags: The training bags, in any order.
        bags_per_batch: ``B``, even.
        synthetic_per_batch: How many of them are generated. Where generated bags of both labels
            exist the number is split between the halves (an odd one goes to the anomalous half).
        seed: Of the run.

    Raises:
        DatasetError: a label is missing, a class has no bag, or fewer than a step needs.
        ConfigError: the numbers contradict each other.
    """

    def __init__(
        self,
        bags: Sequence[LabelledBag],
        *,
        bags_per_batch: int,
        synthetic_per_batch: int = 0,
        seed: int,
    ) -> None:
        if bags_per_batch < 2 or bags_per_batch % 2:
            raise ConfigError(f"bags_per_batch={bags_per_batch} must be even: two halves.")
        half = bags_per_batch // 2
        real = {label: _keys(bags, label, synthetic=False) for label in (0, 1)}
        made = {label: _keys(bags, label, synthetic=True) for label in (0, 1)}
        _check_labels(bags)
        generated = _share_generated(synthetic_per_batch, half, made)
        self.bags_per_batch = bags_per_batch
        self.seed = seed
        self._halves = tuple(
            (
                _pool(name, real[label], half - generated[label], bags_per_batch),
                _pool(f"generated {name}", made[label], generated[label], bags_per_batch),
            )
            for label, name in ((0, "normal"), (1, "anomalous"))
        )
        self._permutation = lru_cache(maxsize=8)(self._fresh_permutation)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that steps draw from, normal ones first."""
        return tuple(pool for half in self._halves for pool in half if pool.per_step)

    def batch(self, step: int) -> tuple[str, ...]:
        """All bags of a step: the normal half, then the anomalous one, generated last in each."""
        return self.share(step, rank=0, world_size=1)

    def share(self, step: int, *, rank: int, world_size: int) -> tuple[str, ...]:
        """The bags of a step that one rank trains on.

        Each half is dealt out like cards, so ranks get equally many bags of either label (or one
        more), the j-th normal and the j-th anomalous bag meet on one rank, and generated bags
        spread evenly. Shares need not be equal: losses and statistics divide by global counts.
        """
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} does not lie in a world of {world_size}.")
        if world_size > self.bags_per_batch // 2:
            raise ConfigError(
                f"bags_per_batch={self.bags_per_batch} gives {self.bags_per_batch // 2} bags a "
                f"half, too few for {world_size} ranks; each needs one of either half."
            )
        keys: list[str] = []
        for half in self._halves:
            drawn = [key for pool in half for key in self._draw(pool, step)]
            keys.extend(drawn[rank::world_size])
        return tuple(keys)

    def _draw(self, pool: Pool, step: int) -> list[str]:
        if not pool.per_step:
            return []
        epoch, position = divmod(step, pool.steps_per_epoch)
        order = self._permutation(pool.name, len(pool.keys), epoch)
        first = position * pool.per_step
        return [pool.keys[index] for index in order[first : first + pool.per_step]]

    def _fresh_permutation(self, pool: str, size: int, epoch: int) -> NDArray[np.int64]:
        return generator(self.seed, "order", pool, epoch).permutation(size)


def _keys(bags: Sequence[LabelledBag], label: int, *, synthetic: bool) -> tuple[str, ...]:
    """Keys of one kind, sorted: the order in which a store lists bags must not matter."""
    return tuple(
        sorted(bag.key for bag in bags if bag.label == label and bag.synthetic == synthetic)
    )


def _check_labels(bags: Sequence[LabelledBag]) -> None:
    keys = {bag.key for bag in bags}
    if len(keys) != len(bags):
        raise DatasetError(f"{len(bags)} training bags have only {len(keys)} different names.")
    unlabelled = sorted(bag.key for bag in bags if bag.label is None)
    if unlabelled:
        raise DatasetError(
            f"{len(unlabelled)} training recordings have no label (first: {unlabelled[0]}); label "
            "them 0 or 1 in the recordings table, or move them out of the training split."
        )


def _share_generated(wanted: int, half: int, made: dict[int, tuple[str, ...]]) -> dict[int, int]:
    """Generated bags a step takes in each half."""
    if wanted and not (made[0] or made[1]):
        raise DatasetError(
            f"synthetic_per_batch={wanted}, but the training split has no generated bag; "
            "extract some into the store (jobs/extract.py ped2-generated), or set it to 0."
        )
    anomalous = 0 if not made[1] else wanted if not made[0] else (wanted + 1) // 2
    shares = {0: wanted - anomalous, 1: anomalous}
    if max(shares.values()) > half or wanted < 0:
        raise ConfigError(
            f"synthetic_per_batch={wanted} puts {max(shares.values())} generated bags into a half "
            f"of {half}."
        )
    return shares


def _pool(name: str, keys: tuple[str, ...], per_step: int, bags_per_batch: int) -> Pool:
    if per_step and not keys:
        raise DatasetError(
            f"The training split has no {name} bag, and a step needs {per_step}; check the labels "
            "and the split in the recordings table."
        )
    if len(keys) < per_step:
        raise DatasetError(
            f"The training split has {len(keys)} {name} bags, but bags_per_batch={bags_per_batch} "
            f"takes {per_step} each step; lower bags_per_batch."
        )
    return Pool(name=name, keys=keys, per_step=per_step)
