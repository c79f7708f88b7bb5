"""Training bags: windows that derive from (seed, step, bag), read straight into the batch.

On a local store, and on one on S3 whose shards are kept on a local disk, rows are read from mapped
files, which all workers of a node share: a batch is one call that copies the rows of its windows.
Elsewhere, and for windows that are made of whole bags, bags are held in memory one by one.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from outspike.detectors.bags import Bags, collate
from outspike.detectors.draws import draw_key
from outspike.detectors.windows import row_index
from outspike.recording import Recording
from outspike.store.bags import Bag, BagBatch
from outspike.store.catalog import Key
from outspike.train.plan import TrainingPlan, make_sampler, open_reader
from outspike.train.sampler import BalancedSampler
from outspike.train.step import World

logger = logging.getLogger(__name__)

_MEMORY_BYTES = 4_000_000_000
#: Window rules that take rows as they are stored: neighbours, or some here and there.
_NEIGHBOURS, _SCATTERED = ("all", "crop"), ("uniform", "msf_2025")


class BagCache:
    """Bags of a plan by recording, kept in memory up to a budget.

    On a local store they are views of mapped shards, which all workers of a node share. Of one on
    S3 what does not fit is read again each time. Of a split that withholds them, training
    recordings come without frame labels, whatever the store says of them.
    """

    def __init__(self, plan: TrainingPlan, *, max_bytes: int = _MEMORY_BYTES) -> None:
        self.reader = open_reader(plan)
        self._names = {spec.address: name for name, spec in plan.feature_sets.items()}
        self._frame_labels_allowed = plan.frame_labels_allowed
        self._held: dict[str, Bag] = {}
        self._room = max_bytes

    def __getitem__(self, recording: Recording) -> Bag:
        """The bag of a recording, its features under the names the detector uses."""
        if recording.key in self._held:
            return self._held[recording.key]
        bag = self.reader.read((recording.dataset, recording.video_id), copy=False)
        features = {self._names[address]: rows for address, rows in bag.features.items()}
        withheld = bag.split == "train" and bag.label != 0 and not self._frame_labels_allowed
        bag = dataclasses.replace(
            bag, features=features, intervals=None if withheld else bag.intervals
        )
        size = sum(rows.nbytes for rows in features.values() if rows.flags.writeable)  # no views
        if size <= self._room:
            self._room -= size
            self._held[recording.key] = bag
        return bag

    def rows(
        self, keys: Sequence[Key], rows: Sequence[NDArray[np.int64]], *, neighbours: bool
    ) -> BagBatch:
        """Some rows of some bags as one batch, features under the names the detector uses."""
        if neighbours:
            ranges = [(int(chosen[0]), int(chosen[-1]) + 1) for chosen in rows]
            batch = self.reader.read_bags(keys, ranges)
        else:
            batch = self.reader.read_rows(keys, rows, wide=True)
        features = {self._names[address]: found for address, found in batch.features.items()}
        return dataclasses.replace(batch, features=features)


class TrainingBags:
    """The batches of a run over some of its plan's recordings.

    Args:
        plan: what is trained.
        recordings: those to draw from; by default the plan's training recordings.
        cache: shared with other sources of the same plan.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        recordings: Sequence[Recording] | None = None,
        cache: BagCache | None = None,
    ) -> None:
        chosen = tuple(plan.training if recordings is None else recordings)
        self._by_key = {recording.key: recording for recording in chosen}
        self._widths = {name: spec.width for name, spec in plan.feature_sets.items()}
        self._config = plan.config
        self._classes: Sequence[str] = getattr(plan.config.detector, "classes", ())
        self._learns_frames = plan.learns_frames
        self._cache = cache or BagCache(plan)
        self._random = np.random.RandomState()
        self._reads_rows = (
            plan.config.window.rule in (*_NEIGHBOURS, *_SCATTERED)
            and self._cache.reader.is_mapped
            and not plan.learns_frames  # whose windows are drawn by the labels of their frames
        )

    @cached_property
    def _sampler(self) -> BalancedSampler:
        return make_sampler(self._config, tuple(self._by_key.values()))

    def batch(self, step: int, world: World) -> Bags:
        """This rank's bags of a step, cut into windows."""
        keys = self._sampler.share(step, rank=world.rank, world_size=world.size)
        recordings = [self._by_key[key] for key in keys]
        bags = self._gathered(recordings, step) if self._reads_rows else None
        return self._collated(recordings, step) if bags is None else bags

    def whole(self) -> Iterator[Bags]:
        """Every bag by itself, all its rows, in the order of their names."""
        for key in sorted(self._by_key):
            yield collate([self._cache[self._by_key[key]]], widths=self._widths)

    def _collated(self, recordings: Sequence[Recording], step: int) -> Bags:
        """A batch made of whole bags."""
        return collate(
            [self._cache[recording] for recording in recordings],
            widths=self._widths,
            window=self._config.window,
            seed=self._config.seed,
            step=step,
            classes=self._classes,
            supervised=self._learns_frames,
        )

    def _gathered(self, recordings: Sequence[Recording], step: int) -> Bags | None:
        """The same batch, bit for bit, of which only the rows of its windows are read.

        None where values are not finite, of which the other way tells whose they are.
        """
        keys = [(recording.dataset, recording.video_id) for recording in recordings]
        rows = self._windows(recordings, keys, step)
        neighbours = self._config.window.rule in _NEIGHBOURS
        read = self._cache.rows(keys, rows, neighbours=neighbours)
        features = {
            name: torch.from_numpy(rows).to(torch.float32) for name, rows in read.features.items()
        }
        if not all(_is_finite(rows) for rows in features.values()):
            return None
        names = tuple(recording.key for recording in recordings)
        seed = self._config.seed
        return Bags(
            features=features,
            num_snippets=torch.from_numpy(read.num_snippets),
            labels=torch.tensor([-1.0 if r.label is None else float(r.label) for r in recordings]),
            class_ids=torch.tensor([self._class_id(r.class_name) for r in recordings]),
            synthetic=torch.tensor([r.synthetic for r in recordings]),
            frame_ranges=torch.from_numpy(np.stack([read.start, read.stop], axis=2)),
            bag_ids=names,
            draw_keys=torch.tensor([draw_key(seed, step, n) for n in names], dtype=torch.int64),
            step=step,
        )

    def _windows(
        self, recordings: Sequence[Recording], keys: Sequence[Key], step: int
    ) -> list[NDArray[np.int64]]:
        """The rows that the window rule picks of each bag."""
        lengths = self._cache.reader.lengths(keys).tolist()
        config, random, rows = self._config, self._random, []
        for recording, length in zip(recordings, lengths, strict=True):
            # seeding a generator again is three times as fast as making one
            random.seed(draw_key(config.seed, step, f"window/{recording.key}") & 0xFFFFFFFF)
            rows.append(row_index(config.window, length, label=recording.label, rng=random))
        return rows

    def _class_id(self, name: str | None) -> int:
        return self._classes.index(name) if name in self._classes else -1


def _is_finite(rows: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite: by the sum, and one by one where that overflows."""
    return bool(torch.isfinite(rows.sum())) or bool(torch.isfinite(rows).all())
