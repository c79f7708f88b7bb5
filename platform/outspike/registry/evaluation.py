"""Evaluation of a registered model: scores from the pinned store, figures, and the report."""

import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outspike import urls
from outspike.config import EvaluateConfig
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import Protocol, get_protocol
from outspike.evaluate.report import write_report
from outspike.evaluate.results import Results
from outspike.evaluate.stored import floor_scores, open_pinned, score_bundle
from outspike.evaluate.thumbnails import FrameReader
from outspike.evaluate.words import METRIC_TITLES, figure, interval, signed
from outspike.registry.models import download_bundle
from outspike.registry.versions import find
from outspike.scoring.bundle import Bundle
from outspike.scoring.scores import VideoScores

logger = logging.getLogger(__name__)

_SHOWN = ("store", "catalog_version", "recordings_version", "feature_sets", "fingerprints")
_MODEL_FACTS = ("run", "step", "config_hash", "git", "outspike_version")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation left behind."""

    model: str
    results: Results
    report_url: str
    results_url: str

    def rows(self) -> list[tuple[str, object]]:
        """Lines of the short table that ends the job."""
        rows: list[tuple[str, object]] = [
            ("model", self.model),
            ("protocol", f"{self.results.protocol['name']} v{self.results.protocol['version']}"),
        ]
        if self.results.test_selected:
            rows.append(("selection", "on the test split: an oracle figure"))
        floor = self.results.floor
        for name, estimate in self.results.metrics.items():
            text = figure(name, estimate.value)
            if estimate.low is not None:
                text += f"  [{interval(name, estimate)}]"
            elif estimate.reason is not None:
                text += f"  ({estimate.reason})"
            if floor is not None and estimate.value is not None:
                difference = signed(name, floor.differences[name].value)
                text += f"  against {floor.name} {difference}, {floor.verdict(name)}"
            rows.append((METRIC_TITLES[name], text))
        rows += [("results", self.results_url), ("report", self.report_url)]
        return rows


def evaluate_model(config: EvaluateConfig) -> Evaluation:
    """Score a model's test recordings under a protocol and write report and figures.

    Raises:
        RegistryError: no such model.
        StoreError: the store, its pinned version or a feature set is not there.
        DatasetError: the store holds no recording of the protocol.
    """
    with tempfile.TemporaryDirectory(prefix="outspike-evaluate-") as folder:
        model, bundle = load_model(config, config.model, Path(folder) / "model")
        protocol = get_protocol(config.protocol or bundle.protocol)
        logger.info("model=%s protocol=%s", model, protocol.label)
        videos = score_bundle(bundle, protocol=protocol.name)
        floor_name, floor = _floor(config, bundle, protocol, Path(folder) / "floor")
    results = evaluate(
        videos,
        protocol,
        floor=floor,
        floor_name=floor_name,
        seed=config.seed,
        num_resamples=config.num_resamples,
    )
    results_url = urls.join(config.out, "results.json")
    urls.write_bytes(results_url, (json.dumps(results.to_json(), indent=1) + "\n").encode())
    with _key_frames(bundle, videos) as key_frames:
        report_url = write_report(
            results,
            videos,
            urls.join(config.out, "report.html"),
            provenance=_provenance(config, model, bundle),
            floor=floor,
            thumbnails=key_frames if config.key_frames else None,
            max_large=config.max_large,
            title=model,
        )
    return Evaluation(model=model, results=results, report_url=report_url, results_url=results_url)


def describe(config: EvaluateConfig) -> list[tuple[str, object]]:
    """Lines that say what :func:`evaluate_model` would score, without scoring it.

    Raises:
        RegistryError, StoreError: as there.
    """
    with tempfile.TemporaryDirectory(prefix="outspike-evaluate-") as folder:
        model, bundle = load_model(config, config.model, Path(folder) / "model")
    protocol = get_protocol(config.protocol or bundle.protocol)
    recordings = [
        recording
        for recording in open_pinned(bundle).recordings_by_key().values()
        if recording.split == "test" and protocol.dataset in ("*", recording.dataset)
    ]
    return [
        ("model", model),
        ("protocol", f"{protocol.label}: {', '.join(protocol.metrics)}"),
        ("store", f"{bundle.provenance['store']} at {bundle.provenance['catalog_version']}"),
        ("recordings", f"{len(recordings)} in the test split"),
        ("against", config.against),
        ("would write", urls.join(config.out, "report.html")),
    ]


def load_model(config: EvaluateConfig, address: str, folder: Path) -> tuple[str, Bundle]:
    """A bundle and how the report calls it: a folder, or a version of a registered model."""
    if urls.is_local(address) and Path(address).is_dir():
        return address, Bundle.load(Path(address))
    version = find(config.tracking_uri, address)
    return version.address, Bundle.load(download_bundle(version, folder))


def _floor(
    config: EvaluateConfig, bundle: Bundle, protocol: Protocol, folder: Path
) -> tuple[str, list[VideoScores] | None]:
    if config.against == "none":
        return "", None
    if config.against == "motion_floor":
        return config.against, floor_scores(bundle, protocol=protocol.name)
    name, rival = load_model(config, config.against, folder)
    return name, score_bundle(rival, protocol=protocol.name, like=bundle)


def _key_frames(bundle: Bundle, videos: Sequence[VideoScores]) -> FrameReader:
    recordings = open_pinned(bundle).recordings_by_key()
    return FrameReader(
        {video.video_id: recordings[video.dataset, video.video_id] for video in videos}
    )


def _provenance(config: EvaluateConfig, model: str, bundle: Bundle) -> dict[str, Any]:
    told = {key: bundle.provenance[key] for key in _SHOWN if key in bundle.provenance}
    facts = {key: bundle.provenance[key] for key in _MODEL_FACTS if key in bundle.provenance}
    return {"model": model, **told, "command": shlex.join(sys.argv), **facts}
