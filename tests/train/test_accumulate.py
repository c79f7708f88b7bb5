"""A batch taken in pieces gives the gradients, losses and steps of the whole, or is refused."""

import dataclasses

import pytest
import torch

from outspike.config import (
    ComputeConfig,
    DataConfig,
    OptimConfig,
    SslsConfig,
    StoreConfig,
    TrainConfig,
)
from outspike.detectors.build import DETECTORS
from outspike.errors import ConfigError
from outspike.store.store import FeatureStore
from outspike.train.data import TrainingBags
from outspike.train.plan import make_plan
from outspike.train.step import Learner

DIVISIBLE = ("ief_vad", "aed_t")


def learned(config: TrainConfig, num_pieces: int, num_steps: int = 4):
    """Losses of every step, last gradients and weights of a run in double precision."""
    compute = dataclasses.replace(config.compute, accumulate=num_pieces)
    plan = make_plan(dataclasses.replace(config, compute=compute))
    learner, source = Learner(plan.config, dtype=torch.float64), TrainingBags(plan)
    learner.prepare(source)
    losses = dict(learner.steps(source, start=0, stop=num_steps))
    gradients = {n: p.grad for n, p in learner.objective.named_parameters() if p.grad is not None}
    return losses, gradients, dict(learner.objective.state_dict())


@pytest.fixture(scope="module")
def supervised(small_data, tmp_path_factory) -> dict[str, object]:
    """Settings of a run on frame labels."""
    url = str(tmp_path_factory.mktemp("supervised"))
    recordings = small_data.annotated(small_data.recordings(6, 9), "folder")
    small_data.fill(FeatureStore.create(url), recordings, [small_data.spec("motion")])
    return {
        "data": DataConfig(dataset="folder"),
        "store": StoreConfig(url=url),
        "protocol": "folder",
    }


@pytest.mark.parametrize(
    ("detector", "ssls"),
    [
        ("aed_t", SslsConfig()),
        ("ief_vad", SslsConfig(policy="learned", scale=2.0)),
        ("ief_vad", SslsConfig(scale=0.3, normalise="weight")),
        ("ief_vad", SslsConfig(mode="batch_scalar", scale=0.3)),
    ],
    ids=["aed", "ief-learned", "ief-by-weight", "ief-published"],
)
@pytest.mark.parametrize(
    "num_pieces",
    [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(8, marks=pytest.mark.slow)],
)
def test_pieces_add_up_to_the_whole(config_of, supervised, detector, ssls, num_pieces):
    """Also uneven ones, single bags, and generated bags that some pieces lack."""
    more: dict[str, object] = {"ssls": ssls, "optim": OptimConfig(lr=1e-2, clip_norm=0.5)}
    more |= supervised if detector == "aed_t" else {"synthetic_per_batch": 2}
    config = config_of(detector, **more)
    if detector == "ief_vad":
        dropped = dataclasses.replace(config.detector, attention_dropout=0.3)
        config = dataclasses.replace(config, detector=dropped)
    whole, pieces = learned(config, 1), learned(config, num_pieces)
    assert whole[0].keys() == pieces[0].keys()
    for step, values in whole[0].items():
        assert pieces[0][step] == pytest.approx(values, rel=1e-9, abs=1e-12)
    for one, other in zip(whole[1:], pieces[1:], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=1e-9, atol=1e-11)


def test_detectors_whose_bags_meet_before_the_loss_are_refused(config_of):
    """Every detector either adds up or says in one line why it cannot."""
    for kind in ("msf", "saa", "gv_vad"):
        config = config_of(kind, compute=ComputeConfig(accumulate=2))
        with pytest.raises(ConfigError, match=f"{kind}.*statistics of the whole batch") as caught:
            Learner(config)
        with pytest.raises(ConfigError, match="cannot be trained in pieces"):
            make_plan(config)
        assert "\n" not in str(caught.value)
    told = {"msf", "saa", "gv_vad", *DIVISIBLE, "aed", "motion_floor"}
    assert told == set(DETECTORS)


def test_a_learned_published_scale_is_refused_in_pieces(config_of):
    """Its gradient is that of the whole cost."""
    ssls = SslsConfig(mode="batch_scalar", policy="learned")
    with pytest.raises(ConfigError, match="batch_scalar"):
        learned(config_of("ief_vad", ssls=ssls, synthetic_per_batch=2), 2, num_steps=1)
