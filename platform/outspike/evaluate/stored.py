"""Scores of a protocol's recordings from stored features: of a bundle, and of the floor.

Both read the store at the versions pinned in the bundle's provenance, so that a figure can be
computed again on exactly the rows it was first computed on.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from outspike import detectors
from outspike.config import MotionFloorConfig
from outspike.detectors.bags import collate
from outspike.errors import CheckpointError, ConfigError, DatasetError
from outspike.evaluate.policies import score_under
from outspike.evaluate.protocols import Protocol, get_protocol
from outspike.scoring.bundle import Bundle
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.store.bags import Bag, BagReader
from outspike.store.store import FeatureStore

logger = logging.getLogger(__name__)


def open_pinned(bundle: Bundle) -> FeatureStore:
    """The store that a bundle was trained on, at the versions it was trained on.

    Raises:
        CheckpointError: the bundle does not say which.
        StoreError: the store or its version is not there.
    """
    pinned: dict[str, Any] = dict(bundle.provenance)
    absent = {"store", "catalog_version", "recordings_version"} - pinned.keys()
    if absent:
        raise CheckpointError(
            f"The bundle does not say which recordings it was trained on (no {sorted(absent)}); "
            "only bundles made by jobs/train.py can be judged."
        )
    return FeatureStore.open(
        pinned["store"],
        version=int(pinned["catalog_version"]),
        recordings_version=int(pinned["recordings_version"]),
    )


def score_bundle(
    bundle: Bundle, *, protocol: str | None = None, like: Bundle | None = None
) -> list[VideoScores]:
    """Scores of the protocol's test recordings.

    Args:
        bundle: the detector.
        protocol: name of the rule; the one the bundle was registered under by default.
        like: score under this bundle's protocol and store versions instead (two bundles are only
            comparable on the same recordings).

    Raises:
        StoreError: the store, its version, or a feature set the detector reads is not there.
        DatasetError: no test recording of the protocol's data set has features.
        AlignmentError: the protocol scores a crop that a recording does not have.
    """
    pinned = bundle if like is None else like
    rule = get_protocol(protocol or pinned.protocol)
    return score_under(rule, bundle.detector, bundle_bags(bundle, rule, pinned))


def bundle_bags(bundle: Bundle, protocol: Protocol, pinned: Bundle) -> Iterator[Bag]:
    """The protocol's test recordings with what a bundle's detector reads, at the store versions of
    a bundle.

    Raises:
        StoreError, DatasetError: as :func:`score_bundle`.
    """
    addresses = {spec.name: spec.address for spec in bundle.feature_sets}
    reader = BagReader(open_pinned(pinned), [addresses[n] for n in bundle.detector.feature_sets])
    return (renamed(bag, addresses) for bag in protocol_bags(reader, protocol, "test"))


def floor_scores(bundle: Bundle, *, protocol: str | None = None) -> list[VideoScores]:
    """The motion floor, fitted on the split's own training recordings, on the same test ones."""
    rule = get_protocol(protocol or bundle.protocol)
    return floor_of(open_pinned(bundle), rule)


def floor_of(store: FeatureStore, protocol: Protocol) -> list[VideoScores]:
    """Fit ``motion_floor`` on the protocol's training recordings and score its test recordings.

    Protocols judged by whole videos take the logistic form, the others the per-cell deviations.

    Raises:
        StoreError: the store has no ``frame-motion`` features; extract them first.
    """
    by_video = protocol.primary.startswith("video")
    config = MotionFloorConfig(form="logistic" if by_video else "normal_deviation")
    detector = detectors.build(config)
    reader = BagReader(store, list(detector.feature_sets))
    training = protocol_bags(reader, protocol, "train")
    detector.fit(collate([bag]) for bag in training if not bag.synthetic)
    return score_bags(detector, protocol_bags(reader, protocol, "test"))


def protocol_bags(reader: BagReader, protocol: Protocol, split: str) -> Iterator[Bag]:
    """Bags of one split of the protocol's data set, in the order of their ids.

    Raises:
        ConfigError: the protocol cross-fits, so one model has seen some of what it would score.
        DatasetError: the store has none.
    """
    if protocol.cross_fit != "none":
        raise ConfigError(
            f"Protocol {protocol.name!r} scores recordings by models that did not train on them; "
            "run it with jobs/crossfit.py."
        )
    held = reader.keys()
    dataset = protocol.dataset
    if split == "train" and protocol.training_dataset is not None:
        dataset = protocol.training_dataset
    keys = [
        key
        for key in held
        if (known := reader.recording(key)) is not None
        and known.split == split
        and dataset in ("*", known.dataset)
        and protocol.modality in ("any", known.modality)
    ]
    if not keys:
        raise DatasetError(
            f"{reader.store.url} version {reader.store.version} holds no {split} recordings of "
            f"{dataset!r} for protocol {protocol.name!r}; extract them first."
        )
    return (reader.read(key) for key in keys)


def renamed(bag: Bag, addresses: dict[str, str]) -> Bag:
    """A bag read by feature-set address under the names that detectors use."""
    features = {name: bag.features[a] for name, a in addresses.items() if a in bag.features}
    return Bag(**{**bag.__dict__, "features": features})


def provenance_of(store: FeatureStore, names: Sequence[str]) -> dict[str, Any]:
    """What a bundle says of the data it comes from: store, versions, feature sets."""
    specs = [store.resolve(name) for name in names]
    return {
        "store": store.url,
        "catalog_version": store.version,
        "recordings_version": store.recordings_version,
        "feature_sets": [spec.address for spec in specs],
        "fingerprints": [spec.fingerprint for spec in specs],
    }
