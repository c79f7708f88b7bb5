"""Cross-validation inside the training split: scores by models that never saw the recording."""

import dataclasses

import pytest

from outspike.config import (
    MotionFloorConfig,
    OptimConfig,
    SelectionConfig,
    StoreConfig,
)
from outspike.encoders import build
from outspike.errors import ConfigError, DatasetError
from outspike.evaluate.protocols import get_protocol
from outspike.recipes import FRAME_MOTION
from outspike.store.store import FeatureStore
from outspike.train.crossval import cross_validate
from outspike.train.plan import make_plan
from outspike.train.select import held_out_metric, selection_protocol


def selecting(**changes):
    return SelectionConfig(split="cross_validation", num_folds=3, every_steps=5, **changes)


def test_every_training_recording_is_scored_out_of_fold_once_a_step(config_of):
    """Scores of all real training recordings, at every evaluation, and a metric of them pooled."""
    config = config_of(steps=12, bags_per_batch=4, synthetic_per_batch=2, selection=selecting())
    seen = []
    found = cross_validate(config, tell=lambda *news: seen.append(news))
    assert sorted(found.metrics) == [5, 10, 12]
    real = sorted(r.key for r in make_plan(config).training if not r.synthetic)
    for scores in found.scores.values():
        assert sorted(video.key for video in scores) == real
    assert seen == [(step, {"held_out/video_auc": value}) for step, value in found.metrics.items()]
    assert found.best == max(found.metrics.values())
    assert held_out_metric(config, found.best_scores) == found.best


def test_it_learns_what_there_is_to_learn_and_repeats_itself(config_of):
    """On data with a rule, out-of-fold AUC is well above chance, and the same on every call."""
    config = config_of(
        "ief_vad", steps=20, selection=selecting(), optim=OptimConfig(lr=3e-3), bags_per_batch=8
    )
    first, second = cross_validate(config), cross_validate(config)
    assert first.metrics == second.metrics
    assert first.best > 0.8


def test_the_fewest_steps_win_a_tie(config_of):
    """Among equals the shorter training is taken."""
    found = cross_validate(config_of(steps=5, selection=selecting()))
    tied = dataclasses.replace(found, metrics={10: 0.7, 5: 0.9, 15: 0.9})
    assert tied.best_step == 5


def test_a_rule_without_gradient_is_fitted_in_every_fold(config_of, tmp_path, small_data):
    """motion_floor goes through the same function."""
    store = FeatureStore.create(str(tmp_path / "motion"))
    small_data.fill(store, small_data.recordings(6, 6), [build(FRAME_MOTION).spec()])
    config = config_of(
        MotionFloorConfig(form="logistic"),
        store=StoreConfig(url=store.url),
        encoders=(FRAME_MOTION,),
        selection=selecting(),
    )
    found = cross_validate(config)
    assert list(found.metrics) == [0]
    assert len(found.best_scores) == 12


def test_folds_that_cannot_fill_a_batch_are_one_clear_line(config_of):
    """What remains of the split after a fold is held out must still fill each half."""
    with pytest.raises(DatasetError, match="takes 10 each step"):
        cross_validate(config_of(bags_per_batch=20, selection=selecting()))


def test_a_metric_must_exist_and_be_defined(config_of):
    """An unknown metric, or one that needs frame labels nobody gave, is said in one line."""
    with pytest.raises(ConfigError, match="expected one of auc"):
        selection_protocol(config_of(selection=selecting(metric="accuracy")))
    with pytest.raises(ConfigError, match="'auc' is not defined on the 20"):
        cross_validate(config_of(steps=5, selection=selecting(metric="auc")))
    assert get_protocol("miniature").dataset != selection_protocol(config_of()).dataset
