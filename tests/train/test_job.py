"""A job from config to bundle: judged once, found again, gone on with after an interruption."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from outspike import app
from outspike.config import EncoderConfig, SelectionConfig
from outspike.errors import CheckpointError, ConfigError
from outspike.evaluate.results import Results
from outspike.evaluate.stored import score_bundle
from outspike.registry.tracking import find_runs
from outspike.scoring.bundle import Bundle
from outspike.train import job
from outspike.train import loop as training_loop


@pytest.fixture
def config(pyramid_config):
    """A run of its own for each test."""
    return pyramid_config()


def test_a_job_ends_in_a_bundle_that_scores_as_it_was_judged(config):
    """The bundle's stored results are those its own weights give again on the stored test bags."""
    result = job.train(config, register_model=False)
    bundle = Bundle.load(Path(result.bundle))
    results = Results.from_json(bundle.provenance["results"])
    assert results.metrics["video_auc"].value == result.metrics["test/video_auc"]
    trained_on = bundle.provenance["trained_on"]
    assert [trained_on[kind] for kind in ("normal", "anomalous", "generated")] == [8, 8, 0]
    again = score_bundle(bundle)
    assert len(again) == 8
    assert all(np.isfinite(video.scores).all() for video in again)
    run = find_runs(config.tracking_uri, {"outspike.run": result.run})[0]
    assert run.info.run_id == result.run_id == bundle.provenance["run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/video_auc"] == result.metrics["test/video_auc"]
    assert run.data.params["optim.lr"] == str(config.optim.lr)


def test_the_same_command_finds_the_finished_run(config):
    """Nothing is trained twice; another seed is another run."""
    config = dataclasses.replace(config, steps=2)
    first = job.train(config, register_model=False)
    second = job.train(config, register_model=False)
    assert dataclasses.replace(second, is_new=True) == first
    assert "finished already" in second.table()
    other = job.train(dataclasses.replace(config, seed=1), register_model=False)
    assert other.run != first.run


def test_an_interrupted_job_goes_on_under_the_same_run(config, monkeypatch):
    """The command given again takes the missing steps, and writes to the same MLflow run."""
    whole = job.train(
        dataclasses.replace(config, storage=config.storage + "-whole"), register_model=False
    )
    take = training_loop.Learner.learn

    def interrupt(self, bags, step):
        if step == 14:
            raise KeyboardInterrupt
        return take(self, bags, step)

    monkeypatch.setattr(training_loop.Learner, "learn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        job.train(config, register_model=False)
    assert find_runs(config.tracking_uri, {"outspike.run": whole.run})[0].info.status == "KILLED"
    monkeypatch.setattr(training_loop.Learner, "learn", take)
    assert "[10]" in job.describe(config)
    resumed = job.train(dataclasses.replace(config, resume=whole.run), register_model=False)
    assert (resumed.run, resumed.metrics) == (whole.run, whole.metrics)
    assert len(find_runs(config.tracking_uri, {"outspike.run": whole.run})) == 1


def test_cross_validation_chooses_the_steps_and_all_bags_are_trained_on(config):
    """The run ends at the step its folds found best, on the whole training split."""
    selection = SelectionConfig(split="cross_validation", num_folds=2, every_steps=4)
    result = job.train(
        dataclasses.replace(config, steps=8, selection=selection, bags_per_batch=4),
        register_model=False,
    )
    stored = json.loads((Path(result.url) / "run.json").read_text())
    validated = {int(step): value for step, value in stored["cross_validation"].items()}
    assert sorted(validated) == [4, 8]
    assert result.step == stored["last_step"] == max(validated, key=lambda s: (validated[s], -s))


def test_features_without_an_encoder_are_trained_on_and_give_no_bundle(config_of, tracking_uri):
    """Imported features can be learnt from; the table says why raw video cannot be scored."""
    config = config_of(protocol="folder", tracking_uri=tracking_uri, steps=2)
    result = job.train(config, register_model=False)
    assert result.bundle is None
    assert "none: the config's encoders" in result.table()


def test_an_encoder_with_other_settings_than_the_store_is_refused(config):
    """Scoring raw video with other features than were trained on is stopped before training."""
    grid = dataclasses.replace(EncoderConfig().grid, stride=8)
    other = dataclasses.replace(config, encoders=(EncoderConfig(grid=grid),))
    with pytest.raises(ConfigError, match=r"made by another encoder.*stride"):
        job.train(other, register_model=False)


def test_resuming_a_run_that_is_not_there_is_bad_usage(config):
    """A name that does not exist below the storage is said, with the storage."""
    with pytest.raises(ConfigError, match="No run 'nobody'"):
        job.train(dataclasses.replace(config, resume="nobody"))
    assert issubclass(ConfigError, ValueError)
    assert app.BAD_USAGE == 2


def test_checkpoints_of_changed_settings_are_not_gone_on_from(config):
    """A run folder whose settings were edited is refused, not silently retrained."""
    result = job.train(dataclasses.replace(config, steps=4), register_model=False)
    marker = next(Path(result.url).glob("checkpoints/*/checkpoint.json"))
    marker.write_text(marker.read_text().replace('"config_hash": "', '"config_hash": "0'))
    (Path(result.url) / "result.json").unlink()
    with pytest.raises(CheckpointError, match="another config"):
        job.train(
            dataclasses.replace(config, steps=4, resume=result.run, checkpoint_every=2),
            register_model=False,
        )
