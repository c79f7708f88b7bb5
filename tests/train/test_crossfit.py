"""Cross-fitting: every recording is judged once, by a model that never saw it."""

import dataclasses
import json
from pathlib import Path

import pytest

from outspike import app
from outspike.config import CrossfitConfig, SelectionConfig, StoreConfig
from outspike.encoders import build
from outspike.errors import ConfigError, DatasetError
from outspike.evaluate.protocols import PROTOCOLS, Protocol, get_protocol
from outspike.evaluate.results import Results
from outspike.evaluate.stored import floor_of
from outspike.recipes import FRAME_MOTION
from outspike.registry.tracking import find_runs
from outspike.store.store import FeatureStore
from outspike.train import crossfit as crossfitting
from outspike.train.crossfit import crossfit, describe
from outspike.train.plan import make_plan


@pytest.fixture(scope="module")
def both_splits(tmp_path_factory, small_data) -> str:
    """A store whose two splits have features for the detector and for the floor."""
    store = FeatureStore.create(str(tmp_path_factory.mktemp("both")))
    recordings = [*small_data.recordings(6, 6), *small_data.recordings(6, 6, split="test")]
    small_data.fill(store, recordings, [small_data.spec("motion"), build(FRAME_MOTION).spec()])
    return store.url


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory) -> str:
    """One database for all tests, since a fresh one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def config(config_of, both_splits, tracking_uri, tmp_path) -> CrossfitConfig:
    """Three folds of all 24 recordings."""
    return CrossfitConfig(
        train=config_of(
            store=StoreConfig(url=both_splits),
            tracking_uri=tracking_uri,
            bags_per_batch=4,
            steps=2,
        ),
        protocol="folder-cross",
        num_folds=3,
        out=str(tmp_path / "out"),
        num_resamples=50,
        key_frames=False,
    )


@pytest.fixture
def beside_training(monkeypatch) -> str:
    """A protocol that deals out the test split beside the whole training split."""
    protocol = Protocol(
        name="tiny-cross",
        dataset="tiny",
        cross_fit="test",
        metrics=("video_auc",),
        primary="video_auc",
    )
    monkeypatch.setitem(PROTOCOLS, protocol.name, protocol)
    return protocol.name


@pytest.fixture
def trained(monkeypatch) -> list:
    """What each fold of a run is trained on and scores: (detector, kept, held out)."""
    seen = []
    fold = crossfitting.Fold

    def spy(plan, kept, held_out, cache):
        seen.append((plan.config.detector.kind, list(kept), list(held_out)))
        return fold(plan, kept, held_out, cache)

    monkeypatch.setattr(crossfitting, "Fold", spy)
    return seen


def test_all_recordings_are_scored_once_by_models_that_saw_no_part_of_them(config, trained):
    """Folds tile both splits, keep sources together, and are the same for the floor."""
    done = crossfit(config)
    everything = sorted(r.key for r in make_plan(config.train, splits=("train", "test")).training)
    assert len(everything) == 24
    assert sorted(key for fold in done.folds for key in fold.held_out) == everything
    assert [kind for kind, _, _ in trained] == ["msf"] * 3 + ["motion_floor"] * 3
    for _, kept, held_out in trained:
        assert not {r.group for r in kept} & {r.group for r in held_out}
        assert sorted(r.key for r in [*kept, *held_out]) == everything
    assert [entry[1:] for entry in trained[:3]] == [entry[1:] for entry in trained[3:]]


def test_the_training_split_may_stand_beside_every_fold(config, trained, beside_training):
    """Only test recordings are dealt out and scored; every model trains on the training split."""
    config = dataclasses.replace(config, protocol=beside_training)
    done = crossfit(config)
    assert done.evaluation.results.num_videos == 12
    for _, kept, held_out in trained:
        assert {r.split for r in held_out} == {"test"}
        assert sum(r.split == "train" for r in kept) == 12
        assert len(kept) + len(held_out) == 24


def test_what_is_written_logged_and_shown_is_what_was_found(config):
    """Figures of results.json, of the MLflow run and of the table are one and the same."""
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, name="written", steps=20)
    )
    done = crossfit(config)
    results = done.evaluation.results
    document = json.loads(Path(done.evaluation.results_url).read_text())
    assert Results.from_json(document) == results
    auc = results.metrics["video_auc"]
    assert auc.value > 0.8  # the rule of these bags carries over to unseen ones
    folds = json.loads(Path(done.folds_url).read_text())
    assert [fold["primary"]["value"] for fold in folds] == [
        fold.primary.value for fold in done.folds
    ]
    logged = find_runs(config.train.tracking_uri, {"outspike.results": done.evaluation.results_url})
    metrics = logged[0].data.metrics
    assert logged[0].info.status == "FINISHED"
    assert metrics["crossfit/video_auc"] == auc.value
    assert metrics["difference/video_auc_low"] == results.floor.differences["video_auc"].low
    told = done.table()
    assert f"{auc.value:.3f}" in told
    assert "fold 2, Video AUC" in told
    assert "motion_floor, Video AUC" in told
    assert "written, seed 0, in 3 folds" in Path(done.evaluation.report_url).read_text()


def test_the_same_command_gives_the_same_figures_and_another_seed_other_folds(config):
    """Dealing follows ``seed``; weights follow ``train.seed`` and leave the folds alone."""
    config = dataclasses.replace(config, against="none")
    first, again = crossfit(config), crossfit(config)
    assert first.evaluation.results == again.evaluation.results
    assert first.evaluation.results.floor is None
    reseeded = crossfit(
        dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    )
    assert [f.held_out for f in reseeded.folds] == [f.held_out for f in first.folds]
    assert reseeded.evaluation.results.per_video != first.evaluation.results.per_video
    other = crossfit(dataclasses.replace(config, seed=1))
    assert [f.held_out for f in other.folds] != [f.held_out for f in first.folds]


def test_a_fold_without_a_pair_has_a_reason_and_no_figure(config, monkeypatch):
    """A fold of one label defines no AUC; the pooled figure stands all the same."""
    monkeypatch.setattr(crossfitting, "folds", _one_label_a_fold)
    done = crossfit(config)
    assert [fold.primary.value for fold in done.folds[:2]] == [None, None]
    assert "no " in done.folds[0].primary.reason
    assert done.evaluation.results.metrics["video_auc"].value is not None


def _one_label_a_fold(bags, num_folds, *, seed, always):
    """Six normal bags, six anomalous ones, and the rest."""
    parts = [[b for b in bags if b.label == label][:6] for label in (0, 1)]
    parts.append([b for b in bags if b not in parts[0] + parts[1]])
    return [([b for b in bags if b not in part], part) for part in parts]


def test_a_dry_run_tells_the_folds_and_trains_nothing(config, trained):
    """From the catalog alone."""
    told = describe(config)
    assert "24 recordings, each scored once" in told
    assert "16 to train on, 8 to score" in told
    assert not trained


def test_it_is_only_for_protocols_that_cross_fit(config, both_splits):
    """Either kind of protocol is refused by the other kind of job, in one line."""
    with pytest.raises(ConfigError, match="by one model; train it with"):
        crossfit(dataclasses.replace(config, protocol="folder"))
    with pytest.raises(ConfigError, match="'ucsd_ped2', the recipe trains on 'tiny'"):
        crossfit(dataclasses.replace(config, protocol="ped2-cross"))
    with pytest.raises(ConfigError, match=r"jobs/crossfit\.py"):
        make_plan(dataclasses.replace(config.train, protocol="folder-cross"))
    with pytest.raises(ConfigError, match=r"jobs/crossfit\.py"):
        floor_of(FeatureStore.open(both_splits), get_protocol("folder-cross"))


def test_what_cannot_be_dealt_is_one_clear_line(config, config_of):
    """Too few sources, too few folds, and a selection that would need folds inside folds."""
    with pytest.raises(DatasetError, match="7 folds need 7 groups"):
        crossfit(dataclasses.replace(config, num_folds=7))
    with pytest.raises(ConfigError, match="at least 2 folds"):
        dataclasses.replace(config, num_folds=1)
    with pytest.raises(ConfigError, match="keeps the last one"):
        CrossfitConfig(train=config_of(selection=SelectionConfig(split="holdout")))


def test_the_job_prints_the_table(config, monkeypatch, capsys):
    """``jobs/crossfit.py`` from its arguments to its exit code."""
    from outspike import cli, recipes

    monkeypatch.setitem(recipes.CROSSFIT_RECIPES, "miniature", lambda: config)
    assert cli.crossfit(["miniature", "--dry-run"]) == app.DONE
    assert "each scored once" in capsys.readouterr().out
    assert cli.crossfit(["miniature", "--num-folds", "2", "--against", "none"]) == app.DONE
    assert "fold 1, Video AUC" in capsys.readouterr().out
