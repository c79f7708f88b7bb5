"""Where a model comes from, down to the bytes: model, run, versions, segments, source files.

Nothing is recorded for this beyond the versions a run pins: the training plan is made again from
the config in the bundle, at those versions, so that what is told is what was trained on.
"""

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from outspike import urls
from outspike.app import table
from outspike.config import TrainConfig, from_json
from outspike.errors import OutspikeError, RegistryError
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.results import Results
from outspike.registry.models import download_bundle
from outspike.registry.tracking import connect
from outspike.registry.versions import ModelVersion, find, version_of
from outspike.scoring.bundle import Bundle
from outspike.store.store import FeatureStore
from outspike.train.plan import TrainingPlan, make_plan

Part = Literal["training", "held out", "test"]
_COLUMNS = ("part", "recording", "feature_set", "segment", "source_url", "source_etag")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One extent of features of one recording a model was made or judged with."""

    part: Part
    """What the recording was to the model: ``held out`` ones chose among its checkpoints."""
    recording: str
    """``dataset/video_id``."""
    feature_set: str
    segment: str
    source_url: str
    source_etag: str


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A model version and everything it was made from."""

    version: ModelVersion
    store: str
    catalog_version: int
    recordings_version: int
    config_hash: str
    git: str
    sources: tuple[Source, ...]
    """Ordered by part and recording."""

    def table(self) -> str:
        """The chain, with counts in place of lists."""
        segments = {(source.feature_set, source.segment) for source in self.sources}
        counts = ", ".join(
            f"{len(found)} {part}" for part, found in self.recordings().items() if found
        )
        return table(
            [
                ("model", self.version.address),
                ("run", self.version.run_id),
                ("config", f"{self.config_hash}, git {self.git}"),
                ("store", self.store),
                ("versions", f"catalog {self.catalog_version}, labels {self.recordings_version}"),
                ("feature sets", ", ".join(sorted({s.feature_set for s in self.sources}))),
                ("segments", len(segments)),
                ("recordings", counts),
            ]
        )

    def recordings(self) -> dict[Part, list[str]]:
        """Recordings of each part, each once."""
        found: dict[Part, list[str]] = {"training": [], "held out": [], "test": []}
        for source in self.sources:
            found[source.part].append(source.recording)
        return {part: sorted(set(names)) for part, names in found.items()}


def lineage(uri: str, model: str) -> Lineage:
    """What a registered model was made from.

    Args:
        uri: address of the registry.
        model: as :func:`outspike.registry.versions.find` takes it.

    Raises:
        RegistryError: no such version, or one that does not say what it was trained on.
        StoreError: its store or the versions it pinned are gone.
    """
    version = find(uri, model)
    with tempfile.TemporaryDirectory(prefix="outspike-lineage-") as folder:
        bundle = Bundle.load(download_bundle(version, Path(folder)))
    told = bundle.provenance
    if "config" not in told:
        raise RegistryError(
            f"{version.address} does not say what it was trained on; it was not registered by "
            "jobs/train.py."
        )
    config: TrainConfig = from_json(TrainConfig, told["config"])
    plan = make_plan(config)
    return Lineage(
        version=version,
        store=config.store.url,
        catalog_version=int(told["catalog_version"]),
        recordings_version=int(told["recordings_version"]),
        config_hash=str(told.get("config_hash", "not recorded")),
        git=str(told.get("git", "not recorded")),
        sources=tuple(sorted(_sources(plan, _judged_on(bundle)), key=_order)),
    )


def models_that_saw(
    uri: str, recording: str
) -> tuple[list[tuple[ModelVersion, Part]], list[tuple[ModelVersion, str]]]:
    """Registered versions that were trained, chosen or judged on ``dataset/video_id``.

    Returns:
        The versions with the part the recording had, and those that cannot tell, each with why.
    """
    saw: list[tuple[ModelVersion, Part]] = []
    untold: list[tuple[ModelVersion, str]] = []
    for version in _all_versions(uri):
        try:
            found = lineage(uri, version.address).recordings()
        except OutspikeError as error:
            untold.append((version, str(error)))
            continue
        saw += [(version, part) for part, names in found.items() if recording in names]
    return saw, untold


def write_sources(found: Lineage, url: str) -> None:
    """Every extent as a row of a CSV table."""
    with tempfile.TemporaryDirectory(prefix="outspike-lineage-") as folder:
        path = Path(folder) / "lineage.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(_COLUMNS)
            rows.writerows([getattr(source, name) for name in _COLUMNS] for source in found.sources)
        urls.write_bytes(url, path.read_bytes())


def _judged_on(bundle: Bundle) -> set[str]:
    """Video ids the stored results are of."""
    stored = bundle.provenance.get("results")
    return set() if stored is None else {v.video_id for v in Results.from_json(stored).per_video}


def _sources(plan: TrainingPlan, judged_on: set[str]) -> Iterator[Source]:
    """The extents of the plan's feature sets that hold its recordings."""
    protocol = get_protocol(plan.config.protocol)
    where = plan.config.store
    store = FeatureStore.open(
        where.url, version=where.version, recordings_version=where.recordings_version
    )
    parts: dict[tuple[str, str], Part] = {
        (dataset, video_id): "test"
        for (dataset, video_id), recording in store.recordings_by_key().items()
        if recording.split == "test"
        and protocol.dataset in ("*", dataset)
        and video_id in judged_on
    }
    parts |= {(r.dataset, r.video_id): "held out" for r in plan.held_out}
    parts |= {(r.dataset, r.video_id): "training" for r in plan.training}
    addresses = [spec.address for spec in plan.feature_sets.values()]
    rows = store.extents.filter(pc.is_in(store.extents["feature_set"], pa.array(addresses)))
    names = ("dataset", "video_id", "feature_set", "segment", "source_url", "source_etag")
    for dataset, video_id, *rest in zip(*(rows[name].to_pylist() for name in names), strict=True):
        part = parts.get((dataset, video_id))
        if part is not None:
            feature_set, segment, url, etag = rest
            yield Source(
                part=part,
                recording=f"{dataset}/{video_id}",
                feature_set=feature_set,
                segment=segment,
                source_url=url,
                source_etag=etag,
            )


def _order(source: Source) -> tuple[str, str, str]:
    return source.part, source.recording, source.feature_set


def _all_versions(uri: str) -> Iterator[ModelVersion]:
    client = connect(uri)
    for model in client.search_registered_models():
        for found in client.search_model_versions(f"name = '{model.name}'"):
            yield version_of(uri, found)
