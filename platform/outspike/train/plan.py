"""What a run will train on, worked out from the catalog before anything starts.

Everything a user can get wrong about the data is found here, on the driver, in one line: a store or
version that is not there, features of another width or fingerprint, a class without bags.
"""

import dataclasses
import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from outspike import encoders, urls
from outspike.config import EncoderConfig, StoreConfig, TrainConfig
from outspike.datasets.catalog import DATASETS, is_supervised
from outspike.detectors.build import DETECTORS, build
from outspike.errors import ConfigError, DatasetError, StoreError
from outspike.evaluate.protocols import TEST_SELECTED, get_protocol
from outspike.recording import Recording
from outspike.store.bags import BagReader
from outspike.store.cache import ShardCache, default_folder
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.train.accumulate import check_divisible
from outspike.train.folds import folds, holdout
from outspike.train.sampler import BalancedSampler

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A resolved config and the recordings it trains on; small, and picklable."""

    config: TrainConfig
    """With both versions of the store filled in."""
    feature_sets: dict[str, FeatureSetSpec]
    """By the names the detector uses."""
    training: tuple[Recording, ...]
    held_out: tuple[Recording, ...]
    """Recordings that choose the best step; none with selection ``last``."""
    without_features: tuple[str, ...]
    """Keys of training recordings that are left out, because a feature set lacks them."""
    last_step: int
    """Where training ends; schedules are stretched to ``config.steps`` all the same."""

    @property
    def encoders_match(self) -> bool:
        """Whether every feature set is made by the config's encoders, or was imported."""
        wanted = {name for name, spec in self.feature_sets.items() if not spec.is_imported}
        return {encoder.kind for encoder in self.config.encoders} >= wanted

    @property
    def frame_labels_allowed(self) -> bool:
        """Whether the config's split lets training see frame labels."""
        return is_supervised(self.config.data.dataset, self.config.data.split)

    @property
    def learns_frames(self) -> bool:
        """Whether the detector learns from frame labels; no plan says so of another split."""
        return DETECTORS[self.config.detector.kind].needs_frame_labels

    @property
    def by_workers(self) -> bool:
        """Whether Ray Train workers share the batches; rules without gradients have none."""
        return self.config.num_workers > 0 and DETECTORS[self.config.detector.kind].trainable

    def table(self) -> list[tuple[str, object]]:
        """What ``--dry-run`` shows."""
        config = self.config
        return [
            ("detector", config.detector.kind),
            ("learns from", "frame labels" if self.learns_frames else "labels of recordings"),
            ("store", f"{config.store.url} version {config.store.version}"),
            *((f"features {n}", spec.address) for n, spec in self.feature_sets.items()),
            ("training bags", _counts(self.training)),
            ("held out", _counts(self.held_out) if self.held_out else "none"),
            ("without features", len(self.without_features)),
            ("steps", f"{config.steps} of {config.bags_per_batch} bags"),
            ("workers", config.num_workers),
        ]


def make_plan(config: TrainConfig, *, splits: Sequence[str] = ("train",)) -> TrainingPlan:
    """Open the store, pin its versions, and check that the config can be trained.

    Args:
        config: what to train.
        splits: whose recordings are trained on; more than ``train`` only where each is then scored
            by a model that did not see it (:mod:`outspike.train.crossfit`).

    Raises:
        StoreError: no such store or version, or a feature set is absent or ambiguous.
        ConfigError: features of another width than the detector reads, or made by other settings
            than the config's encoders have; a selection that the protocol does not allow; a
            detector that learns from frame labels on a split that withholds them.
        DatasetError: a class without bags, or fewer than a step needs; a detector that learns from
            frame labels where the store has none.
    """
    _check_selection(config)
    store = FeatureStore.open(
        config.store.url,
        version=config.store.version,
        recordings_version=config.store.recordings_version,
    )
    config = dataclasses.replace(
        config,
        store=StoreConfig(
            url=config.store.url,
            version=store.version,
            recordings_version=store.recordings_version,
        ),
    )
    feature_sets = _feature_sets(config, store)
    found, without = [], []
    for split in splits:
        there, lacking = _recordings(config, store, feature_sets, split=split)
        found += there
        without += lacking
    training, held_out = _select(config, store, feature_sets, found)
    _check_supervision(config, training)
    if without:
        logger.warning(
            "training recordings without features: %d of %d (first: %s); they are left out",
            len(without),
            len(without) + len(found),
            without[0],
        )
    plan = TrainingPlan(
        config=config,
        feature_sets=feature_sets,
        training=tuple(training),
        held_out=tuple(held_out),
        without_features=tuple(without),
        last_step=config.steps if build(config.detector).trainable else 0,
    )
    if plan.last_step:
        make_sampler(config, plan.training)
        check_compute(config)
    return plan


