"""Training bags: read once, kept in memory, cut into windows that derive from (seed, step, bag)."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

from outspike.detectors.bags import Bags, collate
from outspike.recording import Recording
from outspike.store.bags import Bag
from outspike.train.plan import TrainingPlan, make_sampler, open_reader
from outspike.train.sampler import BalancedSampler
from outspike.train.step import World

_MEMORY_BYTES = 4_000_000_000


class BagCache:
    """Bags of a plan by recording, kept in memory up to a budget.

    On a local store they are views of mapped shards, which all workers of a node share. Of one on
    S3 what does not fit is read again each time. Of a split that withholds them, training
    recordings come without frame labels, whatever the store says of them.
    """

    def __init__(self, plan: TrainingPlan, *, max_bytes: int = _MEMORY_BYTES) -> None:
        self._reader = open_reader(plan)
        self._names = {spec.address: name for name, spec in plan.feature_sets.items()}
        self._frame_labels_allowed = plan.frame_labels_allowed
        self._held: dict[str, Bag] = {}
        self._room = max_bytes

    def __getitem__(self, recording: Recording) -> Bag:
        """The bag of a recording, its features under the names the detector uses."""
        if recording.key in self._held:
            return self._held[recording.key]
        bag = self._reader.read((recording.dataset, recording.video_id), copy=False)
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
        self._learns_frames = plan.learns_frames
        self._cache = cache or BagCache(plan)

    @cached_property
    def _sampler(self) -> BalancedSampler:
        return make_sampler(self._config, tuple(self._by_key.values()))

    def batch(self, step: int, world: World) -> Bags:
        """This rank's bags of a step, cut into windows."""
        keys = self._sampler.share(step, rank=world.rank, world_size=world.size)
        return collate(
            [self._cache[self._by_key[key]] for key in keys],
            widths=self._widths,
            window=self._config.window,
            seed=self._config.seed,
            step=step,
            classes=getattr(self._config.detector, "classes", ()),
            supervised=self._learns_frames,
        )

    def whole(self) -> Iterator[Bags]:
        """Every bag by itself, all its rows, in the order of their names."""
        for key in sorted(self._by_key):
            yield collate([self._cache[self._by_key[key]]], widths=self._widths)
