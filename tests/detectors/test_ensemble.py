"""An ensemble is its members: each learns as it would alone, and scores are their mean."""

from dataclasses import replace

import pytest
import torch

from outspike.config import IefVadConfig, MsfConfig, SslsConfig
from outspike.detectors import build
from outspike.detectors.ensemble import Ensemble
from outspike.detectors.ssls import Ssls
from outspike.errors import ConfigError

MSF = MsfConfig(width=16, hidden=4, dropout=0.3, input_norm="standardise", members=3)
IEF_VAD = IefVadConfig(
    image_width=8,
    event_width=8,
    width=8,
    num_layers=1,
    num_heads=2,
    refinement_steps=1,
    members=2,
)


@pytest.mark.parametrize("config", [MSF, IEF_VAD], ids=lambda config: config.kind)
def test_a_score_is_the_mean_of_the_members(config, batch):
    """Members differ from the start, and none is left out."""
    torch.manual_seed(0)
    ensemble = build(config).eval()
    assert isinstance(ensemble, Ensemble)
    assert len(ensemble.members) == config.members
    bags = batch([6, 3], ensemble.feature_sets)
    if config.input_norm != "none":
        ensemble.fit_inputs([bags])
    each = torch.stack([member(bags).snippet for member in ensemble.members])
    torch.testing.assert_close(ensemble(bags).snippet, each.mean(dim=0))
    assert not torch.equal(each[0], each[1])


@pytest.mark.parametrize("config", [MSF, IEF_VAD], ids=lambda config: config.kind)
def test_each_member_takes_the_steps_it_would_take_alone(config, batch):
    """Adam with decay on the sum of all terms moves a member as Adam on its own terms does."""
    torch.manual_seed(1)
    config = replace(config, input_norm="none")
    if config.kind == "msf":
        config = replace(config, dropout=0.0)  # dropout keys are a member's own
    else:
        config = replace(config, attention_dropout=0.0)
    ensemble = build(config)
    alone = build(replace(config, members=1))
    alone.load_state_dict(ensemble.members[1].state_dict())
    for detector in (ensemble, alone):
        detector.train()
        optimiser = torch.optim.Adam(detector.parameters(), lr=1e-2, weight_decay=0.1)
        for step in range(3):
            bags = batch([6, 3, 5, 4], detector.feature_sets, step=step)
            optimiser.zero_grad()
            total, _ = _reduced(detector, bags)
            total.backward()
            optimiser.step()
    for ours, theirs in zip(ensemble.members[1].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def _reduced(detector, bags):
    ssls = Ssls(SslsConfig(), total_steps=3)
    return ssls.reduce(detector.loss(bags, detector(bags)), bags, 0)


def test_members_drop_different_spikes(batch):
    """With one set of weights for all, only dropout tells them apart."""
    torch.manual_seed(2)
    ensemble = build(replace(MSF, input_norm="none", dropout=0.5)).train()
    for member in ensemble.members[1:]:
        member.load_state_dict(ensemble.members[0].state_dict())
    bags = batch([12, 9], ensemble.feature_sets)
    with torch.no_grad():
        extras = ensemble(bags).extras
    assert not torch.equal(extras["0/snippet"], extras["1/snippet"])


def test_input_scaling_is_that_of_a_single_detector(batch):
    """Every member reads inputs scaled by the same means and deviations."""
    single, ensemble = build(replace(MSF, members=1)), build(MSF)
    bags = batch([6, 3, 8], single.feature_sets)
    single.fit_inputs([bags])
    ensemble.fit_inputs(iter([bags]))
    for member in ensemble.members:
        for name, value in single.standardise.state_dict().items():
            assert torch.equal(member.standardise.state_dict()[name], value)


def test_generated_bags_stay_out_of_every_members_statistics():
    """The setting reaches the members, and not only what holds them."""
    ensemble = build(MSF, isolate_stats=True)
    assert ensemble.isolate_stats
    assert all(member.isolate_stats for member in ensemble.members)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (replace(MSF, members=0), "members=0: at least one"),
        (
            MsfConfig(width=16, hidden=4, compat="msf_2025", members=2),
            "one published network; set members=1",
        ),
    ],
)
def test_impossible_ensembles_are_refused(wrong, told):
    """In one line, before anything is trained."""
    with pytest.raises(ConfigError, match=told):
        build(wrong)
