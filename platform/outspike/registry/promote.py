"""The promotion gate: what a version must prove before it may be called champion."""

import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from outspike.errors import OutspikeError, RegistryError
from outspike.evaluate.bootstrap import Difference
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.results import LOWER_IS_BETTER, Results
from outspike.evaluate.stored import floor_scores, score_bundle
from outspike.registry.models import download_bundle, download_model
from outspike.registry.tracking import connect
from outspike.registry.versions import CHAMPION, ModelVersion, champion, crown, find
from outspike.scoring.bundle import Bundle
from outspike.scoring.scores import VideoScores

#: Recomputing on the same bytes with the same code repeats every bit; another host may round.
_SAME = 1e-6
_LOAD_TIMEOUT_S = 600.0

_LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import mlflow
mlflow.pyfunc.load_model(sys.argv[2])
import outspike
if not outspike.__file__.startswith(sys.argv[1]):
    sys.exit(f"it took the package from {outspike.__file__}, not from its own wheel")
"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was proved, or not, and the sentence that says what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """The gate's decision on one version."""

    version: ModelVersion
    passed: bool
    """Whether it is champion, or could be where the gate was only asked."""
    checks: tuple[Check, ...]
    dry_run: bool = False

    def table(self) -> str:
        """The lines that end the job."""
        lines = [f"  {'ok' if c.passed else 'NO':<3} {c.name}: {c.found}" for c in self.checks]
        verb = {
            (True, False): f"is {CHAMPION} of {self.version.name}",
            (True, True): f"could be {CHAMPION} of {self.version.name}",
        }.get((self.passed, self.dry_run), "is not promoted")
        return "\n".join([*lines, f"{self.version.address} {verb}"])


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What *better* means: a difference beyond ``margin``, of the figure or of its interval."""

    margin: float
    whole_interval: bool

    def holds(self, difference: Difference, *, lower_is_better: bool) -> bool:
        """Whether the difference is better than the margin."""
        near = difference.value
        if self.whole_interval:
            near = difference.high if lower_is_better else difference.low
        if near is None:
            return False
        return (-near if lower_is_better else near) > self.margin

    def told(self, primary: str, rival: str, difference: Difference) -> str:
        """The sentence that says what was found and what was asked."""
        found = f"{primary} {_signed(difference.value)} {_range(difference)} against {rival}"
        if self.whole_interval:
            return f"{found}, the whole interval must lie beyond {self.margin:g}"
        shown = "shown" if difference.shown else "not shown: the interval touches 0"
        return f"{found} ({shown}), a first champion's figure must lie beyond {self.margin:g}"


def promote(
    uri: str,
    model: str,
    *,
    margin: float = 0.0,
    require_shown: bool = False,
    dry_run: bool = False,
) -> Promotion:
    """Run the gate on ``models:/name/version`` and set the alias ``champion`` if it passes.

    The version must (1) give again the metrics it was registered with, (2) load in a clean process
    from its own wheel, and (3) beat the present champion by more than ``margin``: the lower end of
    the paired-bootstrap interval of the difference must lie above it. Where there is no champion
    yet, its figure must beat the motion floor's by more than ``margin``, and the gate says whether
    that difference is shown or not; with ``require_shown`` the interval is asked there too. Both
    are scored under the candidate's protocol at the candidate's catalog version.

    Args:
        uri: address of the registry.
        model: as :func:`outspike.registry.versions.find` takes it.
        margin: in units of the protocol's primary metric.
        require_shown: ask the first champion, too, for an interval beyond the margin.
        dry_run: check, and change nothing.

    Raises:
        RegistryError: no such version, or its files are gone.
        StoreError, DatasetError: the recordings it was judged on are not in its store any more.
    """
    candidate = find(uri, model)
    present = champion(uri, candidate.name)
    if present is not None and present.version == candidate.version:
        already = Check(name=CHAMPION, passed=True, found="this version already carries the alias")
        return Promotion(version=candidate, passed=True, checks=(already,))
    checks = tuple(
        _checks(
            candidate,
            present,
            Rule(margin=margin, whole_interval=require_shown or present is not None),
        )
    )
    passed = all(check.passed for check in checks)
    if not dry_run:
        _record(candidate, checks, passed)
    return Promotion(version=candidate, passed=passed, checks=checks, dry_run=dry_run)


def _checks(candidate: ModelVersion, present: ModelVersion | None, rule: Rule) -> Iterator[Check]:
    with tempfile.TemporaryDirectory(prefix="outspike-promote-") as name:
        folder = Path(name)
        bundle = Bundle.load(download_bundle(candidate, folder / "candidate"))
        scores = score_bundle(bundle)
        yield _same_metrics(candidate, bundle, scores)
        yield _loads_in_clean_process(candidate, folder / "clean")
        yield _beats(bundle, scores, present, folder / "champion", rule)


def _record(candidate: ModelVersion, checks: Sequence[Check], passed: bool) -> None:
    """Leave what was found on the version, and the alias if everything held."""
    client = connect(candidate.uri)
    version = str(candidate.version)
    try:
        for check in checks:
            text = f"{'passed' if check.passed else 'failed'}: {check.found}"
            client.set_model_version_tag(
                candidate.name, version, f"outspike.gate.{check.name}", text
            )
    except MlflowException as error:
        raise RegistryError(f"{candidate.address} was not promoted: {error}") from error
    if passed:
        crown(candidate)


# ------------------------------------------------------------------------------- the checks


def _same_metrics(candidate: ModelVersion, bundle: Bundle, scores: Sequence[VideoScores]) -> Check:
    """Metrics recomputed from the stored bundle against those it and its run were given."""
    stored = bundle.provenance.get("results")
    if stored is None:
        return _failed("metrics", "the bundle holds no results; train it with jobs/train.py")
    try:
        logged = Results.from_json(stored)
    except (OutspikeError, TypeError, KeyError) as error:
        return _failed("metrics", f"the bundle's results cannot be read: {error}")
    protocol = get_protocol(bundle.protocol)
    if (logged.protocol["name"], logged.protocol["version"]) != (protocol.name, protocol.version):
        return _failed("metrics", f"they were not computed under protocol {protocol.label}")
    again = evaluate(scores, protocol, num_resamples=0).metrics
    found = {str(name): estimate.value for name, estimate in again.items()}
    run = connect(candidate.uri).get_run(candidate.run_id).data.metrics
    claims = [(name, "registered", estimate.value) for name, estimate in logged.metrics.items()]
    claims += [(n, "logged in its run", run[f"test/{n}"]) for n in found if f"test/{n}" in run]
    differing = [
        f"{name} {where} {_number(claimed)}, recomputed {_number(found.get(name))}"
        for name, where, claimed in claims
        if not _equal(claimed, found.get(name))
    ]
    if differing:
        return _failed("metrics", "; ".join(differing))
    primary = protocol.primary
    value = _number(found[primary])
    return Check(name="metrics", passed=True, found=f"recomputed as logged ({primary} {value})")


def _loads_in_clean_process(version: ModelVersion, folder: Path) -> Check:
    """Load the model as MLflow would, in a fresh interpreter, with the package from its wheel."""
    model = download_model(version, folder)
    wheels = sorted((model / "artifacts").glob("*.whl"))
    if len(wheels) != 1:
        return _failed("loads", f"the model holds {len(wheels)} wheels, expected one")
    package = folder.resolve() / "wheel"
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(package)
    try:
        # -I: no PYTHONPATH, no user packages, and the working folder is not imported from.
        done = subprocess.run(
            [sys.executable, "-I", "-c", _LOAD, str(package), str(model)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_LOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed("loads", f"a fresh interpreter did not load it in {_LOAD_TIMEOUT_S:g} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return _failed("loads", f"a fresh interpreter fails: {last}")
    return Check(name="loads", passed=True, found="in a fresh interpreter, from its own wheel")


def _beats(
    bundle: Bundle,
    scores: Sequence[VideoScores],
    present: ModelVersion | None,
    folder: Path,
    rule: Rule,
) -> Check:
    """The paired difference from the champion, or from the floor."""
    name = "motion_floor" if present is None else f"champion version {present.version}"
    protocol = get_protocol(bundle.protocol)
    try:
        rival = (
            floor_scores(bundle)
            if present is None
            else score_bundle(Bundle.load(download_bundle(present, folder)), like=bundle)
        )
        results = evaluate(scores, protocol, floor=rival, floor_name=name)
    except OutspikeError as error:
        return _failed("beats", f"{name} cannot be scored on the same recordings: {error}")
    assert results.floor is not None
    primary = protocol.primary
    difference = results.floor.differences[primary]
    if difference.value is None or difference.low is None:
        return _failed("beats", f"{primary} against {name}: {difference.reason}")
    holds = rule.holds(difference, lower_is_better=primary in LOWER_IS_BETTER)
    return Check(name="beats", passed=holds, found=rule.told(primary, name, difference))


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.4f}"


def _range(difference: Difference) -> str:
    return f"[{_signed(difference.low)}, {_signed(difference.high)}]"


def _failed(name: str, found: str) -> Check:
    return Check(name=name, passed=False, found=found)


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=_SAME, abs_tol=_SAME)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
