"""The IEF-VAD detector against the published one: fusion, whole-video scores, training steps."""

import numpy as np
import pytest
import torch

from outspike.config import IefVadConfig, SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.checkpoints import import_checkpoint
from outspike.detectors.ief_vad import published
from outspike.detectors.ssls import Ssls

FORWARD = {"atol": 1e-5, "rtol": 1e-4}
GRADIENT = {"atol": 1e-5, "rtol": 1e-3}
OUTPUTS = {
    "fused": "features",
    "image_mu": "image_mu",
    "event_mu": "event_mu",
    "image_logvar": "image_logvar",
    "event_logvar": "event_logvar",
    "w_i": "image_weight",
    "w_e": "event_weight",
}


def tensor(array):
    return torch.from_numpy(np.array(array))


def number(golden, key, default):
    return golden.number(key) if key in golden else default


def config_of(golden, width, **settings):
    noise = number(golden, "in/noise_model", "StudentT")
    return IefVadConfig(
        image_width=width,
        event_width=width,
        width=width,
        num_layers=number(golden, "in/num_layers", 1),
        num_heads=number(golden, "in/num_heads", 4),
        refinement_steps=number(golden, "in/num_refinement_steps", 2),
        refinement_rate=number(golden, "in/lambda_ref", 0.5),
        nu=float(golden.number("in/nu")),
        epsilon=number(golden, "in/epsilon", 1e-8),
        noise_model={"StudentT": "student_t", "Gaussian": "gaussian"}[noise],
        compat="ief_vad_2025",
        **settings,
    )


@pytest.fixture
def load(tmp_path):
    """Import a published state dict from a file, in either of its two layouts."""

    def build(golden, config, layout="plain"):
        state = {k: tensor(v) for k, v in golden.group("state/").items()}
        if layout == "running":
            state = {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}, "ap": 0.5}
        torch.save(state, tmp_path / "ucf.pth")
        return import_checkpoint("ief_vad", tmp_path / "ucf.pth", config)

    return build


def bags_of(config, image, event, lengths, labels):
    num, rows = image.shape[:2]
    return Bags(
        features={config.image_set: image[:, None], config.event_set: event[:, None]},
        num_snippets=tensor(lengths),
        labels=tensor(labels),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=torch.zeros(num, rows, 2, dtype=torch.int64),
        bag_ids=tuple(f"golden/{i}" for i in range(num)),
    )


@pytest.mark.golden("ief_vad/fusion_eval*.npz")
@pytest.mark.parametrize("layout", ["plain", "running"])
def test_all_outputs_of_the_fusion_equal_the_published_ones(golden, load, layout):
    """Both noise models, with and without refinement, from both checkpoint layouts."""
    image, event = tensor(golden["in/img"]), tensor(golden["in/evt"])
    model = load(golden, config_of(golden, image.shape[2]), layout)
    with torch.no_grad():
        found = model.fusion(image, event)
    for theirs, ours in OUTPUTS.items():
        np.testing.assert_allclose(
            getattr(found, ours), golden[f"out/{theirs}"], **FORWARD, err_msg=theirs
        )
    np.testing.assert_allclose(found.logits, golden["out/logits"][..., 0], **FORWARD)
    np.testing.assert_allclose(torch.sigmoid(found.logits), golden["out/prob"][..., 0], **FORWARD)


@pytest.mark.golden("ief_vad/eval_*.npz")
def test_whole_videos_score_as_published(golden, load):
    """Videos of many lengths in one batch get the published windows, zeros attended to."""
    lengths = golden["in/n_snippets"]
    images = [golden[f"in/img_{i}"] for i in range(len(lengths))]
    events = [golden[f"in/evt_{i}"] for i in range(len(lengths))]
    width, longest = images[0].shape[1], int(lengths.max())
    window = number(golden, "in/visual_length", 256)
    model = load(golden, config_of(golden, width, window=window))

    def stack(rows):
        padded = np.zeros((len(rows), longest, width), dtype=np.float32)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        return tensor(padded)

    bags = bags_of(model.config, stack(images), stack(events), lengths, np.zeros(len(lengths)))
    with torch.no_grad():
        scores = model(bags)
    for i, length in enumerate(lengths):
        found = scores.snippet[i]
        np.testing.assert_allclose(found[:length], golden[f"out/prob_{i}"], **FORWARD)
        assert not found[length:].any()
        weight = scores.extras["image_weight"][i, :length]
        np.testing.assert_allclose(weight, golden[f"out/w_i_mean_{i}"], **FORWARD)


@pytest.mark.golden("ief_vad/train_step*.npz")
def test_a_training_step_repeats_the_published_one(golden, load):
    """Every loss term, all gradients, and parameters after one AdamW step."""
    image, event = tensor(golden["in/img"]), tensor(golden["in/evt"])
    config = config_of(
        golden,
        image.shape[2],
        window=image.shape[1],
        attention_dropout=0.0,
        reg_weight=golden.number("in/coef_reg"),
        kl_weight=golden.number("in/coef_kl"),
    )
    model = load(golden, config).train()
    labels = 1 - golden["in/labels_onehot"][:, 0]
    bags = bags_of(config, image, event, golden["in/lengths"], labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=golden.number("in/lr"))
    scores = model(bags)
    np.testing.assert_allclose(
        scores.extras["logits"].detach(), golden["out/logits"][..., 0], **FORWARD
    )
    terms = model.loss(bags, scores)
    total, log = Ssls(SslsConfig(), total_steps=1).reduce(terms, bags, 0)
    total.backward()
    wanted = {"classification": "classification", "agreement": "reg", "kl": "kl", "total": "total"}
    for ours, theirs in wanted.items():
        assert log[ours] == pytest.approx(golden.number(f"loss/{theirs}"), rel=1e-5), theirs
    ours = published.NAMES.key_map(model)
    for name, expected in golden.group("grad/").items():
        found = model.get_parameter(ours[name]).grad
        np.testing.assert_allclose(found, expected, **GRADIENT, err_msg=name)
    optimiser.step()
    after = model.state_dict()
    for name, expected in golden.group("out/after_step/").items():
        np.testing.assert_allclose(after[ours[name]], expected, **FORWARD, err_msg=name)


@pytest.mark.golden("ief_vad/fusion_eval*.npz")
def test_a_published_checkpoint_survives_the_round_trip(golden, load):
    """Import and export give back the same names and the same bits."""
    model = load(golden, config_of(golden, golden["in/img"].shape[2]))
    exported = published.NAMES.export(model)
    state = golden.group("state/")
    assert set(exported) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(exported[key], value)