def check_compute(config: TrainConfig) -> None:
    """Raise ConfigError where a way to compute cannot be had, before anything starts."""
    check_divisible(build(config.detector), config.compute.accumulate)
    compiler = os.environ.get("CXX", "g++")
    if config.compute.compile and not config.gpus_per_worker and shutil.which(compiler) is None:
        raise ConfigError(
            f"compute.compile=True needs a C++ compiler on the workers, and {compiler!r} is not "
            "there; install one (or name it in CXX), or leave compile out."
        )


def make_sampler(config: TrainConfig, bags: tuple[Recording, ...]) -> BalancedSampler:
    """The sampler of a config over some of its recordings."""
    return BalancedSampler(
        bags,
        bags_per_batch=config.bags_per_batch,
        synthetic_per_batch=config.synthetic_per_batch,
        seed=config.seed,
    )


def open_reader(plan: TrainingPlan) -> BagReader:
    """A reader of the plan's feature sets at the plan's versions; bags carry their addresses."""
    where = plan.config.store
    store = FeatureStore.open(
        where.url, version=where.version, recordings_version=where.recordings_version
    )
    names = [spec.address for spec in plan.feature_sets.values()]
    return BagReader(store, names, cache=_shard_cache(plan.config, store, names))


def _shard_cache(
    config: TrainConfig, store: FeatureStore, names: Sequence[str]
) -> ShardCache | None:
    """Where a node keeps the shards of a store on S3; None where that would not help.

    Features that do not fit would be fetched and thrown away in turns, whole shards for a few rows.
    """
    max_bytes = int(config.shard_cache_gb * 1e9)
    if urls.is_local(store.url) or not max_bytes:
        return None
    needed = sum(store.features(name).num_bytes for name in names)
    if needed > max_bytes:
        logger.warning(
            "features of %.1f GB do not fit the shard cache of %.1f GB and are read from %s each "
            "time; raise shard_cache_gb where the disk has room",
            needed / 1e9,
            max_bytes / 1e9,
            store.url,
        )
        return None
    return ShardCache(config.shard_cache or default_folder(), max_bytes)


def _check_selection(config: TrainConfig) -> None:
    if get_protocol(config.protocol).cross_fit != "none":
        raise ConfigError(
            f"protocol={config.protocol!r} scores recordings by models that did not train on them, "
            "so no single model is judged by it; run it with jobs/crossfit.py."
        )
    if config.selection.split == "test" and not config.protocol.endswith(TEST_SELECTED):
        raise ConfigError(
            f"selection.split='test' chooses on the test split, which protocol {config.protocol!r} "
            f"forbids; use 'holdout' or 'cross_validation', or name '{config.protocol}"
            f"{TEST_SELECTED}', which stamps it on every result."
        )


def _check_supervision(config: TrainConfig, training: list[Recording]) -> None:
    """Refuse frame labels where the split withholds them, or a recording has none."""
    data, kind = config.data, config.detector.kind
    if not DETECTORS[kind].needs_frame_labels:
        return
    if not is_supervised(data.dataset, data.split):
        source = DATASETS.get(data.dataset)
        splits = sorted(source.supervised) if source else []
        raise ConfigError(
            f"Detector {kind!r} learns from frame labels, which split {data.split!r} of "
            f"{data.dataset} withholds; fully supervised splits of it: "
            f"{', '.join(splits) or 'none'}."
        )
    bare = sorted(recording.key for recording in training if recording.intervals is None)
    if bare:
        raise DatasetError(
            f"{len(bare)} training recordings have no frame labels in the store (first: {bare[0]}),"
            f" and detector {kind!r} learns from them; annotate them, and register split "
            f"{data.split!r} by jobs/extract.py with --data.split {data.split}, which extracts "
            "nothing again."
        )


