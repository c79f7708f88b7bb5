"""AED's cell, networks and training steps against the published code."""

import dataclasses

import numpy as np
import pytest
import torch

from outspike.config import SslsConfig
from outspike.detectors.aed import published
from outspike.detectors.aed.network import ConvLstmCell
from outspike.detectors.bags import Bags
from outspike.detectors.checkpoints import import_checkpoint
from outspike.detectors.ssls import Ssls

SNIPPET = 16


def tensor(array):
    return torch.from_numpy(np.array(array))


def state_of(golden):
    return {key: tensor(value).float() for key, value in golden.group("state/").items()}


@pytest.fixture
def load(tmp_path):
    """Import a published state dict from a file, as users do."""

    def make(golden, **settings):
        state = state_of(golden)
        path = tmp_path / "aed.pkl"
        torch.save(state, path)
        config = dataclasses.replace(published.config_of(state), **settings)
        return import_checkpoint(config.kind, path, config)

    return make


def rows_of(golden):
    """Inputs ``[B, L, D]``, whether they are stored as rows or as pictures."""
    return tensor(golden["in/x"]).float().transpose(0, 1).flatten(2)


def bags_of(model, golden, rows_BSD):
    """A batch whose classes are the stored numbers."""
    num, length = rows_BSD.shape[:2]
    classes = tensor(golden["in/video_labels"])
    start = torch.arange(length) * SNIPPET
    ranges = torch.stack([start, start + SNIPPET], dim=1)
    labels = tensor(golden["in/frame_labels"]).to(torch.int8)
    return Bags(
        features={model.config.feature_set: rows_BSD[:, None]},
        num_snippets=torch.full((num,), length),
        labels=classes.clamp(max=1).float(),
        class_ids=classes,
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=ranges.expand(num, -1, -1),
        bag_ids=tuple(f"golden/{i}" for i in range(num)),
        frame_labels=labels.view(num, length, SNIPPET),
    )


def trained(golden, load, compat):
    """The model after the backward pass of the stored batch, its input, and what it logged."""
    class_weight, frame_weight = golden["in/lambda"].tolist()
    model = load(golden, class_weight=class_weight, frame_weight=frame_weight, compat=compat)
    rows = rows_of(golden).requires_grad_()
    bags = bags_of(model.train(), golden, rows)
    scores = model(bags)
    total, log = Ssls(SslsConfig(), total_steps=1).reduce(model.loss(bags, scores), bags, 0)
    total.backward()
    return model, rows, scores, log


@pytest.mark.golden("lad2000/convlstm_cell*.npz")
def test_a_step_of_the_cell_is_the_published_one(golden):
    """Gates in the published order, no peephole, states that are not zero."""
    x, h, c = (tensor(golden[f"in/{name}"]) for name in "xhc")
    cell = ConvLstmCell(x.shape[1], h.shape[1])
    cell.load_state_dict(
        {key.replace("Gates", "gates"): tensor(v) for key, v in golden.group("state/").items()}
    )
    with torch.no_grad():
        hidden, memory = cell(cell.from_input(x), (h, c))
        at_rest = cell(cell.from_input(x), None)
        from_zero = cell(cell.from_input(x), (torch.zeros_like(h), torch.zeros_like(c)))
    np.testing.assert_allclose(hidden, golden["out/h"], atol=1e-6)
    np.testing.assert_allclose(memory, golden["out/c"], atol=1e-6)
    for one, other in zip(at_rest, from_zero, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


@pytest.mark.golden("lad2000/aed_*small*.npz")
@pytest.mark.parametrize("compat", [None, "lad2000"])
def test_a_training_step_repeats_the_published_one(golden, load, compat):
    """Both heads, losses, all gradients, and parameters after one Adam step."""
    model, rows, scores, log = trained(golden, load, compat)
    _check_outputs(golden, scores, log)
    ours = published.NAMES.key_map(model)
    for name, expected in golden.group("grad/").items():
        if name == "__input__":
            found = rows.grad.transpose(0, 1).reshape(expected.shape)
        else:
            found = model.get_parameter(ours[name]).grad
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4).step()
    after = model.state_dict()
    for name, expected in golden.group("out/after_adam/").items():
        np.testing.assert_allclose(after[ours[name]], expected, atol=1e-6, err_msg=name)


@pytest.mark.golden("lad2000/aed_*real*.npz")
def test_networks_of_the_true_size_repeat_the_published_ones(golden, load):
    """Heads, losses, and norms, sums and samples of every gradient."""
    model, _, scores, log = trained(golden, load, None)
    _check_outputs(golden, scores, log)
    ours = published.NAMES.key_map(model)
    for name, norm in golden.group("grad_norm/").items():
        gradient = model.get_parameter(ours[name]).grad
        np.testing.assert_allclose(gradient.double().norm(), norm, rtol=1e-5, err_msg=name)
        scale = float(norm)
        total = gradient.double().sum()
        np.testing.assert_allclose(
            total, golden[f"grad_sum/{name}"], rtol=1e-5, atol=1e-5 * scale, err_msg=name
        )
        sample = gradient.flatten()[:: golden.number(f"grad_stride/{name}")]
        expected = golden[f"grad_sub/{name}"]
        np.testing.assert_allclose(
            sample[: len(expected)], expected, rtol=1e-5, atol=1e-5 * scale, err_msg=name
        )


def _check_outputs(golden, scores, log):
    found = scores.extras["class_logits"].detach()
    np.testing.assert_allclose(found, golden["out/cls_scores"], atol=1e-5, rtol=1e-5)
    found = scores.extras["window_scores"].flatten(1).detach()
    np.testing.assert_allclose(found, golden["out/reg_scores"], atol=1e-5, rtol=1e-5)
    for ours, theirs in {"class": "cls", "frames": "reg", "total": "total"}.items():
        assert log[ours] == pytest.approx(golden.number(f"loss/{theirs}"), rel=1e-5), theirs


@pytest.mark.golden("lad2000/aed_*small*.npz")
def test_a_published_checkpoint_survives_the_round_trip(golden, load):
    """Import and export give back the same names and the same bits."""
    model = load(golden)
    if "in/cfg" in golden:
        length, channels, hidden, _, classes, down, head = golden["in/cfg"].tolist()
        config = model.config
        assert (config.window, config.width, config.hidden) == (length, 16 * channels, hidden)
        assert (len(config.classes) or 2, config.down, config.head) == (classes, down, head)
    exported = published.NAMES.export(model)
    state = state_of(golden)
    assert set(exported) == set(state)
    for key, value in state.items():
        assert torch.equal(exported[key], value), key
