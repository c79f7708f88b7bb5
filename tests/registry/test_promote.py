"""The gate lets a version pass only if it is what it says, loads, and is better."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import outspike.registry.promote as promote_module
from outspike.errors import CheckpointError, RegistryError
from outspike.evaluate.bootstrap import Difference
from outspike.registry.models import register
from outspike.registry.promote import Check, Promotion, Rule, promote
from outspike.registry.tracking import connect, run
from outspike.registry.versions import ModelVersion, champion, crown, find, roll_back
from outspike.scoring.bundle import Bundle
from outspike.store.store import FeatureStore


@pytest.fixture
def registered(uri: str, saved: Callable[..., Path]) -> Callable[..., ModelVersion]:
    """A version of a model that reads one feature set, with its run's metrics logged."""

    def make(name: str, feature_set: str, **provenance: object) -> ModelVersion:
        folder = saved(feature_set, **provenance)
        metrics = Bundle.load(folder).provenance["results"]["metrics"]
        values = {f"test/{k}": v["value"] for k, v in metrics.items() if v["value"] is not None}
        with run(uri, name) as log:
            log.log_metrics(values, 1)
            return register(log, name, folder, {})

    return make


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check that takes seconds, where a test is about another one."""
    passed = Check(name="loads", passed=True, found="not looked at")
    monkeypatch.setattr(promote_module, "_loads_in_clean_process", lambda *_: passed)


def stored_files(version: ModelVersion) -> Path:
    source = connect(version.uri).get_model_version_download_uri(version.name, str(version.version))
    return Path(str(source).removeprefix("file://")) / "artifacts"


def tamper(version: ModelVersion, results: object) -> None:
    """Change the results in the stored bundle, as somebody with access to the files could."""
    path = stored_files(version) / "bundle" / "bundle.json"
    document = json.loads(path.read_text())
    document["provenance"]["results"] = results
    path.write_text(json.dumps(document))


def check(promotion: Promotion, name: str) -> tuple[bool, str]:
    [found] = [c for c in promotion.checks if c.name == name]
    return found.passed, found.found


@pytest.mark.usefixtures("unloaded")
def test_a_better_version_passes_and_a_worse_one_does_not(
    uri: str, registered: Callable[..., ModelVersion]
) -> None:
    """The life of a model: below the floor, above it, champion, a challenger that is no better."""
    poor = promote(uri, registered("life", "clip").address)
    assert not poor.passed
    assert check(poor, "metrics")[0]
    passed, found = check(poor, "beats")
    assert not passed
    assert "against motion_floor" in found
    assert "[" in found
    assert "a first champion's figure must lie beyond 0" in found
    assert champion(uri, "life") is None
    assert poor.table().endswith("models:/life/1 is not promoted")

    good = registered("life", "event-pyramid")
    asked = promote(uri, good.address, dry_run=True)
    assert asked.passed
    assert champion(uri, "life") is None
    assert asked.table().endswith("models:/life/2 could be champion of life")

    promoted = promote(uri, "life")
    assert promoted.passed
    assert champion(uri, "life") == good
    assert promoted.table().endswith("models:/life/2 is champion of life")

    again = promote(uri, good.address)
    assert again.passed
    assert check(again, "champion") == (True, "this version already carries the alias")

    challenger = promote(uri, registered("life", "frame-pyramid").address)
    assert not challenger.passed
    assert "against champion version 2" in check(challenger, "beats")[1]
    assert champion(uri, "life") == good
    tags = connect(uri).get_model_version("life", "3").tags
    assert tags["outspike.gate.beats"].startswith("failed: video_auc")
    assert tags["outspike.gate.loads"].startswith("passed: ")


@pytest.mark.usefixtures("unloaded")
def test_a_first_champion_needs_the_better_figure_and_the_interval_where_it_is_asked(
    uri: str, registered: Callable[..., ModelVersion]
) -> None:
    """The figure must lie beyond the margin; with ``require_shown`` its interval's low end too."""
    version = registered("margin", "event-pyramid")
    found = check(promote(uri, version.address, dry_run=True), "beats")[1]
    value, low = (float(word.strip("[,")) for word in found.split()[1:3])
    assert low < value
    between = (low + value) / 2
    assert promote(uri, version.address, margin=between, dry_run=True).passed
    strict = promote(uri, version.address, margin=between, require_shown=True)
    assert not strict.passed
    assert f"the whole interval must lie beyond {between:g}" in check(strict, "beats")[1]
    assert not promote(uri, version.address, margin=value + 0.01).passed


