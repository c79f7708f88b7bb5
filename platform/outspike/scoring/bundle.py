"""A bundle: everything needed to score raw recordings with one trained detector, in one folder.

``weights.safetensors`` holds the detector's state; ``bundle.json`` its config, the encoders it
reads, the identity of the features it was trained on, the protocol it was judged by, and where it
comes from. Nothing in it is executed on loading.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from outspike.config import DetectorConfig, EncoderConfig, from_json, to_json
from outspike.detectors.base import Detector
from outspike.detectors.build import build as build_detector
from outspike.encoders.base import Encoder
from outspike.encoders.catalog import build as build_encoder
from outspike.errors import AlignmentError, CheckpointError, ConfigError
from outspike.store.fingerprint import FeatureSetSpec

_FORMAT = 1
_WEIGHTS, _DOCUMENT = "weights.safetensors", "bundle.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One trained detector with all it needs to read raw recordings.

    Raises:
        ConfigError: the detector reads a feature set that no encoder of the bundle makes.
        AlignmentError: the encoders it reads do not share one snippet grid.
    """

    detector_config: DetectorConfig
    weights: Mapping[str, Tensor]
    encoders: tuple[EncoderConfig, ...]
    feature_sets: tuple[FeatureSetSpec, ...]
    """Identity of the features the detector was trained on: one per encoder, and imported ones,
    which no encoder makes. With imported ones only stored features can be scored."""
    protocol: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: store, catalog version, config hash, commit, metrics, what the writer knows."""

    def __post_init__(self) -> None:
        made = [encoder.kind for encoder in self.encoders]
        described = [spec.name for spec in self.feature_sets]
        came = [spec.name for spec in self.feature_sets if spec.is_imported]
        if sorted([*made, *came]) != sorted(described) or len(set(described)) != len(described):
            raise ConfigError(
                f"A bundle describes the features of each of its encoders once; encoders: {made}, "
                f"features described: {described}, of which imported: {came}."
            )
        grids = {encoder.kind: encoder.grid for encoder in self.encoders}
        if len(set(grids.values())) > 1:
            raise AlignmentError(
                "The encoders of a bundle must share one snippet grid, found "
                + "; ".join(f"{kind}: {grid.document()}" for kind, grid in grids.items())
                + ". Extract them again on the same grid."
            )

    @classmethod
    def of(
        cls,
        detector: Detector,
        encoder_configs: tuple[EncoderConfig, ...],
        feature_sets: tuple[FeatureSetSpec, ...],
        *,
        protocol: str,
        provenance: Mapping[str, Any],
    ) -> "Bundle":
        """A bundle of a detector as it is now; its state is copied to the CPU."""
        state = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in detector.state_dict().items()
        }
        return cls(
            detector_config=detector.config,
            weights=state,
            encoders=encoder_configs,
            feature_sets=feature_sets,
            protocol=protocol,
            provenance=provenance,
        )

    # ------------------------------------------------------------------------- use

    @cached_property
    def detector(self) -> Detector:
        """The detector, in evaluation mode on the CPU.

        Raises:
            CheckpointError: the stored state does not fit the config; lists what differs.
            ConfigError: the detector reads features that the bundle does not make.
        """
        detector = build_detector(self.detector_config)
        _load_strictly(detector, self.weights)
        made = {spec.name: spec.width for spec in self.feature_sets}
        for name, width in detector.feature_sets.items():
            if made.get(name) != width:
                raise ConfigError(
                    f"The detector reads {name!r}, {width} wide; the bundle's encoders make {made}."
                )
        return detector.eval()

    @cached_property
    def built_encoders(self) -> tuple[Encoder, ...]:
        """The encoders, weights loaded, proven to make the features the detector was trained on.

        Raises:
            ConfigError: an encoder made here and now has another fingerprint than the stored one
                (names the settings that differ), or the features were imported.
        """
        came = [spec.address for spec in self.feature_sets if spec.is_imported]
        if came:
            raise ConfigError(
                f"This model reads imported features ({', '.join(came)}), which nothing here can "
                "make of a recording; evaluate it on the store they were imported into."
            )
        stored = {spec.name: spec for spec in self.feature_sets}
        built = tuple(build_encoder(config) for config in self.encoders)
        for encoder in built:
            _check_fingerprint(encoder.spec(), stored[encoder.name])
        return built

    def on(self, device: str) -> "Bundle":
        """The same bundle with its encoders computing on another device."""
        moved = tuple(replace(config, device=device) for config in self.encoders)
        return replace(self, encoders=moved)

    # ------------------------------------------------------------------------- files

    def save(self, folder: Path) -> None:
        """Write both files into a local folder; the document last, as the mark of completeness."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = save_tensors(dict(self.weights))
        document = {
            "format": _FORMAT,
            "outspike_version": _package_version(),
            "detector": to_json(self.detector_config),
            "encoders": [to_json(config) for config in self.encoders],
            "feature_sets": [spec.attributes() for spec in self.feature_sets],
            "protocol": self.protocol,
            "provenance": dict(self.provenance),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        _write(folder / _WEIGHTS, weights)
        _write(folder / _DOCUMENT, json.dumps(document, indent=2, sort_keys=True).encode())

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle.

        Raises:
            CheckpointError: a file is absent, of another format, or was altered.
            ConfigError: a stored config has fields that this version does not know.
        """
        document = _read_document(folder)
        weights = (folder / _WEIGHTS).read_bytes() if (folder / _WEIGHTS).is_file() else b""
        if hashlib.sha256(weights).hexdigest() != document["weights_sha256"]:
            raise CheckpointError(
                f"{folder / _WEIGHTS}: absent, cut short or altered; its SHA-256 is not the one "
                f"in {_DOCUMENT}. Fetch the bundle again."
            )
        return cls(
            detector_config=from_json(DetectorConfig, document["detector"]),
            weights=load_tensors(weights),
            encoders=tuple(from_json(EncoderConfig, entry) for entry in document["encoders"]),
            feature_sets=tuple(map(FeatureSetSpec.from_attributes, document["feature_sets"])),
            protocol=document["protocol"],
            provenance=document["provenance"],
        )


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / _DOCUMENT
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {_DOCUMENT} there, so it is not a model bundle.")
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); fetch the bundle again.") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != _FORMAT:
        raise CheckpointError(
            f"{path}: bundle format {found!r}, this version reads format {_FORMAT}."
        )
    expected = {"detector", "encoders", "feature_sets", "protocol", "provenance", "weights_sha256"}
    if missing := sorted(expected - document.keys()):
        raise CheckpointError(f"{path}: no entry {', '.join(missing)}; fetch the bundle again.")
    return document


def _write(path: Path, data: bytes) -> None:
    """Write, then rename: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _load_strictly(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    own = detector.state_dict()
    faults = [f"missing {name}" for name in own if name not in weights]
    faults += [f"unexpected {name}" for name in weights if name not in own]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if faults:
        raise CheckpointError(
            f"The bundle's weights do not fit {type(detector).__name__} as configured: "
            + "; ".join(faults)
        )
    detector.load_state_dict(dict(weights))


def _check_fingerprint(made: FeatureSetSpec, stored: FeatureSetSpec) -> None:
    if made.fingerprint == stored.fingerprint:
        return
    keys = sorted(made.document.keys() | stored.document.keys())
    differences = [
        f"{key}: {stored.document.get(key)!r} then, {made.document.get(key)!r} now"
        for key in keys
        if made.document.get(key) != stored.document.get(key)
    ]
    raise ConfigError(
        f"The detector was trained on features {stored.address}; this installation makes "
        f"{made.address}. Different: {'; '.join(differences)}. Use the versions and weights it was "
        "trained with, or extract and train again."
    )


def _package_version() -> str:
    try:
        return version("outspike")
    except PackageNotFoundError:  # run from a checkout through PYTHONPATH
        return "unknown"
