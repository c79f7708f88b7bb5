"""The promotion gate: what a version must prove before it may be called champion."""

import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from outspike.errors import RegistryError
from outspike.evaluate.bootstrap import Difference
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.results import Results
from outspike.evaluate.stored import floor_scores, score_bundle
from outspike.registry.models import (
    CHAMPION,
    ModelVersion,
    champion,
    download_bundle,
    find,
)
from outspike.registry.tracking import connect
from outspike.scoring.bundle import Bundle
from outspike.scoring.scores import VideoScores

logger = logging.getLogger(__name__)

#: Recomputing on the same bytes with the same code repeats every bit; another host may round.
_SAME = 1e-6
_LOAD_TIMEOUT_S = 600.0

_LOAD = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print("loaded", type(model.unwrap_python_model()).__name__)
"""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """The gate's decision on one version, with the sentence for each check."""

    version: ModelVersion
    promoted: bool
    checks: tuple[tuple[str, bool, str], ...]
    """Name, passed, what was found."""

    def table(self) -> str:
        """The lines that end the job."""
        lines = [f"  {'ok' if ok else 'NO':<3} {name}: {found}" for name, ok, found in self.checks]
        decision = (
            f"{self.version.address} is {CHAMPION} of {self.version.name}"
            if self.promoted
            else f"{self.version.address} is not promoted"
        )
        return "\n".join([*lines, decision])


def promote(uri: str, model: str, *, margin: float = 0.0) -> Promotion:
    """Run the gate on ``models:/name/version`` and set the alias ``champion`` if it passes.

    The version must (1) give again the metrics it was registered with, (2) load in a clean process,
    and (3) beat the present champion, or the motion floor where there is none, by more than
    ``margin``: the lower end of the paired-bootstrap interval of the difference must lie above it.
    Both are scored under the candidate's protocol at the candidate's catalog version.

    Raises:
        RegistryError: no such version, or it lacks what the gate needs.
    """
    candidate = find(uri, model)
    present = champion(uri, candidate.name)
    if present is not None and present.version == candidate.version:
        return Promotion(
            version=candidate,
            promoted=True,
            checks=(("champion", True, "this version already carries the alias"),),
        )
    with tempfile.TemporaryDirectory(prefix="outspike-promote-") as folder:
        bundle = Bundle.load(download_bundle(candidate, Path(folder) / "candidate"))
        scores = score_bundle(bundle)
        checks = [
            _same_metrics(bundle, scores),
            _loads_in_clean_process(candidate),
            _beats(bundle, scores, present, Path(folder), margin),
        ]
    passed = all(ok for _, ok, _ in checks)
    client = connect(uri)
    for name, ok, found in checks:
        client.set_model_version_tag(
            candidate.name, str(candidate.version), f"outspike.gate.{name}", f"{ok}: {found}"
        )
    if passed:
        try:
            client.set_registered_model_alias(candidate.name, CHAMPION, str(candidate.version))
        except MlflowException as error:
            raise RegistryError(f"{candidate.address}: the alias was refused: {error}") from error
    return Promotion(version=candidate, promoted=passed, checks=tuple(checks))


def _same_metrics(bundle: Bundle, scores: Sequence[VideoScores]) -> tuple[str, bool, str]:
    """Metrics recomputed from the stored bundle against those it was registered with."""
    stored = bundle.provenance.get("results")
    if stored is None:
        return ("metrics", False, "the bundle holds no results; train it with jobs/train.py")
    logged = Results.from_json(stored)
    again = evaluate(scores, get_protocol(bundle.protocol), num_resamples=0)
    differing = []
    for name, estimate in logged.metrics.items():
        found = again.metrics[name].value
        if not _equal(estimate.value, found):
            differing.append(f"{name} logged {estimate.value}, recomputed {found}")
    if differing:
        return ("metrics", False, "; ".join(differing))
    primary = str(logged.protocol["primary"])
    value = again.metrics[primary].value
    return ("metrics", True, f"recomputed as logged ({primary} {value:.4f})")


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=_SAME, abs_tol=_SAME)


def _loads_in_clean_process(version: ModelVersion) -> tuple[str, bool, str]:
    """Load the model as MLflow would, in a fresh interpreter away from any checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, version.uri, version.address],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LOAD_TIMEOUT_S,
            check=False,
        )
    if done.returncode == 0:
        return ("loads", True, "in a fresh interpreter")
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return ("loads", False, f"a fresh interpreter fails: {last}")


def _beats(
    bundle: Bundle,
    scores: Sequence[VideoScores],
    present: ModelVersion | None,
    folder: Path,
    margin: float,
) -> tuple[str, bool, str]:
    """The paired difference from the champion, or from the floor."""
    if present is None:
        name = "motion_floor"
        rival = floor_scores(bundle)
    else:
        name = f"champion version {present.version}"
        rival = score_bundle(
            Bundle.load(download_bundle(present, folder / "champion")), like=bundle
        )
    results = evaluate(scores, get_protocol(bundle.protocol), floor=rival, floor_name=name)
    primary = str(results.protocol["primary"])
    assert results.floor is not None
    difference = results.floor.differences[primary]
    if difference.value is None or difference.low is None:
        return ("beats", False, f"{primary} against {name} is undefined: {difference.reason}")
    return ("beats", difference.low > margin, _sentence(primary, name, difference, margin))


def _sentence(primary: str, name: str, difference: Difference, margin: float) -> str:
    return (
        f"{primary} {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] "
        f"against {name}, asked for more than {margin:g}"
    )
