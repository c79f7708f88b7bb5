"""A run that stops and goes on is the run that never stopped, bit for bit."""

import dataclasses

import pytest
import torch

from outspike.config import OptimConfig, SelectionConfig, SslsConfig
from outspike.errors import CheckpointError, TrainingError
from outspike.train import checkpoint as checkpoints
from outspike.train.data import TrainingBags
from outspike.train.loop import run
from outspike.train.plan import make_plan
from outspike.train.step import Learner


def trained(config, url, stop=None):
    """Train to ``stop``, as if the process had ended there, and return the state."""
    plan = make_plan(config)
    learner, source = Learner(plan.config), TrainingBags(plan)
    done = checkpoints.complete_steps(url)
    if done:
        learner.restore(checkpoints.load(checkpoints.folder_of(url, done[-1])))
    else:
        learner.prepare(source)
    losses = dict(learner.steps(source, start=done[-1] if done else 0, stop=stop or config.steps))
    checkpoints.save(url, learner.checkpoint(stop or config.steps))
    return learner.checkpoint(stop or config.steps), losses


@pytest.mark.parametrize(
    ("detector", "optimiser"), [("msf", "adamw"), ("msf", "sgd"), ("ief_vad", "adam")]
)
def test_twenty_steps_are_ten_and_ten_more(config_of, tmp_path, detector, optimiser):
    """Weights, buffers, optimiser state and losses are equal bit for bit, dropout included."""
    config = config_of(
        detector,
        optim=OptimConfig(
            optimiser=optimiser,
            lr=1e-2,
            schedule="cosine",
            clip_norm=1.0,
            momentum=0.9 if optimiser == "sgd" else 0.0,
        ),
        ssls=SslsConfig(policy="learned", scale=2.0),
        synthetic_per_batch=2,
    )
    dropout = {"dropout": 0.5} if detector == "msf" else {"attention_dropout": 0.2}
    config = dataclasses.replace(config, detector=dataclasses.replace(config.detector, **dropout))
    whole, losses = trained(config, str(tmp_path / "whole"))
    trained(config, str(tmp_path / "parts"), stop=10)
    parts, later = trained(config, str(tmp_path / "parts"))
    assert later == {step: values for step, values in losses.items() if step > 10}
    for one, other in ((whole.model, parts.model), (whole.optimiser, parts.optimiser)):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("address", ["local", "s3"])
def test_a_run_goes_on_from_its_newest_complete_checkpoint(config_of, request, tmp_path, address):
    """Called again on the same address, a run takes only the steps that are missing."""
    base = str(tmp_path) if address == "local" else request.getfixturevalue("s3_bucket")
    plan = make_plan(config_of(steps=12, checkpoint_every=5))
    whole = run(plan, f"{base}/whole")
    taken = []
    with pytest.raises(KeyboardInterrupt):
        run(plan, f"{base}/parts", report=lambda step, *_: stop_at(step, 5))
    resumed = run(plan, f"{base}/parts", report=lambda step, *_: taken.append(step))
    assert taken == [10, 12]
    one, other = (checkpoints.load(outcome.checkpoint) for outcome in (whole, resumed))
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    assert run(plan, f"{base}/parts") == resumed


def stop_at(step, last):
    if step == last:
        raise KeyboardInterrupt


def test_the_best_step_is_remembered_over_a_resume(config_of, tmp_path):
    """Selection goes on where it was; the checkpoint it holds best is never pruned."""
    selection = SelectionConfig(split="holdout", share=0.3, every_steps=3)
    plan = make_plan(config_of(steps=15, checkpoint_every=100, selection=selection))
    whole = run(plan, str(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run(plan, str(tmp_path / "parts"), report=lambda step, *_: stop_at(step, 9))
    resumed = run(plan, str(tmp_path / "parts"))
    assert (resumed.step, resumed.metrics) == (whole.step, whole.metrics)
    kept = checkpoints.complete_steps(str(tmp_path / "parts"))
    assert set(kept) == {whole.step, 15}


def test_a_checkpoint_of_another_config_is_refused(config_of):
    """Going on with other settings would be another run under the same name."""
    plan = make_plan(config_of())
    made = Learner(plan.config).checkpoint(3)
    other = dataclasses.replace(plan.config, optim=OptimConfig(lr=0.5))
    with pytest.raises(CheckpointError, match="another config"):
        Learner(other).restore(made)
    moved = dataclasses.replace(plan.config, storage="elsewhere", num_workers=2, name="renamed")
    Learner(moved).restore(made)


def test_weights_that_do_not_fit_are_listed(config_of):
    """Missing, extra and wrongly shaped entries are named."""
    learner = Learner(make_plan(config_of()).config)
    made = learner.checkpoint(3)
    name = next(name for name in made.model if name.endswith("classifier.weight"))
    broken = {**made.model, name: torch.zeros(1, 1), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"extra \['extra'\].*classifier"):
        learner.restore(dataclasses.replace(made, model=broken))
    with pytest.raises(CheckpointError, match="fits no parameter"):
        learner.restore(dataclasses.replace(made, optimiser={"x/exp_avg": torch.zeros(2)}))


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(config_of):
    """One clear line with the terms and bags, and weights as they were."""
    config = config_of()
    detector = dataclasses.replace(config.detector, smooth_weight=1e300)
    plan = make_plan(dataclasses.replace(config, detector=detector))
    learner, source = Learner(plan.config), TrainingBags(plan)
    learner.prepare(source)
    bags = source.batch(0, learner.world)
    before = {name: value.clone() for name, value in learner.detector.named_parameters()}
    with pytest.raises(TrainingError, match="Step 0: loss or gradient is not finite"):
        learner.learn(bags, 0)
    for name, value in learner.detector.named_parameters():
        assert torch.equal(before[name], value)


def test_scores_that_are_not_finite_are_told_in_our_words(config_of):
    """Weights that a wild step has thrown away end the run in a line that says what to do."""
    config = config_of()
    optim = dataclasses.replace(config.optim, lr=1e30)
    plan = make_plan(dataclasses.replace(config, optim=optim))
    learner, source = Learner(plan.config), TrainingBags(plan)
    learner.prepare(source)
    learner.learn(source.batch(0, learner.world), 0)
    with pytest.raises(TrainingError, match=r"Step 1: scores are not finite; .* Lower optim\.lr"):
        learner.learn(source.batch(1, learner.world), 1)
