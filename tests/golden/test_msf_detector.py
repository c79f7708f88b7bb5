"""The whole MSF detector against the published one: stages, scores, and a training step."""

import dataclasses

import numpy as np
import pytest
import torch

from outspike.config import MsfConfig, SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.checkpoints import import_checkpoint
from outspike.detectors.msf import published
from outspike.detectors.ssls import Ssls

FORWARD = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 1e-5, "rtol": 1e-4}


def tensor(array):
    return torch.from_numpy(np.array(array))


def published_state(golden):
    return {k: tensor(v) for k, v in golden.sibling("msf_state.npz").group("state/").items()}


@pytest.fixture
def load(tmp_path):
    """Import a published state dict from a file, as users do."""

    def build(state, **settings):
        path = tmp_path / "iter_200.pkl"
        torch.save(state, path)
        config = dataclasses.replace(published.config_of(state), **settings)
        return import_checkpoint("msf", path, config)

    return build


def full(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


def bags_of(model, x, lengths, labels):
    num, rows = x.shape[:2]
    return Bags(
        features={model.config.feature_set: x[:, None]},
        num_snippets=tensor(lengths),
        labels=tensor(labels).flatten(),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=torch.zeros(num, rows, 2, dtype=torch.int64),
        bag_ids=tuple(f"golden/{i}" for i in range(num)),
    )


@pytest.mark.golden("msf/msf_eval*.npz")
def test_scores_and_features_equal_the_published_model(golden, load):
    """Eval mode with batch mixing: features and scores of a batch and of a bag alone."""
    model = load(published_state(golden), compat="msf_2025")
    x = tensor(golden["in/x"])
    with torch.no_grad():
        features, _ = model.features(x, mask=full(x))
        scores, _ = model.score(x, mask=full(x))
        alone, _ = model.score(x[:1], mask=full(x[:1]))
        short, _ = model.score(x[:, :1], mask=full(x[:, :1]))
    np.testing.assert_allclose(features, golden["out/features"], **FORWARD)
    np.testing.assert_allclose(scores, golden["out/scores"][..., 0], **FORWARD)
    np.testing.assert_allclose(alone, golden["out/b1_scores"][..., 0], **FORWARD)
    np.testing.assert_allclose(short, golden["out/t1_scores"][..., 0], **FORWARD)


@pytest.mark.golden("msf/msf_eval*.npz")
def test_every_stage_spikes_like_the_published_model(golden, load):
    """Branches, carried membranes, graph passes and TIM: spikes exactly equal."""
    model = load(published_state(golden), compat="msf_2025")
    fusion, x = model.fusion, tensor(golden["in/x"])
    u, v = x.transpose(1, 2), None
    fired = []
    with torch.no_grad():
        for i, branch in enumerate(fusion.branches):
            current = branch(u, None)
            np.testing.assert_allclose(current, golden[f"stage/conv_{i + 1}"], **FORWARD)
            spikes, v = fusion._fire(current, v, None)
            np.testing.assert_array_equal(spikes.transpose(0, 1), golden[f"stage/lif_call_{i}"])
            np.testing.assert_allclose(v, golden[f"stage/lif_state_after_{i}"], **FORWARD)
            fired.append(spikes)
        spikes, v = fusion._fire(fusion.gate(u), v, None)
        np.testing.assert_array_equal(spikes.transpose(0, 1), golden["stage/lif_call_3"])
        mixed, _ = fusion.graph(spikes)
        np.testing.assert_allclose(mixed.transpose(1, 2), golden["stage/SpikingGCN"], **FORWARD)
        spikes, v = fusion._fire(mixed.transpose(1, 2), v, None)
        np.testing.assert_array_equal(spikes.transpose(0, 1), golden["stage/lif_call_4"])
        np.testing.assert_allclose(v, golden["stage/lif_state_after_4"], **FORWARD)
        out, _ = fusion.tim(torch.cat([*fired, spikes], dim=2))
    np.testing.assert_array_equal(out, golden["stage/tim"])


@pytest.mark.golden("msf/msf_eval*.npz")
def test_state_handed_on_equals_the_published_model_without_reset(golden, load):
    """A second call that is given the first call's membranes repeats the reference's stale call."""
    model = load(published_state(golden), compat="msf_2025")
    x = tensor(golden["in/x"])[:1]
    with torch.no_grad():
        _, state = model.score(x, mask=full(x))
        stale, _ = model.score(x, mask=full(x), state=state)
        clean, _ = model.score(x, mask=full(x))
    np.testing.assert_allclose(
        stale, golden["out/b1_no_reset_second_call_scores"][..., 0], **FORWARD
    )
    np.testing.assert_allclose(clean, golden["out/b1_scores"][..., 0], **FORWARD)


@pytest.mark.golden("msf/msf_eval*.npz")
def test_the_default_form_scores_each_bag_as_the_published_model_does_alone(golden, load):
    """Without padding, the default form in a batch is the published form for a batch of one."""
    state = published_state(golden)
    default, compat = load(state), load(state, compat="msf_2025")
    x = tensor(golden["in/x"])
    with torch.no_grad():
        together, _ = default.score(x, mask=full(x))
        alone = [compat.score(bag[None], mask=full(bag[None]))[0][0] for bag in x]
    np.testing.assert_allclose(together, torch.stack(alone), **FORWARD)


@pytest.mark.golden("msf/msf_train*.npz")
def test_a_training_step_repeats_the_published_one(golden, load):
    """Losses, gradients, parameters after one Adam step and running statistics."""
    state = published_state(golden)
    state["classifier.weight"] = tensor(golden["in/classifier_weight"])
    mil_weight, smooth_weight = golden["in/lambda"]
    assert mil_weight == 1.0
    model = load(
        state,
        compat="msf_2025",
        dropout=0.0,
        mil_divisor=golden.number("in/k"),
        smooth_weight=float(smooth_weight),
    ).train()
    bags = bags_of(model, tensor(golden["in/x"]), golden["in/seq_len"], golden["in/labels"])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4)
    scores = model(bags)
    total, log = Ssls(SslsConfig(), total_steps=1).reduce(model.loss(bags, scores), bags, 0)
    total.backward()
    np.testing.assert_allclose(
        scores.extras["unmasked"].detach(), golden["out/scores"][..., 0], **FORWARD
    )
    assert log["mil"] == pytest.approx(golden.number("loss/mil"), abs=1e-6)
    assert log["smooth"] == pytest.approx(golden.number("loss/smooth"), abs=1e-6)
    assert total.item() == pytest.approx(golden.number("loss/total"), abs=1e-6)
    ours = published.NAMES.key_map(model)
    for name, expected in golden.group("grad/").items():
        found = model.get_parameter(ours[name.removesuffix("[:4]")]).grad
        np.testing.assert_allclose(found[: len(expected)], expected, **GRADIENT, err_msg=name)
    for name, expected in golden.group("grad_norm/").items():
        found = model.get_parameter(ours[name]).grad.norm()
        np.testing.assert_allclose(found, expected[0], rtol=1e-4, err_msg=name)
    optimiser.step()
    after = model.state_dict()
    for name, expected in golden.group("after_step/").items():
        np.testing.assert_allclose(after[ours[name]], expected, atol=1e-6, err_msg=name)


@pytest.mark.golden("msf/msf_state*.npz")
def test_a_published_checkpoint_survives_the_round_trip(golden, load):
    """Import in the default form, export: every entry that acts comes back bit for bit."""
    state = {k: tensor(v) for k, v in golden.group("state/").items()}
    exported = published.export_published(load(state))
    assert {k: v.shape for k, v in exported.items()} == {k: v.shape for k, v in state.items()}
    for key, value in state.items():
        if not published.is_unused(key):
            assert torch.equal(exported[key], value), key


@pytest.mark.golden("msf/msf_state*.npz")
def test_the_number_of_parameters_in_use_is_the_published_one(golden):
    """392,129 values act at the published size; imports carry nothing else."""
    config = published.config_of({k: tensor(v) for k, v in golden.group("state/").items()})
    model_config = dataclasses.replace(config, compat="msf_2025")
    assert isinstance(model_config, MsfConfig)
    from outspike.detectors.msf import Msf

    acting = sum(p.numel() for p in Msf(model_config).parameters())
    if (config.width, config.hidden) == (256, 64):
        assert acting == 392_129
