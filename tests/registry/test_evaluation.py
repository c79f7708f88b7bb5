"""Evaluation of a model from its address to the page."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from outspike.config import EvaluateConfig
from outspike.errors import ConfigError
from outspike.evaluate.results import Results
from outspike.registry.evaluation import describe, evaluate_model

Saved = Callable[..., Path]


def test_a_bundle_becomes_figures_and_a_page(saved: Saved, tmp_path: Path) -> None:
    """Figures equal those it was registered with; the page names store, version and features."""
    bundle = saved("event-pyramid")
    evaluation = evaluate_model(
        EvaluateConfig(model=str(bundle), out=str(tmp_path / "report"), num_resamples=100)
    )
    stored = json.loads((bundle / "bundle.json").read_text())["provenance"]
    logged = Results.from_json(stored["results"])
    assert evaluation.results.metrics["video_auc"] == logged.metrics["video_auc"]
    written = json.loads(Path(evaluation.results_url).read_text())
    assert Results.from_json(written) == evaluation.results
    page = Path(evaluation.report_url).read_text()
    for fact in (stored["store"], *stored["feature_sets"], *stored["fingerprints"]):
        assert fact in page
    assert "not readable" in page  # the recordings of this store do not exist
    floor = evaluation.results.floor
    assert floor is not None
    assert floor.name == "motion_floor"
    assert floor.verdict("video_auc") == "better"
    shown = dict(evaluation.rows())
    assert "against motion_floor" in str(shown["Video AUC"])
    assert shown["report"] == evaluation.report_url


def test_two_models_meet_on_the_same_recordings(saved: Saved, tmp_path: Path) -> None:
    """``against`` takes another model, which is then scored at the first one's versions."""
    evaluation = evaluate_model(
        EvaluateConfig(
            model=str(saved("clip")),
            against=str(saved("event-pyramid")),
            out=str(tmp_path / "report"),
            num_resamples=100,
            key_frames=False,
        )
    )
    floor = evaluation.results.floor
    assert floor is not None
    assert floor.name.endswith("bundle-event-pyramid")
    assert floor.verdict("video_auc") == "worse"


def test_nothing_to_compare_with_gives_a_page_without_a_floor(saved: Saved, tmp_path: Path) -> None:
    """``against none`` needs no frame-motion features."""
    evaluation = evaluate_model(
        EvaluateConfig(
            model=str(saved("event-pyramid")),
            against="none",
            protocol="folder-test-selected",
            out=str(tmp_path / "report"),
            num_resamples=10,
            key_frames=False,
        )
    )
    assert evaluation.results.floor is None
    assert "oracle" in str(dict(evaluation.rows())["selection"])
    assert "Selected on the test split." in Path(evaluation.report_url).read_text()


def test_a_dry_run_says_what_would_be_scored_and_writes_nothing(
    saved: Saved, tmp_path: Path
) -> None:
    """From the catalog and the bundle alone."""
    out = tmp_path / "report"
    told = dict(describe(EvaluateConfig(model=str(saved("event-pyramid")), out=str(out))))
    assert told["recordings"] == "20 in the test split"
    assert not out.exists()
    with pytest.raises(ConfigError, match="num_resamples"):
        EvaluateConfig(num_resamples=-1)
