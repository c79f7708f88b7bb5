"""The GV-VAD detector against the published one: whole videos, and both kinds of training step."""

import json

import numpy as np
import pytest
import torch

from outspike.config import GvVadConfig, SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.checkpoints import import_checkpoint
from outspike.detectors.gv_vad import published
from outspike.detectors.gv_vad.losses import top_snippets
from outspike.detectors.gv_vad.prompts import similarity, suspected
from outspike.detectors.ssls import Ssls

EVALUATION = {"atol": 1e-6, "rtol": 1e-6}
#: Of the largest entry of each gradient; biases before a normalisation have no true gradient.
GRADIENT, NO_GRADIENT = 3e-5, 1e-5


def tensor(array):
    return torch.from_numpy(np.array(array))


@pytest.fixture
def load(tmp_path):
    """Import the published state dict from a file, in the published form."""

    def build(golden, **settings):
        meta = json.loads(str(golden["in/meta_json"]))
        np.save(tmp_path / "bank.npy", golden["in/abn_bank"])
        config = GvVadConfig(
            visual_width=meta["feature_size"],
            text_width=meta["emb_dim"],
            published_segments=10 * meta["k"],
            prompt_bank=str(tmp_path / "bank.npy"),
            compat="gv_vad_2025",
            **settings,
        )
        torch.save({k: tensor(v) for k, v in golden.group("state/").items()}, tmp_path / "a.pkl")
        return import_checkpoint("gv_vad", tmp_path / "a.pkl", config), meta

    return build


def bags_of(config, visual, text, labels, synthetic=None):
    num, _, rows, _ = visual.shape
    return Bags(
        features={config.visual_set: visual, config.text_set: text},
        num_snippets=torch.full((num,), rows),
        labels=torch.tensor(labels, dtype=torch.float32),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool) if synthetic is None else synthetic,
        frame_ranges=torch.zeros(num, rows, 2, dtype=torch.int64),
        bag_ids=tuple(f"golden/{i}" for i in range(num)),
    )


@pytest.mark.golden("gv_vad/detector_eval*.npz", cases=r"in/(case\d+)/")
def test_whole_videos_score_as_published(golden, load):
    """Captions as long as the frames, shorter and longer; scores, magnitudes and features."""
    model, meta = load(golden)
    case = golden.case
    visual, text = tensor(golden[f"in/{case}/visual"]), tensor(golden[f"in/{case}/text"])
    bags = bags_of(model.config, visual, text, [1])
    with torch.no_grad():
        scores = model(bags)
        parts = model.features(bags)
        streams = {
            "visual": model.context["visual"](visual[0])[0],
            "text": model.context["text"](text[0])[0],
        }
    joined = torch.cat([part[0, 0] for part in parts], dim=1)
    np.testing.assert_allclose(scores.snippet, golden[f"out/{case}/scores"][..., 0], **EVALUATION)
    np.testing.assert_allclose(
        scores.extras["magnitude"], golden[f"out/{case}/feat_magnitudes"], atol=5e-6
    )
    np.testing.assert_allclose(joined, golden[f"out/{case}/features_crop0"], atol=5e-6)
    for stream, found in streams.items():
        np.testing.assert_allclose(found, golden[f"out/{case}/{stream}_mtn_crop0"], atol=5e-6)
    k = torch.tensor([meta["k"]])
    chosen = top_snippets(scores.extras["magnitude"], bags.mask, k)
    video = (scores.snippet * chosen).sum(dim=1) / k
    for half in ("abnormal", "normal"):
        np.testing.assert_allclose(video, golden[f"out/{case}/score_{half}"][0], **EVALUATION)
    if f"out/{case}/feat_select_abn" in golden:
        order = scores.extras["magnitude"][0].argsort(descending=True)[: meta["k"]]
        crops = max(part.shape[1] for part in parts)
        picked = torch.cat([p[0, :, order].expand(crops, -1, -1) for p in parts], dim=2)
        for half in ("abn", "normal"):
            expected = golden[f"out/{case}/feat_select_{half}"]
            np.testing.assert_allclose(picked, expected, atol=5e-6)


def train_step(golden, load):
    """Model and log after the loss of the stored batch, gradients in place."""
    meta = json.loads(str(golden["in/meta_json"]))
    model, _ = load(
        golden,
        dropout=meta["dropout"],
        magnitude_weight=meta["alpha"],
        magnitude_margin=float(meta["margin"]),
        smooth_weight=meta["smooth"],
        sparse_weight=meta["sparsity"],
        pal_weight=meta["beta"],
        mpl_weight=meta["gama"],
    )
    half = meta["batch_size"]
    synthetic = np.concatenate([golden["in/source_normal"], golden["in/source_abnormal"]])
    bags = bags_of(
        model.config,
        tensor(golden["in/visual"]),
        tensor(golden["in/text"]),
        [0] * half + [1] * half,
        tensor(synthetic == 1),
    )
    policy = "learned" if meta["learnable"] else "fixed"
    config = SslsConfig(mode="batch_scalar", policy=policy, scale=golden.number("in/VLR_init"))
    ssls = Ssls(config, total_steps=1000)
    scores = model.train()(bags)
    total, log = ssls.reduce(model.loss(bags, scores), bags, 1)
    total.backward()
    return model, ssls, scores, log, bags, total, meta


