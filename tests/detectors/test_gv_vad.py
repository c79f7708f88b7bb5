"""GV-VAD in its default form: padding is nobody, captions are read once, prompts and terms work."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.config import GvVadConfig, SslsConfig
from outspike.detectors import import_checkpoint
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.gv_vad import losses, published
from outspike.detectors.gv_vad.prompts import (
    PromptBank,
    rank_triplets,
    read_bank,
    suspected,
    write_bank,
)
from outspike.detectors.ssls import Ssls
from outspike.errors import BagError, CheckpointError, ConfigError

SMALL = GvVadConfig(visual_width=12, text_width=8, hidden=16, dropout=0.0)
FUSIONS = ("concat", "add", "product", "add_up")


@pytest.fixture
def bank(tmp_path):
    """A file of three anomaly prompts as wide as the captions."""
    rows = np.random.default_rng(0).normal(size=(3, SMALL.text_width)).astype(np.float32)
    np.save(tmp_path / "bank.npy", rows)
    return str(tmp_path / "bank.npy")


def made(config=SMALL, seed=0, **build_settings):
    """A detector whose non-local branches act, as they do after some training."""
    torch.manual_seed(seed)
    detector = build(config, **build_settings)
    for block in detector.context.values():
        torch.nn.init.normal_(block.context.norm.weight)
    return detector


def bags_of(bag, lengths, config=SMALL, *, num_crops=2, **more):
    """Bags with several crops of frames and one of captions, on the 1/256 grid."""
    made_bags = []
    for i, n in enumerate(lengths):
        one = bag(f"v{i}", n, {config.visual_set: config.visual_width}, num_crops=num_crops, **more)
        if config.feature_group != "vis":
            text = bag(f"t{i}", n, {config.text_set: config.text_width})
            one.features[config.text_set] = text.features[config.text_set]
        if config.feature_group == "text":
            del one.features[config.visual_set]
        made_bags.append(dataclasses.replace(one, label=i % 2))
    return made_bags


HYPOTHESIS = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@HYPOTHESIS
@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    extra=st.integers(0, 20),
    group=st.sampled_from(["both", "vis", "text"]),
)
def test_padding_and_company_never_change_a_score(bag, lengths, extra, group):
    """Bags of any length alike: alone, together, reordered, padded further."""
    config = replace(SMALL, feature_group=group)
    detector = made(config).eval()
    bags = bags_of(bag, lengths, config)
    (longest,) = bags_of(bag, [max(lengths) + extra], config, seed=1)
    longest = replace(longest, video_id="longest")
    with torch.no_grad():
        together = detector(collate(bags)).snippet
        turned = detector(collate([longest, *bags[::-1]])).snippet[1:].flip(0)
        for i, n in enumerate(lengths):
            alone = detector(collate([bags[i]])).snippet[0]
            torch.testing.assert_close(together[i, :n], alone, atol=1e-5, rtol=0)
            torch.testing.assert_close(turned[i, :n], alone, atol=1e-5, rtol=0)
            assert not together[i, n:].any()


@HYPOTHESIS
@given(
    widths=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    fusion=st.sampled_from(FUSIONS),
    aggregation=st.booleans(),
    length=st.integers(1, 12),
)
def test_any_width_and_any_number_of_snippets_train(bag, widths, fusion, aggregation, length):
    """Every fusion, with and without context for captions, gives finite terms and gradients."""
    config = replace(
        SMALL,
        visual_width=widths[0],
        text_width=widths[1],
        fusion=fusion,
        text_aggregation=aggregation,
        pal_weight=0.0,
        mpl_weight=0.0,
    )
    detector = made(config).train()
    bags = collate(bags_of(bag, [length, 1, length + 3, 2], config), step=0)
    scores = detector(bags)
    total, _ = Ssls(SslsConfig(), total_steps=1).reduce(detector.loss(bags, scores), bags, 0)
    total.backward()
    assert scores.snippet.shape == (4, length + 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_captions_of_one_crop_count_for_all_crops(bag, fusion):
    """The same scores as if every crop of the frames had been scored with the captions alone."""
    config = replace(SMALL, fusion=fusion)
    detector = made(config).eval()
    bags = bags_of(bag, [9, 5], config, num_crops=3)
    with torch.no_grad():
        together = detector(collate(bags)).snippet
        apart = []
        for crop in range(3):
            alone = collate(bags)
            alone.features[config.visual_set] = alone.features[config.visual_set][:, [crop]]
            apart.append(detector(alone).snippet)
    torch.testing.assert_close(torch.stack(apart).mean(dim=0), together)


def test_k_follows_the_length_of_each_bag(bag):
    """A tenth of the snippets, never none; the published form takes three of everything."""
    detector = made(replace(SMALL, topk_divisor=10))
    bags = collate(bags_of(bag, [5, 10, 19, 40]), step=0)
    assert detector._k(bags).tolist() == [1, 1, 1, 4]
    as_published = made(replace(SMALL, compat="gv_vad_2025"))
    assert as_published._k(bags).tolist() == [3, 3, 3, 3]
    with pytest.raises(BagError, match=r"v0: 2 snippets.*takes the 3 largest"):
        as_published._k(collate(bags_of(bag, [2, 9]), step=0))


def test_the_largest_snippets_are_chosen_and_padding_never(bag):
    """Ties go to the earlier snippet."""
    ranking = torch.tensor([[1.0, 3.0, 3.0, 9.0], [2.0, 1.0, 0.0, 5.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    chosen = losses.top_snippets(ranking, mask, torch.tensor([2, 1]))
    assert chosen.tolist() == [[False, True, True, False], [False, False, False, True]]


def test_dropout_belongs_to_the_bag(bag):
    """Company and padding draw nothing new, in the scores and in the choice of snippets."""
    config = replace(SMALL, dropout=0.6)
    detector = made(config).train()
    for norm in (m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.eval()
    bags = collate(bags_of(bag, [7, 12, 7], config), step=3)
    scores, alone = detector(bags), detector(bags.take([0]))
    torch.testing.assert_close(scores.snippet[0], alone.snippet[0])
    torch.testing.assert_close(scores.extras["ranking"][0, :7], alone.extras["ranking"][0, :7])
    assert not torch.allclose(scores.snippet[0, :7], detector.eval()(bags).snippet[0, :7])


def test_training_with_dropout_needs_draw_keys(bag):
    """Nothing is drawn from a hidden generator."""
    detector = made(replace(SMALL, dropout=0.5)).train()
    with pytest.raises(BagError, match="draw keys"):
        detector(collate(bags_of(bag, [3, 4])))


# --------------------------------------------------------------------------------- loss terms


def terms_of(detector, bags):
    scores = detector.train()(bags)
    return {term.name: term for term in detector.loss(bags, scores)}, scores


def test_all_six_terms_are_there_and_weighted(bag, bank):
    """With both streams and a bank; without a weight a term is left out."""
    config = replace(SMALL, prompt_bank=bank)
    bags = collate(bags_of(bag, [20, 21, 22, 23]), step=0)
    terms, _ = terms_of(made(config), bags)
    assert {name: term.weight for name, term in terms.items()} == {
        "mil": 1.0,
        "magnitude": 1e-4,
        "smooth": 8e-4,
        "sparse": 8e-3,
        "pal": 1e-3,
        "mpl": 0.1,
    }
    bare = replace(SMALL, smooth_weight=0, sparse_weight=0, pal_weight=0, mpl_weight=0)
    assert set(terms_of(made(bare), bags)[0]) == {"mil", "magnitude"}
    frames = replace(SMALL, feature_group="vis")
    assert "pal" not in terms_of(made(frames), bags)[0]


def test_smooth_and_sparse_are_those_of_single_bags(bag):
    """Sums of squared steps and lengths over the snippets there are; no bag touches the next."""
    bags = collate(bags_of(bag, [4, 3, 4, 4]), step=0)
    snippet = torch.zeros(4, 4)
    snippet[1] = torch.tensor([0.5, 0.25, 0.75, 0.9])  # the last is padding
    snippet[3] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    smooth = losses.smooth_term(snippet, bags, 1.0)
    sparse = losses.sparse_term(snippet, bags, 1.0)
    assert smooth.bags.tolist() == sparse.bags.tolist() == [[1], [3]]
    torch.testing.assert_close(smooth.values, torch.tensor([0.0625 + 0.25, 1.0]))
    torch.testing.assert_close(sparse.values, torch.tensor([0.875**0.5, 2**0.5]))


def test_unequal_halves_pair_every_bag(bag):
    """The shorter half starts again; with one kind only there is no pair."""
    bags = collate(bags_of(bag, [4, 4, 4, 4, 4]), step=0)
    mean = torch.rand(5, 2, 6)
    term = losses.magnitude_term(mean, bags, SMALL)
    assert term.bags.tolist() == [[0, 1], [2, 3], [4, 1]]
    assert len(losses.magnitude_term(mean[::2], bags.take([0, 2, 4]), SMALL).values) == 0


def test_captions_pull_scores_up_where_they_are_suspicious(bag):
    """The default teaches what the published form inverts."""
    bags = collate(bags_of(bag, [2, 2]), step=0)
    dubious = torch.tensor([[False, False], [True, False]])
    for compat, sign in ((None, -1), ("gv_vad_2025", 1)):
        snippet = torch.full((2, 2), 0.5, requires_grad=True)
        config = replace(SMALL, compat=compat)
        losses.suspicion_term(snippet, dubious, bags, config).values.sum().backward()
        assert torch.sign(snippet.grad).tolist() == [[0, 0], [sign, -sign]]


def test_the_threshold_leaves_padding_out():
    """Mean and deviation are those of real rows; one row alone is never suspicious."""
    values = torch.tensor([[0.1, 0.2, 0.1, 9.0], [0.2, 0.9, 0.1, 9.0]])
    counted = torch.tensor([[True, True, True, False]] * 2)
    assert suspected(values, counted)[:, :3].tolist() == [[False] * 3, [False, True, False]]
    assert not suspected(values, counted & (torch.arange(8).view(2, 4) == 1)).any()


def test_triplets_do_not_depend_on_the_order_of_bags(bag):
    """Equal scores are told apart by the names of their bags, and too few suspects mean fewer."""
    bags = collate(bags_of(bag, [6, 6, 6, 6]), step=0)
    scores = (torch.arange(24) % 3).view(4, 6) / 4
    dubious = (torch.arange(24).view(4, 6) % 5 == 0) & (bags.labels == 1)[:, None]

    def named(order):
        triplets = rank_triplets(scores[order], dubious[order], bags.mask, bags.take(order), 50)
        names = [[bags.bag_ids[order[b]] for b in row] for row in triplets.bags.tolist()]
        return names, triplets.snippets.tolist()

    first = named([0, 1, 2, 3])
    assert len(first[0]) == int(dubious.sum())
    assert named([3, 1, 0, 2]) == first
    assert all(name[0] in ("made-up/v0", "made-up/v2") for name in first[0])


def test_isolated_statistics_keep_generated_bags_out_of_threshold_and_ranking(bag, bank):
    """No triplet has a generated member, and the real bags' targets do not move with it."""
    config = replace(SMALL, prompt_bank=bank)
    outcomes = []
    for factor in (1.0, 30.0):
        bags = bags_of(bag, [20, 21, 22, 23])
        bags[1] = replace(bags[1], synthetic=True)
        batch = collate(bags, step=0)
        batch.features[config.text_set][1] *= -factor
        terms, _ = terms_of(made(config, isolate_stats=True), batch)
        assert not (terms["mpl"].bags == 1).any()
        assert len(terms["mpl"].values) > 0
        outcomes.append((terms["pal"].values[1], terms["mpl"].values))
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other)


