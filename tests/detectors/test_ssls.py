"""SSLS: exact at one, gone at zero, bounded and alive when learned."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outspike.config import (
    AedConfig,
    GvVadConfig,
    IefVadConfig,
    MsfConfig,
    SaaConfig,
    SslsConfig,
    TrainConfig,
)
from outspike.detectors.base import LossTerm
from outspike.detectors.build import build
from outspike.detectors.reduce import reduce_terms
from outspike.detectors.ssls import DECAYS, WARMUPS, Ssls, schedule_value
from outspike.errors import ConfigError

CONFIGS = {
    "msf": MsfConfig(width=16, hidden=4, dropout=0.3),
    "ief_vad": IefVadConfig(
        image_width=8,
        event_width=8,
        width=8,
        num_layers=1,
        num_heads=2,
        refinement_steps=1,
        window=16,
    ),
    "gv_vad": GvVadConfig(visual_width=12, text_width=8, hidden=8, dropout=0.3, mpl_weight=5.0),
}
#: Forms that have terms of their own; what weight zero does to them is in their own files.
OTHERS = {
    "saa": SaaConfig(width=12, attention_width=8, classifier_widths=(8, 4), dropout=0.3),
    "aed": AedConfig(kind="aed", width=16, window=3, hidden=4, down=8, head=6),
    "aed_t": AedConfig(width=16, window=3, hidden=4, down=8, head=6),
    "msf published": MsfConfig(width=16, hidden=4, dropout=0.3, compat="msf_2025"),
    "ief_vad published": replace(CONFIGS["ief_vad"], compat="ief_vad_2025"),
    "saa published": SaaConfig(
        width=8, attention_width=8, classifier_widths=(8, 4), dropout=0.3, compat="saa_2024"
    ),
    "aed published": AedConfig(
        kind="aed", width=16, window=3, hidden=4, down=8, head=6, compat="lad2000"
    ),
}
LENGTHS = [9, 3, 14, 6, 11, 8]
SYNTHETIC = [False, True, False, True, False, False]


def setting(batch, name, **ssls):
    torch.manual_seed(0)
    config = (CONFIGS | OTHERS)[name]
    detector = build(config, isolate_stats=ssls.get("isolate_stats", False)).train()
    if name == "gv_vad":  # prompts that the captions below do resemble
        detector.bank = torch.rand(2, config.text_width)
    if name == "msf":  # a silent network would pass any test of zero gradients
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                torch.nn.init.constant_(module.bias, 0.8)
    supervised = detector.needs_frame_labels
    bags = batch(LENGTHS, detector.feature_sets, synthetic=SYNTHETIC, supervised=supervised)
    return detector, bags, Ssls(SslsConfig(**ssls), total_steps=10)


def loss_and_gradients(detector, bags, ssls):
    detector.zero_grad()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    total, log = ssls.reduce(detector.loss(bags, detector(bags)), bags, 0)
    total.backward()
    detector.load_state_dict(before)
    return total.detach(), {n: p.grad.clone() for n, p in detector.named_parameters()}, log


@pytest.mark.parametrize("name", list(CONFIGS | OTHERS))
def test_a_weight_of_one_is_no_scaling_bit_for_bit(batch, name):
    """Loss and every gradient at lambda = 1 equal those with SSLS off."""
    detector, bags, one = setting(batch, name, scale=1.0)
    off = Ssls(SslsConfig(mode="unweighted"), total_steps=10)
    loss_one, grads_one, _ = loss_and_gradients(detector, bags, one)
    loss_off, grads_off, _ = loss_and_gradients(detector, bags, off)
    assert torch.equal(loss_one, loss_off)
    for key, grad in grads_off.items():
        assert torch.equal(grads_one[key], grad), key


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_weight_of_zero_silences_the_scores_of_synthetic_bags(batch, name):
    """Exactly zero gradient with respect to a synthetic bag's scores, in every term."""
    detector, bags, ssls = setting(batch, name, scale=0.0)
    scores = detector(bags)
    leaves = {"snippet": scores.snippet.detach().requires_grad_()}
    scores.snippet = leaves["snippet"]
    for key, value in scores.extras.items():
        leaves[key] = value.detach().requires_grad_()
        scores.extras[key] = leaves[key]
    total, _ = ssls.reduce(detector.loss(bags, scores), bags, 0)
    total.backward()
    for key, leaf in leaves.items():
        if leaf.grad is not None:
            assert torch.equal(leaf.grad[bags.synthetic], torch.zeros_like(leaf[bags.synthetic]))
            assert leaf.grad[~bags.synthetic].any(), key


