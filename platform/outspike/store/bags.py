"""Bags: all snippets of one recording, from one or more feature sets, joined on frame ranges."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, BagError, StoreError
from outspike.recording import Recording
from outspike.store.catalog import Key
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


class BagReader:
    """Bags of every recording that all the feature sets asked for have.

    Args:
        store: an open store; its versions decide which rows are read.
        names: feature sets by name, address or prefix; ``Bag.features`` uses the same names.
    """

    def __init__(self, store: FeatureStore, names: Sequence[str]) -> None:
        if not names or len(set(names)) != len(names):
            raise StoreError(f"Feature sets {list(names)}: name at least one, and each once.")
        self.store = store
        self._readers = {name: store.features(name) for name in names}
        self._recordings = store.recordings_by_key()

    def keys(self) -> list[Key]:
        """``(dataset, video_id)`` of every recording that has features in all sets, in order."""
        first, *others = self._readers.values()
        return [key for key in first if all(key in other for other in others)]

    def width(self, name: str) -> int:
        """``D`` of one of the sets."""
        return self._readers[name].spec.width

    def num_crops(self, name: str) -> int:
        """``K`` of one of the sets."""
        return self._readers[name].spec.num_crops

    def num_snippets(self, key: Key) -> int:
        """``S`` of a recording, from the catalog alone."""
        return next(iter(self._readers.values())).num_snippets(key)

    def recording(self, key: Key) -> Recording | None:
        """What people say of a recording; None where nobody has registered it."""
        return self._recordings.get(key)

    def read(self, key: Key, rows: slice | None = None) -> Bag:
        """The bag of one recording, or snippets ``rows.start`` to ``rows.stop`` of it.

        Raises:
            StoreError: a set has no features of it.
            AlignmentError: the sets do not lie on the same frame ranges.
            BagError: a row range that is empty or leaves the recording.
            CorruptionError: stored bytes do not match their checksum.
        """
        start, stop = self._aligned(key)
        first, last = _row_range(key, rows, len(start))
        features = {
            name: np.ascontiguousarray(reader.rows(key, first, last).transpose(1, 0, 2))
            for name, reader in self._readers.items()
        }
        reader = next(iter(self._readers.values()))
        known = self._recordings.get(key)
        return Bag(
            dataset=key[0],
            video_id=key[1],
            features=features,
            start=start[first:last],
            stop=stop[first:last],
            num_frames=reader.num_frames(key),
            fps=reader.fps(key),
            label=known.label if known else None,
            class_name=known.class_name if known else None,
            synthetic=known.synthetic if known else False,
            intervals=known.intervals if known else None,
            group=known.group if known else None,
            split=known.split if known else "predict",
        )

    def _aligned(self, key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frame ranges of a recording, after making sure that all sets agree on them."""
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
                "both on one snippet grid."
            )
        return start, stop


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