@pytest.mark.parametrize(
    ("value", "low", "high", "ahead", "shown"),
    [(0.1, 0.02, 0.2, True, True), (0.1, -0.02, 0.2, True, False), (-0.1, -0.2, 0.0, False, False)],
)
@pytest.mark.parametrize("lower_is_better", [False, True])
def test_better_means_the_figure_first_and_the_interval_after(
    value: float, low: float, high: float, ahead: bool, shown: bool, lower_is_better: bool
) -> None:
    """Against the floor the figure counts, against a champion the interval; both directions."""
    difference = Difference(value=value, low=low, high=high)
    if lower_is_better:
        difference = Difference(value=-value, low=-high, high=-low)
    for whole_interval, expected in ((False, ahead), (True, shown)):
        rule = Rule(margin=0.0, whole_interval=whole_interval)
        assert rule.holds(difference, lower_is_better=lower_is_better) is expected


def test_rolling_back_exchanges_champion_and_previous(
    uri: str, registered: Callable[..., ModelVersion]
) -> None:
    """Registered is candidate; a second champion leaves the first as previous; and back again."""
    first, second = registered("swap", "event-pyramid"), registered("swap", "event-pyramid")
    assert find(uri, "models:/swap@candidate") == second
    crown(first)
    with pytest.raises(RegistryError, match="no previous version"):
        roll_back(uri, "swap")
    crown(second)
    assert roll_back(uri, "swap", dry_run=True) == (first, second)
    assert champion(uri, "swap") == second
    assert roll_back(uri, "swap") == (first, second)
    assert champion(uri, "swap") == first
    assert find(uri, "models:/swap@previous") == second


@pytest.mark.usefixtures("unloaded")
def test_tampered_metrics_are_refused(uri: str, registered: Callable[..., ModelVersion]) -> None:
    """Figures that the stored bundle does not give again, in it or in its run, stop it."""
    forged = registered("forged", "frame-pyramid")
    document = json.loads((stored_files(forged) / "bundle" / "bundle.json").read_text())
    results = document["provenance"]["results"]
    results["metrics"]["video_auc"]["value"] = 0.999
    tamper(forged, results)
    passed, found = check(promote(uri, forged.address), "metrics")
    assert not passed
    assert found.startswith("video_auc registered 0.999, recomputed ")

    boasting = registered("forged", "event-pyramid")
    connect(uri).log_metric(boasting.run_id, "test/video_ap", 0.25, step=2)
    passed, found = check(promote(uri, boasting.address), "metrics")
    assert not passed
    assert "video_ap logged in its run 0.25, recomputed 1" in found
    assert champion(uri, "forged") is None


@pytest.mark.parametrize(
    ("results", "says"),
    [
        (None, "holds no results"),
        ({"format": 99}, "cannot be read"),
        ({"format": 1, "odd": 2, "floor": None}, "cannot be read"),
    ],
    ids=["none", "another format", "incomplete"],
)
@pytest.mark.usefixtures("unloaded")
def test_a_version_without_results_is_refused(
    uri: str, registered: Callable[..., ModelVersion], results: object, says: str
) -> None:
    """What was never judged, or judged in a way that cannot be read, is not promoted."""
    version = registered("unjudged", "event-pyramid")
    tamper(version, results)
    passed, found = check(promote(uri, version.address), "metrics")
    assert not passed
    assert says in found


@pytest.mark.usefixtures("unloaded")
def test_what_cannot_be_compared_is_not_better(
    uri: str, store: FeatureStore, registered: Callable[..., ModelVersion]
) -> None:
    """Where the store of the candidate has no features for the floor, the check says so."""
    version = registered("floorless", "event-pyramid", catalog_version=store.version - 1)
    passed, found = check(promote(uri, version.address), "beats")
    assert not passed
    assert "motion_floor cannot be scored on the same recordings" in found
    assert "frame-motion" in found


def test_a_model_without_its_wheel_is_refused(
    uri: str, registered: Callable[..., ModelVersion]
) -> None:
    """A version that cannot be loaded in a clean process is not promoted."""
    version = registered("wheelless", "event-pyramid")
    [wheel] = stored_files(version).glob("*.whl")
    wheel.unlink()
    promotion = promote(uri, version.address)
    assert check(promotion, "loads") == (False, "the model holds 0 wheels, expected one")
    assert not promotion.passed


def test_a_model_that_does_not_load_is_refused(
    uri: str, registered: Callable[..., ModelVersion]
) -> None:
    """The last line of what the clean process said is the reason."""
    version = registered("broken", "event-pyramid")
    assert check(promote(uri, version.address, dry_run=True), "loads") == (
        True,
        "in a fresh interpreter, from its own wheel",
    )
    (stored_files(version) / "bundle" / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"absent, cut short or altered"):
        promote(uri, version.address)
    other = registered("broken", "event-pyramid")
    (stored_files(other).parent / "serve.py").write_text("raise SystemError('no code')")
    promotion = promote(uri, other.address)
    passed, found = check(promotion, "loads")
    assert not passed
    assert found.startswith("a fresh interpreter fails: ")
    assert "no code" in found


def test_a_registry_that_does_not_answer_is_one_line() -> None:
    """An address where nobody listens is named, with what to do."""
    with pytest.raises(RegistryError, match=r"http://127.0.0.1:9 cannot be used.*mlflow server"):
        promote("http://127.0.0.1:9", "ped2")
