"""Bags: all snippets of one recording, from one or more feature sets, joined on frame ranges."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outspike import urls
from outspike.errors import AlignmentError, BagError, StoreError
from outspike.recording import Recording
from outspike.store.cache import ShardCache
from outspike.store.catalog import Key
from outspike.store.features import FeatureReader
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.shards import Rows
from outspike.store.store import FeatureStore
from outspike.timebase import frame_labels


@dataclass(frozen=True, kw_only=True)
class Bag:
    """All snippets of one recording, or a row range of them.

    ``features`` maps the names asked for to arrays ``[K, S, D]``; ``start`` and ``stop`` are the
    frame range ``[S]`` of each snippet, the same for every set. ``num_frames`` and ``intervals``
    are those of the whole recording.
    """

    dataset: str
    video_id: str
    features: dict[str, NDArray[Any]]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    num_frames: int
    fps: Fraction
    label: int | None
    class_name: str | None
    synthetic: bool
    intervals: tuple[tuple[int, int], ...] | None
    group: str | None
    split: str

    @property
    def num_snippets(self) -> int:
        """``S``."""
        return len(self.start)

    @property
    def key(self) -> str:
        """``dataset/video_id``."""
        return f"{self.dataset}/{self.video_id}"

    def frame_labels(self) -> NDArray[np.uint8] | None:
        """Label of every frame ``[F]``; None where nobody has annotated the recording.

        Raises:
            AlignmentError: an interval ends past the recording.
        """
        if self.intervals is None:
            return None
        try:
            return frame_labels(self.intervals, self.num_frames)
        except AlignmentError as error:
            raise AlignmentError(f"{self.key}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class BagBatch:
    """``B`` bags, or row ranges of them, zero padded at the end to the longest of them."""

    keys: tuple[Key, ...]
    features: dict[str, NDArray[Any]]
    """``{name: [B, K, S, D]}`` in the type they are stored in."""
    num_snippets: NDArray[np.int64]
    """``[B]``."""
    start: NDArray[np.int64]
    """First frame of each snippet ``[B, S]``, 0 at padding."""
    stop: NDArray[np.int64]
    """Frame past the last of each snippet ``[B, S]``, 0 at padding."""
    num_frames: NDArray[np.int64]
    """Frames of the whole recordings ``[B]``."""
    labels: NDArray[np.int8]
    """1 anomalous, 0 normal, -1 where nobody has said ``[B]``."""
    synthetic: NDArray[np.bool_]
    """``[B]``."""


#: What is known of a whole bag at hand: fields, features, first frames, frames past the last.
_Whole = tuple[dict[str, Any], dict[str, NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]
_MAX_READY = 1 << 16


class BagReader:
    """Bags of every recording that all the feature sets asked for have.

    Args:
        store: an open store; its versions decide which rows are read.
        names: feature sets by name, address or prefix; ``Bag.features`` uses the same names.
        cache: keeps shards of a store on S3 on a local disk; None reads ranges each time.
    """

    def __init__(
        self, store: FeatureStore, names: Sequence[str], *, cache: ShardCache | None = None
    ) -> None:
        if not names or len(set(names)) != len(names):
            raise StoreError(f"Feature sets {list(names)}: name at least one, and each once.")
        self.store = store
        self._is_mapped = cache is not None or urls.is_local(store.url)
        self._readers = {name: store.features(name, cache=cache) for name in names}
        self._first = next(iter(self._readers.values()))
        self._recordings = store.recordings_by_key()
        self._facts: dict[Key, dict[str, Any]] = {}
        self._ready: dict[Key, _Whole] = {}
        self._follow_closing()

    def _follow_closing(self) -> None:
        for reader in self._readers.values():
            reader.when_closing(self._ready.clear)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ready": {}}  # views of what is mapped here

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._follow_closing()

    @property
    def is_mapped(self) -> bool:
        """Whether rows are read from files on a local disk, which all processes of a node share."""
        return self._is_mapped

    def keys(self) -> list[Key]:
        """``(dataset, video_id)`` of every recording that has features in all sets, in order."""
        return list(self._positions)

    def width(self, name: str) -> int:
        """``D`` of one of the sets."""
        return self._readers[name].spec.width

    def spec(self, name: str) -> FeatureSetSpec:
        """Everything one of the sets says of itself."""
        return self._readers[name].spec

    def num_crops(self, name: str) -> int:
        """``K`` of one of the sets."""
        return self._readers[name].spec.num_crops

    def num_snippets(self, key: Key) -> int:
        """``S`` of a recording, from the catalog alone."""
        return self._first.num_snippets(key)

    def lengths(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """``S`` of some recordings ``[B]``, from the catalog alone."""
        found: NDArray[np.int64] = self._lengths[self._find(keys)]
        return found

    def recording(self, key: Key) -> Recording | None:
        """What people say of a recording; None where nobody has registered it."""
        return self._recordings.get(key)

    def read(self, key: Key, rows: slice | None = None, *, copy: bool = True) -> Bag:
        """The bag of one recording, or snippets ``rows.start`` to ``rows.stop`` of it.

        Without ``copy`` features on a local disk are read-only views of the stored bytes.

        Raises:
            StoreError: a set has no features of it.
            AlignmentError: the sets do not lie on the same frame ranges.
            BagError: a row range that is empty or leaves the recording.
            CorruptionError: stored bytes do not match their checksum.
        """
        if rows is not None:
            position = self._position(key)
            facts = self._facts.get(key) or self._fact(key, position)
            low, high = _row_range(key, rows, facts["num_snippets"])
            return _bag(facts["fields"], *self._read_one(position, low, high, copy=copy))
        fields, features, start, stop = self._ready.get(key) or self._whole(key)
        if not copy:
            return _bag(fields, dict(features), start, stop)
        own = {name: _own(values) for name, values in features.items()}
        return _bag(fields, own, start.copy(), stop.copy())

    def _whole(self, key: Key) -> _Whole:
        """A whole bag, as views of mapped shards where they lie in one; these are kept at hand.

        Only as long as all segments stay open that are: maps of too many files would be kept.
        """
        position = self._position(key)
        facts = self._facts.get(key) or self._fact(key, position)
        num_snippets = facts["num_snippets"]
        features, start, stop = self._read_one(position, 0, num_snippets, copy=False)
        found = (facts["fields"], features, start, stop)
        if all(not values.flags.writeable for values in features.values()):
            for ranges in (start, stop):
                ranges.flags.writeable = False
            if len(self._ready) >= _MAX_READY:
                self._ready.clear()
            self._ready[key] = found
        return found

    def _fact(self, key: Key, position: int) -> dict[str, Any]:
        """What is known of a recording besides its rows, kept for the next time."""
        known = self._recordings.get(key)
        number = int(self._numbers[0][position])
        fields = {
            "dataset": key[0],
            "video_id": key[1],
            "num_frames": int(self._first.frames[number]),
            "fps": self._first.rates()[int(self._first.fps_codes[number])],
            "label": known.label if known else None,
            "class_name": known.class_name if known else None,
            "synthetic": known.synthetic if known else False,
            "intervals": known.intervals if known else None,
            "group": known.group if known else None,
            "split": known.split if known else "predict",
        }
        found = {"num_snippets": int(self._first.lengths[number]), "fields": fields}
        self._facts[key] = found
        return found

    def read_bags(
        self,
        keys: Sequence[Key],
        window: ArrayLike | None = None,
        *,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> BagBatch:
        """Many bags in one call: rows go from where they are stored straight into the batch.

        Args:
            keys: recordings ``[B]``; one may come several times.
            window: half-open row range of each, ``[B, 2]``, or one for all, ``[2]``; None takes
                whole bags.
            out: arrays to use again for the features, by name, of just the shape of this batch.

        Raises:
            StoreError: a set has no features of one of them.
            AlignmentError: the sets do not lie on the same frame ranges.
            BagError: a row range that is empty or leaves its recording.
            CorruptionError: stored bytes do not match their checksum.
            UrlError: the storage does not answer.
        """
        positions = self._find(keys)
        lengths = self._lengths[positions]
        windows = _windows(keys, window, lengths)
        given = out or {}
        features, start, stop = self._read(
            positions, lambda reader, numbers, name: reader.read(numbers, windows, given.get(name))
        )
        return self._batch(keys, positions, features, windows[:, 1] - windows[:, 0], start, stop)

    def read_rows(
        self, keys: Sequence[Key], rows: Sequence[NDArray[np.int64]], *, wide: bool = False
    ) -> BagBatch:
        """Single rows of many bags in one call, like :meth:`read_bags`.

        Args:
            keys: recordings ``[B]``; one may come several times.
            rows: the rows to take of each, in any order, not empty.
            wide: give features in float32, whatever is stored.

        Raises:
            BagError: a row that the recording does not have, or no rows.
            StoreError, AlignmentError, CorruptionError, UrlError: as :meth:`read_bags`.
        """
        positions = self._find(keys)
        counts = np.array([len(chosen) for chosen in rows], dtype=np.int64)
        table = _row_table(keys, rows, counts, self._lengths[positions])
        features, start, stop = self._read(
            positions, lambda reader, numbers, _: reader.read_rows(numbers, table, wide=wide)
        )
        return self._batch(keys, positions, features, counts, start, stop)

    def _batch(
        self,
        keys: Sequence[Key],
        positions: NDArray[np.int64],
        features: dict[str, NDArray[Any]],
        num_snippets: NDArray[np.int64],
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> BagBatch:
        return BagBatch(
            keys=tuple(keys),
            features=features,
            num_snippets=num_snippets,
            start=start,
            stop=stop,
            num_frames=self._first.frames[self._numbers[0][positions]],
            labels=self._labels[positions],
            synthetic=self._synthetic[positions],
        )

    # ------------------------------------------------------------------- the common order

    @cached_property
    def _positions(self) -> dict[Key, int]:
        """Places of the recordings in the order of :meth:`keys`."""
        first, *others = self._readers.values()
        common = (key for key in first if all(key in other for other in others))
        return {key: place for place, key in enumerate(common)}

    @cached_property
    def _numbers(self) -> list[NDArray[np.int64]]:
        """For each set, the number there of every recording in the common order."""
        keys = self._positions
        return [
            np.fromiter((reader.number(key) for key in keys), np.int64, len(keys))
            for reader in self._readers.values()
        ]

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._first.lengths[self._numbers[0]]
        return found

    @cached_property
    def _labels(self) -> NDArray[np.int8]:
        known = (self._recordings.get(key) for key in self._positions)
        labels = (-1 if r is None or r.label is None else r.label for r in known)
        return np.fromiter(labels, np.int8, len(self._positions))

    @cached_property
    def _synthetic(self) -> NDArray[np.bool_]:
        known = (self._recordings.get(key) for key in self._positions)
        return np.fromiter((r is not None and r.synthetic for r in known), np.bool_)

    @cached_property
    def _agreeing(self) -> NDArray[np.bool_]:
        """Whether all sets state the same snippets, frames and frame rate of a recording."""
        agree = np.ones(len(self._positions), dtype=np.bool_)
        rates: dict[Fraction, int] = {}
        facts = []
        for reader, numbers in zip(self._readers.values(), self._numbers, strict=True):
            codes = np.array([rates.setdefault(rate, len(rates)) for rate in reader.rates()])
            facts.append(
                (reader.lengths[numbers], reader.frames[numbers], codes[reader.fps_codes][numbers])
            )
        for others in facts[1:]:
            for one, other in zip(facts[0], others, strict=True):
                agree &= one == other
        return agree

    def _position(self, key: Key) -> int:
        found = self._positions.get(key)
        if found is None:
            for reader in self._readers.values():
                reader.number(key)  # says which set it is that lacks it
            raise AssertionError("unreachable: one of the sets lacks it")
        return found

    def _find(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        places = self._positions
        try:
            return np.array([places[key] for key in keys], dtype=np.int64)
        except KeyError as error:
            return np.array([self._position(key) for key in error.args])

    def _read_one(
        self, position: int, low: int, high: int, *, copy: bool
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]:
        """One bag's features by name, and the frame ranges that all sets agree on."""
        if len(self._readers) > 1 and not self._agreeing[position]:
            self._explain(position)
        features = {}
        start = stop = np.zeros(0, dtype=np.int64)
        for index, (name, reader) in enumerate(self._readers.items()):
            number = int(self._numbers[index][position])
            features[name], first, last = reader.read_one(number, low, high, copy=copy)
            if index == 0:
                start, stop = first, last
            elif not (np.array_equal(start, first) and np.array_equal(stop, last)):
                self._explain(position)
        return features, start, stop

    def _read(
        self,
        positions: NDArray[np.int64],
        read: Callable[[FeatureReader, NDArray[np.int64], str], Rows],
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]:
        """Features by name, and the frame ranges, after making sure that all sets agree on them."""
        several = len(self._readers) > 1
        if several and not self._agreeing[positions].all():
            self._explain(int(positions[np.argmin(self._agreeing[positions])]))
        features = {}
        start = stop = np.zeros((0, 0), dtype=np.int64)
        for index, (name, reader) in enumerate(self._readers.items()):
            features[name], first, last = read(reader, self._numbers[index][positions], name)
            if index == 0:
                start, stop = first, last
            elif not (np.array_equal(start, first) and np.array_equal(stop, last)):
                differs = ((start != first) | (stop != last)).any(axis=1)
                self._explain(int(positions[np.argmax(differs)]))
        return features, start, stop

    def _explain(self, position: int) -> NoReturn:
        """Raise the error that says how the sets differ on a recording."""
        key = list(self._positions)[position]
        (name, reader), *others = self._readers.items()
        start, stop = reader.ranges(key)
        frames, fps = reader.num_frames(key), reader.fps(key)
        for other_name, other in others:
            if (other.num_frames(key), other.fps(key)) != (frames, fps):
                raise AlignmentError(
                    f"{'/'.join(key)}: {name} saw {frames} frames at {fps}/s, {other_name} "
                    f"{other.num_frames(key)} at {other.fps(key)}/s; extract both from one decode."
                )
            other_start, other_stop = other.ranges(key)
            if np.array_equal(start, other_start) and np.array_equal(stop, other_stop):
                continue
            row = _first_difference((start, stop), (other_start, other_stop))
            raise AlignmentError(
                f"{'/'.join(key)}: {name} has {len(start)} snippets, {other_name} "
                f"{len(other_start)} over the same {frames} frames; they part at row {row} "
                f"({_range(start, stop, row)} and {_range(other_start, other_stop, row)}). Extract "
                "both on one snippet grid, or join them with outspike.store.join."
            )
        raise AssertionError("unreachable: the sets differ")


