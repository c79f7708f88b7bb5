"""SAA's networks against the authors' model, and a training step against the derived one."""

import dataclasses

import numpy as np
import pytest
import torch

from outspike.config import SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.build import build
from outspike.detectors.checkpoints import import_checkpoint
from outspike.detectors.saa import published
from outspike.detectors.ssls import Ssls

FORWARD = {"atol": 1e-5, "rtol": 1e-5}


def tensor(array):
    return torch.from_numpy(np.array(array))


def state_of(golden):
    return {key: tensor(value).float() for key, value in golden.group("state/").items()}


def bags_of(model, x_BTF, labels=None, step=0):
    num, rows = x_BTF.shape[:2]
    return Bags(
        features={model.config.feature_set: x_BTF[:, None].float()},
        num_snippets=torch.full((num,), rows),
        labels=torch.zeros(num) if labels is None else tensor(labels),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=torch.zeros(num, rows, 2, dtype=torch.int64),
        bag_ids=tuple(f"golden/{i}" for i in range(num)),
        step=step,
    )


@pytest.fixture
def load(tmp_path):
    """Import a published state dict from a file, as users do."""

    def make(golden, **settings):
        state = state_of(golden)
        path = tmp_path / "saa.pth"
        torch.save(state, path)
        config = dataclasses.replace(published.config_of(state), **settings)
        return import_checkpoint("saa", path, config)

    return make


@pytest.mark.golden("snippet_attention/saa_forward*.npz")
@pytest.mark.parametrize("compat", [None, "saa_2024"])
def test_scores_attention_and_features_equal_the_authors_model(golden, load, compat):
    """Where nothing is padded the default form is the published one."""
    model = load(golden, compat=compat)
    assert not model.config.bias
    with torch.no_grad():
        found = model(bags_of(model, tensor(golden["in/x"])[None]))
    np.testing.assert_allclose(found.snippet, golden["out/test_scores"][..., 0], **FORWARD)
    np.testing.assert_allclose(found.extras["scores"], golden["out/scores"][..., 0], **FORWARD)
    np.testing.assert_allclose(found.extras["attention"], golden["out/attn"][..., 0], **FORWARD)
    np.testing.assert_allclose(found.extras["features"], golden["out/feat"], **FORWARD)


@pytest.mark.golden("snippet_attention/saa_forward*.npz")
def test_the_non_local_block_equals_the_authors(golden, load):
    """Summed the linear way round, it is what the authors' ``[T, T]`` map gives."""
    context = load(golden).temporal
    with torch.no_grad():
        x = torch.relu(context.gate(tensor(golden["in/x"]).float().T[None]))
        block = context.non_local
        pairs = block.theta(x).mT @ block.phi(x) / x.shape[2]
        found = block(x, None, None)
    np.testing.assert_allclose(pairs, golden["out/nonlocal_map"], **FORWARD)
    np.testing.assert_allclose(found, golden["out/nonlocal_z"], **FORWARD)


@pytest.mark.golden("snippet_attention/saa_forward*.npz")
def test_a_published_checkpoint_survives_the_round_trip(golden, load):
    """Import and export give back the same names and the same bits."""
    state = state_of(golden)
    exported = published.NAMES.export(load(golden))
    assert {key for key in exported if not published.is_optional(key)} == set(state)
    for key, value in state.items():
        assert torch.equal(exported[key], value), key


@pytest.mark.golden("snippet_attention/derived_train_step*.npz")
@pytest.mark.parametrize("compat", [None, "saa_2024"])
def test_a_training_step_repeats_the_derived_one(golden, compat):
    """Outputs, every loss term, gradients, and running statistics with dropout off."""
    state = state_of(golden)
    config = dataclasses.replace(published.config_of(state), dropout=0.0, compat=compat)
    model = build(config).train()
    ours = published.NAMES.key_map(model)
    fresh = model.state_dict()
    model.load_state_dict({**fresh, **{ours[key]: value for key, value in state.items()}})
    bags = bags_of(model, tensor(golden["in/x"]), golden["in/labels"])
    scores = model(bags)
    for name, key in (("scores", "scores"), ("attention", "attn"), ("features", "feat")):
        np.testing.assert_allclose(scores.extras[name].detach(), golden[f"out/{key}"], **FORWARD)
    total, log = Ssls(SslsConfig(), total_steps=1).reduce(model.loss(bags, scores), bags, 0)
    total.backward()
    terms = {
        "score": "cls_topk_o",
        "attended": "cls_topk_a",
        "suppressed_score": "cls_topk_so",
        "suppressed_attended": "cls_topk_sa",
        "guide_normal": "guide_neg",
        "guide_anomalous": "guide_pos",
        "norm": "norm_mean",
        "smooth": "smooth_sum",
        "sparse": "sparse_mean",
        "total": "total_default",
    }
    for name, key in terms.items():
        assert log[name] == pytest.approx(golden.number(f"loss/{key}"), abs=1e-5), name
    for name, norm in golden.group("grad_norm/").items():
        gradient = model.get_parameter(ours[name]).grad
        np.testing.assert_allclose(gradient.norm(), norm, rtol=1e-4, atol=1e-5, err_msg=name)
        sample = gradient.flatten()[:: golden.number(f"grad_stride/{name}")]
        expected = golden[f"grad_sub/{name}"]
        np.testing.assert_allclose(sample[: len(expected)], expected, atol=1e-5, err_msg=name)
    after = model.state_dict()
    for name, expected in golden.group("out/buffer_after/").items():
        if compat is not None or not published.is_optional(name):
            np.testing.assert_allclose(after[ours[name]], expected, **FORWARD, err_msg=name)


def test_parameter_counts_are_the_published_ones():
    """With and without biases, for RGB, RGB with audio, and two streams."""
    counts = {(1024, True): 8_855_170, (1024, False): 8_852_737}
    counts |= {(1152, True): 10_684_722, (2048, True): 28_652_546}
    for (width, bias), expected in counts.items():
        with torch.device("meta"):
            model = build(dataclasses.replace(published.SaaConfig(), width=width, bias=bias))
        assert sum(p.numel() for p in model.parameters()) == expected