@pytest.mark.parametrize("name", list(CONFIGS))
def test_isolated_statistics_leave_synthetic_inputs_without_gradient(batch, name):
    """With isolate_stats, lambda = 0 cuts a synthetic bag off altogether; real bags still learn."""
    detector, bags, ssls = setting(batch, name, scale=0.0, isolate_stats=True)
    leaves = {}
    for key, rows in bags.features.items():
        leaves[key] = rows.clone().requires_grad_()
        bags.features[key] = leaves[key]
    total, _ = ssls.reduce(detector.loss(bags, detector(bags)), bags, 0)
    total.backward()
    for leaf in leaves.values():
        assert not leaf.grad[bags.synthetic].any()
        assert leaf.grad[~bags.synthetic].any()


def test_isolated_statistics_do_not_move_with_synthetic_bags(batch):
    """Scores of real bags and running statistics are the same whatever synthetic bags hold."""
    outcomes = []
    for factor in (1.0, 5.0):
        detector, bags, _ = setting(batch, "msf", isolate_stats=True)
        for rows in bags.features.values():
            rows[bags.synthetic] *= factor
        scores = detector(bags).snippet[~bags.synthetic]
        running = [b for n, b in detector.named_buffers() if "running" in n]
        outcomes.append([scores.detach(), *running])
    for a, b in zip(*outcomes, strict=True):
        assert torch.equal(a, b)


def test_isolation_cannot_be_promised_where_bags_mix():
    """The published TIM layer mixes bags, so asking for both is refused."""
    with pytest.raises(ConfigError, match="isolate_stats"):
        build(replace(CONFIGS["msf"], compat="msf_2025"), isolate_stats=True)


@given(
    warmup=st.sampled_from(sorted(WARMUPS)),
    decay=st.sampled_from(sorted(DECAYS)),
    total=st.integers(1, 3000),
    step=st.integers(-5, 4000),
)
def test_schedules_stay_in_range_and_end_where_the_run_ends(warmup, decay, total, step):
    """Values lie in [0, 1], and steps past the end keep the value of the end."""
    name = f"{warmup}_{decay}"
    value = schedule_value(name, step, total)
    assert 0.0 <= value <= 1.0 + 1e-12
    if step >= total:
        assert value == schedule_value(name, total, total)
    if step <= 0 and int(0.1 * total) > 0:
        assert value == pytest.approx(0.001)


@pytest.mark.parametrize("name", ["", "linear", "linear_linear", "cosine_cosine_x", "none"])
def test_unknown_schedules_are_refused_with_the_known_names(name):
    """A misspelt schedule fails at construction, not at step 900."""
    with pytest.raises(ConfigError, match="linear"):
        Ssls(SslsConfig(policy="schedule", schedule=name), total_steps=10)


def test_a_schedule_must_be_named_and_stands_alone():
    """No default shape is assumed, and a learned scale takes none on top."""
    with pytest.raises(ConfigError, match="linear_cosine"):
        SslsConfig(policy="schedule")
    with pytest.raises(ConfigError, match="sets itself"):
        SslsConfig(policy="learned", schedule="linear_none")


@pytest.mark.parametrize("mode", ["off", "unweighted"])
def test_without_scaling_the_loss_is_that_of_weight_one(batch, mode):
    """Both names compute the same; a weight set beside them is not used."""
    bags = batch(LENGTHS, {"f": 2}, synthetic=SYNTHETIC)
    term = made_up_term(3.0, bags)
    found, log = Ssls(SslsConfig(mode=mode, scale=0.25), total_steps=10).reduce([term], bags, 0)
    assert torch.equal(found, Ssls(SslsConfig(), total_steps=10).reduce([term], bags, 0)[0])
    assert log["ssls/scale"] == 1.0