@pytest.mark.golden("gv_vad/train_step_*.npz")
def test_losses_of_a_training_step_are_the_published_ones(golden, load):
    """Every term, the cost, the scaled total, and what the terms are made of."""
    model, ssls, scores, log, bags, total, meta = train_step(golden, load)
    np.testing.assert_allclose(scores.snippet.detach(), golden["out/scores"][..., 0], atol=1e-6)
    np.testing.assert_allclose(
        scores.extras["magnitude"], golden["out/feat_magnitudes"], atol=5e-6, rtol=1e-6
    )
    half = meta["batch_size"]
    chosen = top_snippets(
        scores.extras["ranking"], bags.mask, torch.full_like(bags.num_snippets, meta["k"])
    )
    video = (scores.snippet * chosen).sum(dim=1) / meta["k"]
    np.testing.assert_allclose(video[:half].detach(), golden["out/score_normal"][:, 0], atol=1e-6)
    np.testing.assert_allclose(video[half:].detach(), golden["out/score_abnormal"][:, 0], atol=1e-6)
    captions = bags.features[model.config.text_set][half:, 0]
    dubious = suspected(similarity(captions, model.bank), bags.mask[half:])
    np.testing.assert_array_equal(dubious, golden["out/abn_index"][..., 0] == 1)
    terms = {term.name: term for term in model.loss(bags, scores)}
    found = {
        "mil_bce": log["mil"],
        "rtfm_magnitude": log["magnitude"],
        "smooth_weighted": log["smooth"] * terms["smooth"].weight,
        "sparsity_weighted": log["sparse"] * terms["sparse"].weight,
        "pal_bce": log["pal"],
        "mpl_triplet_times_gama": log["mpl"] * meta["gama"],
        "total_after_ssls": float(total.detach()),
    }
    share = golden["in/source_abnormal"].mean()
    found["cost"] = log["total"] / (1 - share + share * float(ssls.scale(1).detach()))
    for name, value in found.items():
        assert value == pytest.approx(golden.number(f"loss/{name}"), rel=2e-6), name


@pytest.mark.golden("gv_vad/train_step_*.npz")
def test_gradients_of_a_training_step_are_the_published_ones(golden, load):
    """All parameters of the network, and the learned scale where there is one."""
    model, ssls, *_ = train_step(golden, load)
    ours = dict(model.named_parameters())
    names = published.NAMES.key_map(model)
    for key, expected in golden.group("grad/").items():
        found = ssls.rho.grad if key == "VLR" else ours[names[key]].grad
        tolerance = GRADIENT * np.abs(expected).max()
        if key.endswith("non_local.W.0.bias"):
            tolerance = NO_GRADIENT
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0, err_msg=key)
    assert {names[key] for key in golden.group("grad/") if key != "VLR"} == set(ours)


@pytest.mark.golden("gv_vad/train_step_*.npz")
def test_an_optimiser_step_ends_where_the_published_one_does(golden, load):
    """Parameters and the learned scale after Adam, and running statistics over all crops."""
    model, ssls, *_, meta = train_step(golden, load)
    groups = [{"params": list(model.parameters())}, *ssls.parameter_groups(meta["lr"])]
    torch.optim.Adam(groups, lr=meta["lr"], weight_decay=meta["weight_decay"]).step()
    state, names = model.state_dict(), published.NAMES.key_map(model)
    for key, expected in golden.group("out/after_step/").items():
        found = ssls.rho if key == "VLR" else state[names[key]]
        np.testing.assert_allclose(found.detach(), expected, atol=2e-6, rtol=1e-6, err_msg=key)


@pytest.mark.golden("gv_vad/train_step_*.npz")
def test_flags_of_normal_videos_have_no_effect_as_published(golden, load):
    """The published code overwrites them; the same total comes out without them."""
    model, ssls, scores, _, bags, total, meta = train_step(golden, load)
    bags.synthetic[: meta["batch_size"]] = ~bags.synthetic[: meta["batch_size"]]
    again, _ = ssls.reduce(model.loss(bags, scores), bags, 1)
    assert torch.equal(again, total)


@pytest.mark.golden("gv_vad/train_step_*.npz")
def test_the_published_state_survives_the_round_trip(golden, load):
    """Export gives back what was imported, the learned scale first where there is one."""
    model, _ = load(golden)
    state = golden.group("state/")
    scale = float(state["VLR"]) if "VLR" in state else None
    again = published.export_published(model, scale)
    assert set(again) == set(state)
    if scale is not None:
        assert next(iter(again)) == "VLR"
    for key, expected in state.items():
        np.testing.assert_array_equal(again[key], expected, err_msg=key)