def _bag(
    fields: dict[str, Any],
    features: dict[str, NDArray[Any]],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> Bag:
    bag = object.__new__(Bag)  # a frozen dataclass takes longer to fill than a bag to read
    bag.__dict__.update(fields, features=features, start=start, stop=stop)
    return bag


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """A copy of a view; what is no view was made for this call."""
    return values if values.flags.writeable else values.copy()


def _windows(
    keys: Sequence[Key], window: ArrayLike | None, lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Row ranges ``[B, 2]``, each inside its recording and not empty."""
    windows = np.zeros((len(lengths), 2), dtype=np.int64)
    if window is None:
        windows[:, 1] = lengths
        return windows
    asked = np.asarray(window)
    if asked.dtype.kind not in "iu" or asked.shape not in ((2,), windows.shape):
        raise BagError(
            f"Row ranges are {asked.dtype} {asked.shape}; expected integers, [2] for all bags or "
            f"[{len(lengths)}, 2]."
        )
    windows[:] = asked
    bad = (windows[:, 0] < 0) | (windows[:, 0] >= windows[:, 1]) | (windows[:, 1] > lengths)
    if bad.any():
        worst = int(np.argmax(bad))
        raise BagError(
            f"{'/'.join(keys[worst])}: rows {windows[worst, 0]}:{windows[worst, 1]} of "
            f"{lengths[worst]} snippets; ask for a non-empty range inside the recording."
        )
    return windows


def _row_table(
    keys: Sequence[Key],
    rows: Sequence[NDArray[np.int64]],
    counts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Rows to take ``[B, S]``, -1 at padding, each inside its recording."""
    if len(rows) != len(keys) or not counts.all():
        raise BagError(f"{len(keys)} bags and rows of {len(rows)}; ask for at least one row each.")
    table = np.full((len(keys), int(counts.max())), -1, dtype=np.int64)
    filled = np.arange(table.shape[1]) < counts[:, None]
    table[filled] = np.concatenate(rows)
    bad = filled & ((table < 0) | (table >= lengths[:, None]))
    if bad.any():
        worst = int(np.argmax(bad.any(axis=1)))
        row = int(table[worst][bad[worst]][0])
        raise BagError(f"{'/'.join(keys[worst])}: row {row} of {lengths[worst]} snippets.")
    return table


def _row_range(key: Key, rows: slice | None, num_snippets: int) -> tuple[int, int]:
    if rows is None:
        return 0, num_snippets
    first = 0 if rows.start is None else int(rows.start)
    last = num_snippets if rows.stop is None else int(rows.stop)
    if rows.step not in (None, 1) or not 0 <= first < last <= num_snippets:
        raise BagError(
            f"{'/'.join(key)}: rows {rows.start}:{rows.stop}:{rows.step} of {num_snippets} "
            "snippets; ask for a non-empty range inside the recording, step 1."
        )
    return first, last


def _first_difference(
    one: tuple[NDArray[np.int64], NDArray[np.int64]],
    other: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> int:
    shared = min(len(one[0]), len(other[0]))
    differs = (one[0][:shared] != other[0][:shared]) | (one[1][:shared] != other[1][:shared])
    return int(np.argmax(differs)) if differs.any() else shared


def _range(start: NDArray[np.int64], stop: NDArray[np.int64], row: int) -> str:
    return f"[{start[row]}, {stop[row]})" if row < len(start) else "none"
