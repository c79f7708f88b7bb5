"""Published checkpoints as models of ours: checked strictly, and kept as bundles."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outspike.config import DetectorConfig, from_json, to_json
from outspike.detectors import import_checkpoint
from outspike.detectors.base import Detector
from outspike.detectors.checkpoints import read_state
from outspike.detectors.ief_vad.published import config_of
from outspike.errors import ConfigError
from outspike.scoring.bundle import Bundle
from outspike.store.store import FeatureStore

logger = logging.getLogger(__name__)

Rows = list[tuple[str, object]]

#: Settings that a file of this detector does not tell and that change its scores.
_UNTOLD = {"ief_vad": ("num_heads", "refinement_rate", "nu", "epsilon", "noise_model")}


def import_model(
    name: str,
    path: str,
    *,
    settings: Sequence[str] = (),
    published_settings: bool = False,
    store: str | None = None,
    protocol: str | None = None,
    out: str | None = None,
) -> Rows:
    """Read a published checkpoint and, where a store is given, keep it as a bundle.

    Args:
        name: the detector.
        path: the published file.
        settings: ``FIELD=VALUE`` of the detector's config, over what the file implies.
        published_settings: take what the file does not tell from the publication.
        store: store with the imported features that the detector reads; the bundle is bound to its
            present versions.
        protocol: rule it is to be judged by.
        out: folder of the bundle.

    Returns:
        The table that ends the command.

    Raises:
        CheckpointError: entries are missing, unknown, of another shape or not finite; all listed.
        ConfigError: settings that the file cannot supply, or features of another width.
        StoreError: no such store, or it lacks a feature set that the detector reads.
    """
    if (store is None) != (out is None) or (store is None) != (protocol is None):
        raise ConfigError(
            "A bundle needs three things: store= (whose features the model reads), protocol= and "
            "out=. Give all of them, or none to check the file only."
        )
    detector = _detector(name, path, settings, published_settings)
    rows: Rows = [
        ("detector", type(detector).__name__),
        ("file", path),
        ("parameters", sum(p.numel() for p in detector.parameters())),
        *((f"reads {n}", f"{width} wide") for n, width in detector.feature_sets.items()),
    ]
    if store is None or out is None or protocol is None:
        return [*rows, ("bundle", "none asked for: the file was checked only")]
    bundle = _bundle(detector, path, store, protocol)
    bundle.save(Path(out))
    return [
        *rows,
        *((f"features {s.name}", s.address) for s in bundle.feature_sets),
        ("bundle", out),
    ]


def _detector(name: str, path: str, settings: Sequence[str], published_settings: bool) -> Detector:
    given = dict(map(_setting, settings))
    untold = [field for field in _UNTOLD.get(name, ()) if field not in given]
    if untold and not published_settings:
        raise ConfigError(
            f"{path}: the file does not tell {', '.join(untold)}; give each as a setting "
            "(num_heads=8), or ask for the published ones."
        )
    if name == "ief_vad":
        return import_checkpoint(name, path, _with(config_of(read_state(path)), given))
    found = import_checkpoint(name, path)
    return found if not given else import_checkpoint(name, path, _with(found.config, given))


def _with(config: DetectorConfig, given: Mapping[str, Any]) -> DetectorConfig:
    """The config with some fields replaced; unknown names and wrong types are errors."""
    names = {field.name for field in dataclasses.fields(config)}
    unknown = sorted(set(given) - names)
    if unknown:
        raise ConfigError(
            f"{config.kind} has no setting {', '.join(unknown)}; it has {', '.join(sorted(names))}."
        )
    changed: DetectorConfig = from_json(type(config), {**to_json(config), **given})
    return changed


def _setting(text: str) -> tuple[str, Any]:
    field, separator, value = text.partition("=")
    if not separator or not field:
        raise ConfigError(f"Setting {text!r}; expected FIELD=VALUE.")
    try:
        return field, json.loads(value)
    except ValueError:  # a word
        return field, value


def _bundle(detector: Detector, path: str, store_url: str, protocol: str) -> Bundle:
    store = FeatureStore.open(store_url)
    specs = [store.resolve(name) for name in detector.feature_sets]
    for (name, width), spec in zip(detector.feature_sets.items(), specs, strict=True):
        if spec.name != name or spec.width != width:
            raise ConfigError(
                f"The detector reads {name!r}, {width} wide; {store_url} has {spec.name!r}, "
                f"{spec.width} wide. Set its feature set to the name in the store."
            )
        if not spec.is_imported:
            raise ConfigError(
                f"{spec.address} was extracted here: train on it, or import the features that "
                "belong to the published weights."
            )
    return Bundle.of(
        detector,
        (),
        tuple(specs),
        protocol=protocol,
        provenance={
            "imported_from": path,
            "store": store.url,
            "catalog_version": store.version,
            "recordings_version": store.recordings_version,
            "feature_sets": [spec.address for spec in specs],
            "fingerprints": [spec.fingerprint for spec in specs],
        },
    )
