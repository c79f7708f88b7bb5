"""What every detector promises; a new one is added to ``CONFIGS`` and has to keep it."""

from dataclasses import replace

import pytest
import torch

from outspike.config import (
    AedConfig,
    GvVadConfig,
    IefVadConfig,
    MotionFloorConfig,
    MsfConfig,
    SaaConfig,
)
from outspike.detectors import DETECTORS, build
from outspike.detectors.reduce import reduce_terms
from outspike.errors import BagError, ConfigError

CONFIGS = {
    "msf": MsfConfig(width=16, hidden=4),
    "ief_vad": IefVadConfig(
        image_width=8, event_width=8, width=8, num_layers=1, num_heads=2, refinement_steps=1
    ),
    "gv_vad": GvVadConfig(visual_width=10, text_width=7, hidden=8, pal_weight=0, mpl_weight=0),
    "saa": SaaConfig(width=12, attention_width=8, classifier_widths=(8, 4)),
    "aed": AedConfig(kind="aed", width=20, window=3, hidden=4, down=8, head=6),
    "aed_t": AedConfig(width=20, window=3, hidden=4, down=8, head=6),
    "motion_floor": MotionFloorConfig(),
}
#: Forms of a detector that are built otherwise.
FORMS = {
    "msf in windows": MsfConfig(width=16, hidden=4, window=4),
    "three of msf": MsfConfig(width=16, hidden=4, members=3),
    "two of ief_vad": replace(CONFIGS["ief_vad"], members=2),
}


def test_every_detector_is_under_contract():
    """A detector that is registered is tested here."""
    assert set(CONFIGS) == set(DETECTORS)


@pytest.fixture(params=sorted(CONFIGS | FORMS))
def detector(request, batch):
    """Each detector, ready to score."""
    torch.manual_seed(0)
    made = build((CONFIGS | FORMS)[request.param])
    if not made.trainable:
        made.fit([batch([9, 7, 5], made.feature_sets, labels=[0, 1, 0])])
    return made


def test_scores_are_probabilities_one_a_snippet(detector, batch):
    """``[B, S]`` in [0, 1], single precision, zero at padding, finite."""
    bags = batch([6, 2, 9], detector.feature_sets)
    scores = detector.eval()(bags).snippet
    assert scores.shape == (3, 9)
    assert scores.dtype == torch.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores[bags.mask] > 0).all()
    assert not scores[~bags.mask].any()


def test_one_snippet_is_a_bag(detector, batch):
    """It is scored alone and beside others, and trained on without a value that is not finite."""
    bags = batch([1, 4, 1, 7], detector.feature_sets, supervised=detector.needs_frame_labels)
    scores = detector.eval()(bags).snippet
    assert (scores[bags.mask] > 0).all()
    torch.testing.assert_close(detector(bags.take([0])).snippet[:, :1], scores[:1, :1])
    if detector.trainable:
        detector.train()
        cost, _ = reduce_terms(detector.loss(bags, detector(bags)), torch.ones(4))
        cost.backward()
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        assert cost.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_bag_scores_the_same_in_any_company(detector, batch):
    """Order and neighbours change nothing that rounding would not."""
    bags = batch([6, 2, 9], detector.feature_sets)
    detector.eval()
    scores = detector(bags).snippet
    torch.testing.assert_close(detector(bags.take([2, 0, 1])).snippet, scores[[2, 0, 1]])


def test_weights_survive_the_round_trip_through_a_state_dict(detector, batch):
    """A fresh detector of the same config with the same state gives the same bits."""
    bags = batch([6, 2], detector.feature_sets)
    other = build(detector.config)
    other.load_state_dict(detector.state_dict(), strict=True)
    assert torch.equal(other.eval()(bags).snippet, detector.eval()(bags).snippet)


def test_another_width_is_named(detector, batch):
    """The first bag, the feature set and both widths are in the message."""
    name, width = next(iter(detector.feature_sets.items()))
    wrong = {**detector.feature_sets, name: width + 1}
    with pytest.raises(BagError, match=rf"made-up/v0: features '{name}' are {width + 1} wide"):
        detector(batch([3], wrong))


def test_an_absent_feature_set_is_named(detector, batch):
    """The sets found and the one missing are in the message."""
    name = next(iter(detector.feature_sets))
    with pytest.raises(BagError, match=rf"\['other'\].*'{name}'"):
        detector(batch([3], {"other": 4}))


def test_terms_have_one_owner_row_and_one_count_a_unit(detector, batch):
    """Shapes of loss terms fit together, whatever the detector."""
    bags = batch([6, 2, 9], detector.feature_sets, supervised=detector.needs_frame_labels)
    for term in detector.loss(bags, detector.train()(bags)):
        assert term.values.shape == term.counts.shape == term.bags.shape[:1]
        assert term.bags.dtype == torch.int64
        assert term.values.isfinite().all()
        assert (term.counts > 0).all()


def test_an_unknown_kind_is_refused_with_the_known_ones():
    """A config of no detector says which there are."""

    class Odd:
        kind = "odd"

    with pytest.raises(ConfigError, match="motion_floor"):
        build(Odd())