def test_the_weight_of_a_generated_bag_acts_on_every_term(bag, bank):
    """Units with a generated owner scale as section 4.3 says: by omega, its root, or its powers."""
    config = replace(SMALL, prompt_bank=bank)
    bags = bags_of(bag, [20, 21, 22, 23])
    bags[3] = replace(bags[3], synthetic=True)
    batch = collate(bags, step=0)
    terms, _ = terms_of(made(config), batch)
    log = {
        scale: Ssls(SslsConfig(scale=scale), total_steps=1).reduce(list(terms.values()), batch, 0)[
            1
        ]
        for scale in (0.0, 0.25, 1.0)
    }
    for name, term in terms.items():
        made_by = (term.bags == 3).any(dim=1)
        number = (term.bags == 3).sum(dim=1)
        power = number / (2 if name == "magnitude" else 1)
        for scale in (0.0, 0.25):
            weight = torch.where(made_by, scale**power, 1.0)
            expected = (weight * term.values).sum() / term.counts.sum()
            assert log[scale][name] == pytest.approx(expected.item(), rel=1e-5), name
        assert made_by.any(), name


# ----------------------------------------------------------------------- prompt banks and files


def test_a_bank_keeps_its_phrases_and_encoder(tmp_path):
    """Text and provenance travel with the rows; a published array has neither."""
    rows = torch.rand(2, 8)
    path = str(tmp_path / "bank.safetensors")
    write_bank(path, PromptBank(rows=rows, phrases=("a fight", "a fire"), encoder="simcse/1"))
    again = read_bank(path, 8)
    assert torch.equal(again.rows, rows)
    assert (again.phrases, again.encoder) == (("a fight", "a fire"), "simcse/1")
    np.save(tmp_path / "bank.npy", rows.numpy())
    assert read_bank(str(tmp_path / "bank.npy"), 8).phrases == ()
    with pytest.raises(CheckpointError, match="1 phrases for 2 rows"):
        write_bank(path, PromptBank(rows=rows, phrases=("a fight",)))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (np.ones((3, 5), np.float32), r"shape \(3, 5\); expected \[N, 8\]"),
        (np.ones(8, np.float32), r"shape \(8,\)"),
        (np.zeros((0, 8), np.float32), "at least one row"),
        (np.array([[1.0] * 8, [0.0] * 8], np.float32), "row 1 of the prompt bank is zero"),
        (np.array([[np.nan] * 8], np.float32), "row 0"),
        (np.ones((3, 8), np.int64), "type int64"),
        (np.array([["a", "b"]], dtype=object), "no plain array"),
    ],
    ids=["width", "flat", "empty", "zero", "nan", "integers", "pickle"],
)
def test_a_bank_that_does_not_fit_is_refused(tmp_path, rows, told):
    """With the file and what is wrong with it."""
    np.save(tmp_path / "bank.npy", rows, allow_pickle=True)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_bank(str(tmp_path / "bank.npy"), 8)
    assert "bank.npy" in str(caught.value)


