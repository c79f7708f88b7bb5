"""Feature sets on different grids, joined on the time base by frame range.

:class:`~outspike.store.bags.BagReader` takes sets that lie on one grid. Here the rows of one set
are kept as they are, and every other set is brought to their frame ranges by a stated rule; what
that rule had to make up is counted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError, StoreError
from outspike.store.bags import Bag, BagReader
from outspike.store.cache import ShardCache
from outspike.store.catalog import Key
from outspike.store.store import FeatureStore

Ranges = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class JoinRule:
    """How a feature set is brought to the rows of another.

    Where nothing is to be made up, the defaults are errors.
    """

    rows: Literal["mean", "nearest"] = "mean"
    """Of several rows that overlap one: their mean, weighted by the frames shared; or the one that
    shares most (the first of equals)."""
    gaps: Literal["error", "zeros", "hold"] = "error"
    """A row that none overlaps: refused, zeros, or the row nearest in time."""
    missing: Literal["error", "skip", "zeros"] = "error"
    """A recording that the set lacks: refused, left out of the join, or zeros."""
    crops: Literal["same", "repeat", "mean"] = "same"
    """Another number of crops: refused; one crop is repeated; or the mean of all is."""


@dataclass
class Coverage:
    """What joining one set has found so far, over all bags read.

    ``whole`` rows had all their frames covered, ``partly`` some, ``filled`` none.
    """

    name: str
    recordings: int = 0
    missing: list[str] = field(default_factory=list)
    rows: int = 0
    whole: int = 0
    partly: int = 0
    filled: int = 0

    def text(self) -> str:
        """One line for a report."""
        line = (
            f"{self.name}: {self.recordings} recordings, {self.rows} rows, of which {self.whole} "
            f"covered whole, {self.partly} in part, {self.filled} filled"
        )
        if self.missing:
            shown = ", ".join(self.missing[:5]) + (" ..." if len(self.missing) > 5 else "")
            line += f"; {len(self.missing)} recordings missing ({shown})"
        return line


@dataclass(frozen=True, kw_only=True)
class JoinedBag:
    """A bag on the rows of the base set, and how much of each row every set covers."""

    bag: Bag
    covered: dict[str, NDArray[np.float32]]
    """Share of the frames of each row ``[S]`` that a set has features of, by name."""


class JoinedReader:
    """Bags of a base set with other sets joined to its rows.

    Args:
        store: an open store; its versions decide which rows are read.
        base: the set whose rows are kept, by name, address or prefix.
        others: the rule for each other set.
        cache: as for :class:`~outspike.store.bags.BagReader`.

    Attributes:
        coverage: what was found, by set; complete once every bag was read.
    """

    def __init__(
        self,
        store: FeatureStore,
        base: str,
        others: Mapping[str, JoinRule],
        *,
        cache: ShardCache | None = None,
    ) -> None:
        if not others or base in others:
            raise ConfigError(f"Join {base!r} with at least one other set, found {list(others)}.")
        self._base_name = base
        self._base = BagReader(store, [base], cache=cache)
        self._rules = dict(others)
        self._others = {name: BagReader(store, [name], cache=cache) for name in others}
        self._has = {name: set(reader.keys()) for name, reader in self._others.items()}
        self._check_crops()
        self.coverage = {name: Coverage(name) for name in others}
        self._read: set[Key] = set()

    def keys(self) -> list[Key]:
        """``(dataset, video_id)`` of every recording of the join, in order.

        Raises:
            StoreError: a set lacks recordings of the base and its rule does not allow for that.
        """
        found = self._base.keys()
        for name, rule in self._rules.items():
            lacking = [key for key in found if key not in self._has[name]]
            if lacking and rule.missing == "error":
                raise StoreError(
                    f"{name} lacks {len(lacking)} of {len(found)} recordings of {self._base_name} "
                    f"(first: {'/'.join(lacking[0])}); extract them, or choose missing='skip' or "
                    "'zeros'."
                )
            self.coverage[name].missing = ["/".join(key) for key in lacking]
            if rule.missing == "skip":
                found = [key for key in found if key in self._has[name]]
        return found

    def __iter__(self) -> Iterator[JoinedBag]:
        return (self.read(key) for key in self.keys())

    def read(self, key: Key) -> JoinedBag:
        """One recording with all sets on the rows of the base.

        Raises:
            StoreError: the base, or a set whose rule demands it, lacks the recording.
            AlignmentError: another frame rate, or a gap that the rule does not allow to fill.
            CorruptionError: stored bytes do not match their checksum.
        """
        bag = self._base.read(key)
        num_crops = self._base.num_crops(self._base_name)
        features = dict(bag.features)
        covered = {self._base_name: np.ones(bag.num_snippets, dtype=np.float32)}
        for name, rule in self._rules.items():
            joined, share = self._joined(bag, name, rule)
            features[name] = _to_crops(joined, num_crops, rule)
            covered[name] = share
            if key not in self._read:
                self._count(name, share)
        self._read.add(key)
        return JoinedBag(bag=replace(bag, features=features), covered=covered)

    def report(self) -> str:
        """What has been covered and what was filled, one line a set."""
        return "\n".join(coverage.text() for coverage in self.coverage.values())

    def _joined(
        self, bag: Bag, name: str, rule: JoinRule
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        reader, key = self._others[name], (bag.dataset, bag.video_id)
        if key not in self._has[name]:
            if rule.missing != "zeros":
                raise StoreError(f"{bag.key}: {name} has no features of it; rule: {rule.missing}.")
            spec = reader.spec(name)
            shape = (spec.num_crops, bag.num_snippets, spec.width)
            return np.zeros(shape, spec.dtype), np.zeros(bag.num_snippets, np.float32)
        other = reader.read(key, copy=False)
        if other.fps != bag.fps:
            raise AlignmentError(
                f"{bag.key}: {self._base_name} counts {bag.fps} frames a second, {name} "
                f"{other.fps}; their frames are not the same, extract both from one decode."
            )
        target, source = (bag.start, bag.stop), (other.start, other.stop)
        share = covered_share(target, source)
        if rule.gaps == "error" and not share.all():
            row = int(np.argmin(share))
            raise AlignmentError(
                f"{bag.key}: {name} has nothing for {int((share == 0).sum())} of "
                f"{bag.num_snippets} rows of {self._base_name} (first: row {row}, frames "
                f"[{bag.start[row]}, {bag.stop[row]})); choose gaps='zeros' or 'hold'."
            )
        return resample(other.features[name], source, target, rule), share

    def _count(self, name: str, share: NDArray[np.float32]) -> None:
        found = self.coverage[name]
        found.recordings += 1
        found.rows += len(share)
        found.whole += int((share == 1).sum())
        found.filled += int((share == 0).sum())
        found.partly = found.rows - found.whole - found.filled

    def _check_crops(self) -> None:
        wanted = self._base.num_crops(self._base_name)
        for name, rule in self._rules.items():
            found = self._others[name].num_crops(name)
            if found == wanted or rule.crops == "mean" or (found == 1 and rule.crops == "repeat"):
                continue
            raise AlignmentError(
                f"{name} has {found} crops, {self._base_name} {wanted}; choose crops='repeat' for "
                "one crop, or 'mean'."
            )


def covered_share(target: Ranges, source: Ranges) -> NDArray[np.float32]:
    """Share of the frames of each target row ``[S]`` that at least one source row covers."""
    row, _, low, high = _overlaps(target, source)
    # rows go forward, so what a row adds begins where the one before it ends
    before = np.zeros(len(row), dtype=np.int64)
    same = np.flatnonzero(row[1:] == row[:-1]) + 1
    before[same] = high[same - 1]
    added = np.maximum(high - np.maximum(low, before), 0)
    frames = np.bincount(row, weights=added, minlength=len(target[0]))
    share: NDArray[np.float32] = (frames / (target[1] - target[0])).astype(np.float32)
    return share


def resample(
    features: NDArray[Any], source: Ranges, target: Ranges, rule: JoinRule
) -> NDArray[Any]:
    """Features ``[K, R, D]`` on the frame ranges ``source [R]`` brought to ``target [S]``.

    Means are taken in float32 and given back in the type of the input; a row that only one overlaps
    is that row, bit for bit. Rows that none overlaps are held or zero.
    """
    row, match, low, high = _overlaps(target, source)
    num_rows = len(target[0])
    out = np.zeros((features.shape[0], num_rows, features.shape[2]), dtype=features.dtype)
    first = np.searchsorted(row, np.arange(num_rows))
    count = np.bincount(row, minlength=num_rows)
    weight = (high - low).astype(np.float32)
    several = np.flatnonzero(count > 1)
    single = np.flatnonzero(count == 1)
    out[:, single] = features[:, match[first[single]]]
    for number in several.tolist():
        part = slice(first[number], first[number] + count[number])
        chosen, share = match[part], weight[part]
        if rule.rows == "nearest":
            out[:, number] = features[:, chosen[np.argmax(share)]]
        else:
            rows = features[:, chosen].astype(np.float32)
            out[:, number] = np.einsum("krd,r->kd", rows, share / share.sum())
    empty = np.flatnonzero(count == 0)
    if rule.gaps == "hold" and len(empty):
        out[:, empty] = features[:, _nearest(source, target, empty)]
    return out


def _overlaps(
    target: Ranges, source: Ranges
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of rows that share frames: target row, source row, shared frames ``[low, high)``.

    Both start and stop of either never go back, so the rows that overlap one are neighbours.
    """
    first = np.searchsorted(source[1], target[0], side="right")
    last = np.searchsorted(source[0], target[1], side="left")
    count = np.maximum(last - first, 0)
    row = np.repeat(np.arange(len(first)), count)
    match = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[row]
    low = np.maximum(target[0][row], source[0][match])
    high = np.minimum(target[1][row], source[1][match])
    return row, match, low, high


def _nearest(source: Ranges, target: Ranges, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The source row with the fewest frames between it and each of some target rows."""
    after = np.searchsorted(source[0], target[1][rows], side="left")
    before = np.maximum(after - 1, 0)
    after = np.minimum(after, len(source[0]) - 1)
    behind = target[0][rows] - source[1][before]
    ahead = source[0][after] - target[1][rows]
    use_after = (behind < 0) | ((ahead >= 0) & (ahead < behind))
    return np.where(use_after, after, before)


def _to_crops(features: NDArray[Any], num_crops: int, rule: JoinRule) -> NDArray[Any]:
    if features.shape[0] == num_crops:
        return features
    if rule.crops == "mean":
        features = features.mean(axis=0, keepdims=True, dtype=np.float32).astype(features.dtype)
    return np.repeat(features, num_crops, axis=0)