def _feature_sets(config: TrainConfig, store: FeatureStore) -> dict[str, FeatureSetSpec]:
    made: dict[str, EncoderConfig] = {encoder.kind: encoder for encoder in config.encoders}
    chosen: dict[str, FeatureSetSpec] = {}
    for name, width in build(config.detector).feature_sets.items():
        if name in made:
            chosen[name] = _same_as(encoders.build(made[name]).spec(), store)
        else:
            chosen[name] = store.resolve(name)
        found = chosen[name]
        if found.width != width:
            raise ConfigError(
                f"{config.store.url}: features {found.address} are {found.width} wide, detector "
                f"{config.detector.kind!r} reads {width}; give the detector that width, or extract "
                "features it can read."
            )
    return chosen


def _same_as(wanted: FeatureSetSpec, store: FeatureStore) -> FeatureSetSpec:
    """The feature set of exactly this fingerprint, or an error that names what differs."""
    stored = store.feature_sets()
    if wanted.address in stored:
        return stored[wanted.address]
    others = [spec for spec in stored.values() if spec.name == wanted.name]
    if not others:
        return store.resolve(wanted.name)  # says what there is
    different = [
        f"{key}: stored {other.document.get(key)!r}, config {wanted.document.get(key)!r}"
        for other in others
        for key in sorted(set(other.document) | set(wanted.document))
        if other.document.get(key) != wanted.document.get(key)
    ]
    raise ConfigError(
        f"{store.url}: its {wanted.name} features ({', '.join(s.address for s in others)}) were "
        f"made by another encoder than the config's ({wanted.address}); {'; '.join(different)}. "
        "Extract again with the config's encoder, or set the config to the stored settings."
    )


def _recordings(
    config: TrainConfig,
    store: FeatureStore,
    feature_sets: dict[str, FeatureSetSpec],
    *,
    split: str,
) -> tuple[list[Recording], list[str]]:
    """Labelled recordings of a split that all feature sets have, and the keys of those they lack.

    Generated recordings of any data set join the training split when a batch asks for some.
    """
    modality = get_protocol(config.protocol).modality
    wanted = {
        key: recording
        for key, recording in store.recordings_by_key().items()
        if recording.split == split
        and modality in ("any", recording.modality)
        and (
            config.synthetic_per_batch > 0
            if recording.synthetic
            else recording.dataset == config.data.dataset
        )
    }
    if not wanted:
        known = Counter((r.dataset, r.split) for r in store.recordings_by_key().values())
        raise DatasetError(
            f"{store.url}: no recordings of data set {config.data.dataset!r}, split {split!r}; "
            f"there are {', '.join(f'{n} of {d}/{s}' for (d, s), n in sorted(known.items()))}."
        )
    reader = BagReader(store, [spec.address for spec in feature_sets.values()])
    there = set(reader.keys())
    found = [wanted[key] for key in sorted(wanted) if key in there]
    if not found:
        raise StoreError(
            f"{store.url} version {store.version}: none of the {len(wanted)} recordings of "
            f"{config.data.dataset}/{split} has features in all of {', '.join(feature_sets)}; "
            "extract them first."
        )
    return found, [wanted[key].key for key in sorted(wanted) if key not in there]


def _select(
    config: TrainConfig,
    store: FeatureStore,
    feature_sets: dict[str, FeatureSetSpec],
    found: list[Recording],
) -> tuple[list[Recording], list[Recording]]:
    selection = config.selection
    if selection.split == "holdout":
        return holdout(found, selection.share, seed=config.seed)
    if selection.split == "cross_validation":
        folds(found, selection.num_folds, seed=config.seed)  # refuse too many folds now
    if selection.split == "test":
        return found, _recordings(config, store, feature_sets, split="test")[0]
    return found, []


def _counts(recordings: tuple[Recording, ...]) -> str:
    numbers = Counter((r.label, r.synthetic) for r in recordings)
    words = {(0, False): "normal", (1, False): "anomalous", (None, False): "unlabelled"}
    made = sum(count for (_, synthetic), count in numbers.items() if synthetic)
    parts = [f"{numbers[kind]} {word}" for kind, word in words.items() if numbers[kind]]
    return ", ".join([*parts, f"{made} generated"] if made else parts)