@pytest.mark.parametrize("name", ["absent.npy", "absent.safetensors", "junk.safetensors"])
def test_a_bank_that_cannot_be_read_is_named(tmp_path, name):
    """Missing and broken files alike."""
    (tmp_path / "junk.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match=name):
        read_bank(str(tmp_path / name), 8)


def test_training_without_a_bank_says_so_before_the_first_step(bag):
    """Scoring needs none; fitting the inputs already asks for it."""
    detector = made()
    bags = collate(bags_of(bag, [5, 6]), step=0)
    detector.eval()(bags)
    with pytest.raises(ConfigError, match="prompt_bank"):
        detector.fit_inputs([bags])
    with pytest.raises(ConfigError, match="prompt_bank"):
        detector.loss(bags, detector.train()(bags))


def test_the_bank_is_no_part_of_the_weights(bag, bank):
    """It follows the file, not the state dict."""
    detector = made(replace(SMALL, prompt_bank=bank))
    detector.fit_inputs([collate(bags_of(bag, [5]))])
    assert len(detector.bank) == 3
    assert "bank" not in detector.state_dict()


# ---------------------------------------------------------------------------------- refusals


def test_captions_with_crops_or_other_rows_are_refused(bag):
    """Both name the bag and the numbers."""
    detector = made().eval()
    (one,) = bags_of(bag, [6])
    text = one.features[SMALL.text_set]
    one.features[SMALL.text_set] = text.repeat(3, axis=0)
    with pytest.raises(BagError, match=r"made-up/v0: 3 crops of 'captions'"):
        detector(collate([one]))
    one.features[SMALL.text_set] = text
    bags = collate([one])
    bags.features[SMALL.text_set] = bags.features[SMALL.text_set][:, :, :4]
    with pytest.raises(BagError, match=r"made-up/v0: 4 rows of 'captions' for 6 of 'clip'"):
        detector(bags)
    bags.features[SMALL.text_set] = bags.features[SMALL.text_set][:, :, :2]
    with pytest.raises(BagError, match="2 rows of 'captions' cannot fill 6"):
        made(replace(SMALL, compat="gv_vad_2025")).eval()(bags)


def test_bad_features_name_their_bag(bag):
    """Not finite, or of another width."""
    bags = bags_of(bag, [4, 5])
    bags[1].features[SMALL.visual_set][0, 2, 3] = np.nan
    with pytest.raises(BagError, match=r"made-up/v1: 1 values of 'clip' are not finite"):
        collate(bags, widths=made().feature_sets)
    wide = made(replace(SMALL, visual_width=13))
    with pytest.raises(BagError, match=r"made-up/v0: features 'clip' are 12 wide"):
        wide(collate(bags_of(bag, [4])))


def test_the_loss_wants_a_training_forward_and_labels(bag):
    """Both are one line."""
    detector = made(replace(SMALL, pal_weight=0, mpl_weight=0))
    bags = collate(bags_of(bag, [5, 6]), step=0)
    with pytest.raises(BagError, match="training mode"):
        detector.loss(bags, detector.eval()(bags))
    scores = detector.train()(bags)
    bags.labels[1] = -1
    with pytest.raises(BagError, match=r"no label \(made-up/v1\)"):
        detector.loss(bags, scores)


def test_the_published_form_wants_bags_of_one_length(bag):
    """It knows no padding, and folds scores into 32 rows."""
    detector = made(replace(SMALL, compat="gv_vad_2025", pal_weight=0, mpl_weight=0)).train()
    with pytest.raises(BagError, match="mean_segments"):
        detector(collate(bags_of(bag, [5, 6]), step=0))
    bags = collate(bags_of(bag, [40, 40]), step=0)
    with pytest.raises(BagError, match="folds them into 32"):
        detector.loss(bags, detector(bags))


@pytest.mark.parametrize(
    "wrong",
    [
        {"visual_width": 0},
        {"topk_divisor": 0},
        {"dropout": 1.0},
        {"text_set": "clip"},
        {"feature_group": "vis", "fusion": "add"},
        {"smooth_weight": -1.0},
        {"input_clip": 3.0},
        {"compat": "gv_vad_2025", "input_norm": "standardise"},
        {"compat": "gv_vad_2025", "published_segments": 9},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_at_construction(wrong):
    """Before any data is touched, and with the setting in the message."""
    with pytest.raises(ConfigError, match="gv_vad"):
        build(replace(SMALL, **wrong))


def test_isolation_cannot_be_promised_in_the_published_form():
    """Its losses run over the borders of bags."""
    with pytest.raises(ConfigError, match="isolate_stats"):
        build(replace(SMALL, compat="gv_vad_2025"), isolate_stats=True)


# -------------------------------------------------------------------------- published weights


def test_a_detector_of_the_published_size_has_the_published_number_of_parameters():
    """7,496,513 values at width 768 and 768, in the published split."""
    with torch.device("meta"):
        model = build(GvVadConfig())
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in model.context.items()}
    assert sizes == {"visual": 3_321_888, "text": 3_321_888}
    assert sum(p.numel() for p in model.parameters()) == 7_496_513


@pytest.mark.parametrize("group", ["both", "vis", "text"])
def test_settings_follow_from_a_published_file(tmp_path, group):
    """Widths and streams come from the shapes; every entry comes back."""
    model = made(replace(SMALL, feature_group=group))
    torch.save(published.export_published(model, 0.5), tmp_path / "a.pkl")
    again = import_checkpoint("gv_vad", tmp_path / "a.pkl")
    assert not again.training
    assert (again.config.feature_group, again.config.hidden) == (group, SMALL.hidden)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_faults_of_a_published_file_are_all_listed(tmp_path):
    """Missing, unknown, of another shape and not finite, in one message."""
    state = published.export_published(made())
    del state["Aggregate.non_local.W.1.running_var"]
    state["extra"] = torch.zeros(1)
    state["fc2.weight"] = torch.zeros(1, 2)
    state["fc3.bias"] = torch.tensor([torch.inf])
    torch.save(state, tmp_path / "a.pkl")
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint("gv_vad", tmp_path / "a.pkl")
    message = str(caught.value)
    assert "missing: Aggregate.non_local.W.1.running_var" in message
    assert "unknown: extra" in message
    assert "wrong shape: fc2.weight (1, 2) for (4, 16)" in message
    assert "not finite: fc3.bias" in message


def test_fusions_that_a_file_does_not_tell_need_a_config(tmp_path):
    """``add`` and ``product`` have the same shapes; the names of ``add_up`` are not known."""
    config = replace(SMALL, fusion="product")
    model = made(config)
    torch.save(published.export_published(model), tmp_path / "a.pkl")
    with pytest.raises(CheckpointError, match="fusion"):
        import_checkpoint("gv_vad", tmp_path / "a.pkl")
    again = import_checkpoint("gv_vad", tmp_path / "a.pkl", config)
    assert torch.equal(again.fusion.visual.weight, model.fusion.visual.weight)
    with pytest.raises(CheckpointError, match="add_up"):
        published.export_published(made(replace(SMALL, fusion="add_up")))
    torch.save({"w": torch.zeros(1)}, tmp_path / "b.pkl")
    with pytest.raises(CheckpointError, match="no published GV-VAD"):
        import_checkpoint("gv_vad", tmp_path / "b.pkl")


def test_training_tells_bags_apart(scores_of_trained):
    """A few steps on separable bags put the anomalous rows above all others."""
    detector = made(replace(SMALL, feature_group="vis", topk_divisor=3, sparse_weight=0.0))
    normal, _, hit = scores_of_trained(detector, num_steps=60, lr=3e-3)
    assert hit.mean() > normal.max()