def test_off_admits_no_generated_bag_to_a_run():
    """What was once trained on at full weight is refused, with both ways out named."""
    with pytest.raises(ConfigError, match=r"set it to 0, or ssls\.mode='unweighted'"):
        TrainConfig(ssls=SslsConfig(mode="off"), synthetic_per_batch=4)
    TrainConfig(ssls=SslsConfig(mode="off"))
    TrainConfig(ssls=SslsConfig(mode="unweighted"), synthetic_per_batch=4)


def made_up_term(value, bags):
    """A synthetic loss of a given size, and a real one of 1."""
    values = torch.where(bags.synthetic, value, 1.0)
    owners = torch.arange(bags.num_bags)[:, None]
    return LossTerm(name="t", values=values, counts=torch.ones_like(values), bags=owners)


@pytest.mark.parametrize(("size", "expected"), [(4.0, 0.25), (2.0, 0.5), (0.1, 1.0)])
def test_a_learned_scale_settles_at_one_over_the_synthetic_loss(batch, size, expected):
    """It neither collapses to zero nor passes its bound, from its start to the optimum."""
    bags = batch(LENGTHS, {"f": 2}, synthetic=SYNTHETIC)
    ssls = Ssls(SslsConfig(policy="learned", scale=1.0), total_steps=10)
    (group,) = ssls.parameter_groups(lr=0.1)
    assert group["weight_decay"] == 0.0
    optimiser = torch.optim.Adam([group])
    for step in range(300):
        optimiser.zero_grad()
        total, log = ssls.reduce([made_up_term(size, bags)], bags, step)
        total.backward()
        optimiser.step()
        assert 0.0 < log["ssls/scale"] < 1.0
    assert log["ssls/synthetic"] == pytest.approx(size)
    assert log["ssls/scale"] == pytest.approx(expected, abs=0.03)


def test_a_learned_scale_takes_no_part_in_the_loss_itself(batch):
    """The logged loss is the weighted one; the signal adds a gradient, not a value."""
    bags = batch(LENGTHS, {"f": 2}, synthetic=SYNTHETIC)
    ssls = Ssls(SslsConfig(policy="learned", scale=1.0), total_steps=10)
    term = made_up_term(3.0, bags)
    total, log = ssls.reduce([term], bags, 0)
    plain, _ = reduce_terms([term], ssls.weights(bags, 0))
    assert torch.equal(total, plain)
    assert log["ssls/share"] == pytest.approx(2 / 6)
    assert log["ssls/real"] == pytest.approx(1.0)


def test_a_batch_without_synthetic_bags_gives_the_learned_scale_a_zero_gradient(batch):
    """The parameter takes part in every step, so that no rank waits for another."""
    bags = batch(LENGTHS, {"f": 2})
    ssls = Ssls(SslsConfig(policy="learned", scale=1.0), total_steps=10)
    total, _ = ssls.reduce([made_up_term(3.0, bags)], bags, 0)
    total.backward()
    assert ssls.rho.grad.item() == 0.0


def test_the_scheduled_scale_multiplies_the_peak(batch):
    """``scale`` is the peak that a schedule shapes; real bags stay at one."""
    bags = batch(LENGTHS, {"f": 2}, synthetic=SYNTHETIC)
    config = SslsConfig(policy="schedule", schedule="linear_none", scale=0.5)
    ssls = Ssls(config, total_steps=100)
    assert ssls.weights(bags, 5)[1].item() == pytest.approx(0.5 * (0.001 + 0.999 * 0.5))
    assert ssls.weights(bags, 50)[1].item() == 0.5
    assert ssls.weights(bags, 5)[0].item() == 1.0


def test_impossible_scales_are_refused():
    """A negative weight would reward errors, a bound of zero could not learn."""
    with pytest.raises(ConfigError, match="scale"):
        Ssls(SslsConfig(scale=-1.0), total_steps=10)
    with pytest.raises(ConfigError, match="scale"):
        Ssls(SslsConfig(policy="learned", scale=0.0), total_steps=10)
