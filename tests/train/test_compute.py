"""What may change how a step is computed changes nothing of what is learnt."""

import dataclasses

import pytest
import torch

from outspike.config import ComputeConfig
from outspike.train import checkpoint as checkpoints
from outspike.train.data import TrainingBags
from outspike.train.loop import run
from outspike.train.plan import make_plan
from outspike.train.step import Learner, training_hash


def losses_of(config, num_steps: int = 6) -> list[float]:
    plan = make_plan(config)
    learner, source = Learner(plan.config), TrainingBags(plan)
    learner.prepare(source)
    return [values["total"] for _, values in learner.steps(source, start=0, stop=num_steps)]


def test_reading_ahead_changes_no_bit(config_of):
    """Nor the name of the run: it is where and how fast, not what."""
    plain = config_of()
    ahead = dataclasses.replace(plain, compute=ComputeConfig(prefetch=3))
    assert losses_of(ahead) == losses_of(plain)
    assert training_hash(ahead) == training_hash(plain)
    wide = dataclasses.replace(plain, compute=ComputeConfig(precision="bfloat16"))
    assert training_hash(wide) != training_hash(plain)


@pytest.mark.parametrize(
    "kind",
    ["msf", *(pytest.param(k, marks=pytest.mark.slow) for k in ("ief_vad", "saa", "gv_vad"))],
)
def test_half_precision_stays_near_and_keeps_weights_and_scores_whole(config_of, tmp_path, kind):
    """Losses within two percent, everything that is kept in float32."""
    config = config_of(kind)
    if kind == "gv_vad":
        bank = dataclasses.replace(config.detector, pal_weight=0.0, mpl_weight=0.0)
        config = dataclasses.replace(config, detector=bank)
    low = dataclasses.replace(config, compute=ComputeConfig(precision="bfloat16"))
    assert losses_of(low) == pytest.approx(losses_of(config), rel=0.02)
    learner = Learner(low)
    source = TrainingBags(make_plan(low))
    learner.prepare(source)
    learner.learn(source.batch(0, learner.world), 0)
    kept = learner.checkpoint(1)
    for tensors in (kept.model, kept.optimiser):
        floats = {value.dtype for value in tensors.values() if value.is_floating_point()}
        assert floats == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "compute"),
    [
        ("ief_vad", ComputeConfig(accumulate=3, prefetch=2)),
        ("msf", ComputeConfig(precision="bfloat16", prefetch=1)),
    ],
)
def test_a_resumed_run_is_bit_identical_under_every_option(config_of, tmp_path, kind, compute):
    """Interrupted after a checkpoint, it ends with the weights of the undisturbed run."""
    plan = make_plan(config_of(kind, steps=8, checkpoint_every=4, compute=compute))
    whole = run(plan, str(tmp_path / "whole"))

    def stop(step, *_):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, str(tmp_path / "parts"), report=stop)
    parts = run(plan, str(tmp_path / "parts"))
    one, other = (checkpoints.load(found.checkpoint) for found in (whole, parts))
    for name in one.model:
        assert torch.equal(one.model[name], other.model[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["msf", "saa"])
def test_a_compiled_detector_learns_what_the_plain_one_does(config_of, kind):
    """Compiling moves the losses by rounding only; MSF's neurons stay numba's."""
    config = config_of(kind)
    compiled = dataclasses.replace(config, compute=ComputeConfig(compile=True))
    assert losses_of(compiled) == pytest.approx(losses_of(config), rel=1e-5)
