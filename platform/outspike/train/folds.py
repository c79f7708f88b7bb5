"""Splits inside the training split: groups stay together, labels stay in proportion.

Bags cut from one source (``Bag.group``) never lie on both sides. Generated bags are only ever
trained on: nothing is chosen by how well it does on them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from outspike.errors import DatasetError
from outspike.train.sampler import LabelledBag
from outspike.train.seeding import generator


class GroupedBag(LabelledBag, Protocol):
    """What a split needs to know of a bag."""

    @property
    def dataset(self) -> str:
        """Groups are named inside a data set."""

    @property
    def group(self) -> str | None:
        """Name of the source it was cut from; None where it stands alone."""


B = TypeVar("B", bound=GroupedBag)
Split = tuple[list[B], list[B]]
"""Bags to train on, and bags held out."""


def folds(
    bags: Sequence[B], num_folds: int, *, seed: int, always: Sequence[B] = ()
) -> list[Split[B]]:
    """Split bags into ``num_folds`` folds; each is held out once.

    Groups are dealt out greedily, the largest first, to the fold that then has the most even
    share of either label; groups of the same make-up are shuffled by the seed.

    Args:
        bags: those to deal out.
        num_folds: how many folds.
        seed: of the shuffle.
        always: further bags, which every fold trains on and none holds out.

    Raises:
        DatasetError: a label has fewer groups than there are folds, or a group lies both among
            the bags and among those always trained on.
    """
    members = _by_group([bag for bag in bags if not bag.synthetic])
    kept = _by_group(always)
    shared = sorted(set(members) & set(kept))
    if shared:
        raise DatasetError(
            f"{members[shared[0]][0].key} and {kept[shared[0]][0].key} come from one source, and "
            "only the first can be held out; deal out both, or give them different groups."
        )
    for label, word in ((0, "normal"), (1, "anomalous")):
        having = sum(any(bag.label == label for bag in group) for group in members.values())
        if having == 0 and any(bag.label == label for bag in always):
            continue
        if having < num_folds:
            raise DatasetError(
                f"{num_folds} folds need {num_folds} groups with {word} recordings, the training "
                f"split has {having}; use fewer folds."
            )
    fold_of = _deal(members, np.ones(num_folds), seed)
    splits = [_split(bags, fold_of, held_out) for held_out in range(num_folds)]
    return [([*always, *inside], held_out) for inside, held_out in splits]


def holdout(bags: Sequence[B], share: float, *, seed: int) -> Split[B]:
    """Hold out about ``share`` of the bags of either label.

    Raises:
        DatasetError: a side would have no bag of one of the labels.
    """
    real = [bag for bag in bags if not bag.synthetic]
    fold_of = _deal(_by_group(real), np.array([1 - share, share]), seed)
    kept, held_out = _split(bags, fold_of, 1)
    for side, name in ((kept, "training"), (held_out, "held-out")):
        missing = {0, 1} - {bag.label for bag in side if not bag.synthetic}
        if missing:
            raise DatasetError(
                f"Holding out {share:g} of {len(real)} recordings leaves no bag of label "
                f"{missing.pop()} on the {name} side; change selection.share, or select by "
                "cross_validation."
            )
    return kept, held_out


def _by_group(bags: Sequence[B]) -> dict[tuple[str, str], list[B]]:
    members: dict[tuple[str, str], list[B]] = defaultdict(list)
    for bag in sorted(bags, key=lambda bag: bag.key):
        name = ("", bag.key) if bag.group is None else (bag.dataset, bag.group)
        members[name].append(bag)
    return dict(members)


def _deal(
    members: dict[tuple[str, str], list[B]], shares: NDArray[np.float64], seed: int
) -> dict[str, int]:
    """Side of every bag: groups go where both labels are farthest below their share."""
    counts = {
        name: np.array([sum(bag.label == label for bag in group) for label in (0, 1)], dtype=float)
        for name, group in members.items()
    }
    total = sum(counts.values(), np.zeros(2))
    target = np.outer(shares / shares.sum(), np.maximum(total, 1))
    names = list(members)
    order = [names[i] for i in generator(seed, "folds").permutation(len(names))]
    order.sort(key=lambda name: -counts[name].sum())  # stable: the shuffle decides among equals
    filled = np.zeros_like(target)
    side_of: dict[str, int] = {}
    for name in order:
        after = (filled + counts[name]) / target
        before = filled / target
        cost = (after**2 - before**2).sum(axis=1) * target.sum(axis=1)
        side = int(np.argmin(cost))
        filled[side] += counts[name]
        side_of.update({bag.key: side for bag in members[name]})
    return side_of


def _split(bags: Sequence[B], side_of: dict[str, int], held_out: int) -> Split[B]:
    inside = [bag for bag in bags if side_of.get(bag.key) != held_out]
    return inside, [bag for bag in bags if side_of.get(bag.key) == held_out]
