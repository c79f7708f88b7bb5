"""Windows that overlap by half cover every snippet, and blending them changes no constant."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outspike.config import MsfConfig
from outspike.detectors import build
from outspike.detectors.overlap import Overlap
from outspike.errors import ConfigError


def mask_of(lengths, extra=0):
    return torch.arange(max(lengths) + extra) < torch.tensor(lengths)[:, None]


SHAPES = {
    "lengths": st.lists(st.integers(1, 40), min_size=1, max_size=4),
    "window": st.integers(2, 12),
    "extra": st.integers(0, 9),
}


@given(**SHAPES)
def test_every_snippet_is_covered_and_no_window_is_idle(lengths, window, extra):
    """Each window brings rows that the one before it did not; padding follows snippets."""
    mask = mask_of(lengths, extra)
    overlap = Overlap.of(mask, window)
    seen = [set() for _ in lengths]
    for bag, rows, inside in zip(
        overlap.bag.tolist(), overlap.rows.tolist(), overlap.inside.tolist(), strict=True
    ):
        assert inside == sorted(inside, reverse=True)
        fresh = {row for row, is_in in zip(rows, inside, strict=True) if is_in} - seen[bag]
        assert fresh
        seen[bag] |= fresh
    assert seen == [set(range(length)) for length in lengths]


@given(**SHAPES)
def test_what_is_cut_and_blended_comes_back(lengths, window, extra):
    """A value that does not depend on its window is returned as it was, and padding is zero."""
    mask = mask_of(lengths, extra)
    values = torch.rand(mask.shape, generator=torch.Generator().manual_seed(window))
    overlap = Overlap.of(mask, window)
    back = overlap.blend(overlap.cut(values[..., None])[..., 0])
    torch.testing.assert_close(back, values * mask)


def test_the_middle_of_a_window_counts_more_than_its_ends():
    """Two windows of four over six snippets: the shared ones lean to the window they are inside."""
    overlap = Overlap.of(mask_of([6]), 4)
    assert overlap.rows.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    blended = overlap.blend(torch.tensor([[0.0] * 4, [1.0] * 4]))
    torch.testing.assert_close(blended, torch.tensor([[0, 0, 1 / 3, 2 / 3, 1, 1]]))


def test_msf_scores_a_long_bag_in_windows_and_a_short_one_whole(batch):
    """Up to a window nothing changes; beyond it a far-away snippet has no say."""
    torch.manual_seed(0)
    config = MsfConfig(width=16, hidden=4)
    whole, cut = build(config).eval(), build(MsfConfig(width=16, hidden=4, window=6)).eval()
    cut.load_state_dict(whole.state_dict())
    short = batch([6, 4], whole.feature_sets)
    assert torch.equal(whole(short).snippet, cut(short).snippet)
    long = batch([20], whole.feature_sets)
    before = cut(long).snippet
    long.features["event-pyramid"][:, :, 15:] = 9.0
    after = cut(long).snippet
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 15:], after[:, 15:])


@pytest.mark.parametrize(
    "wrong",
    [{"window": 1}, {"window": 8, "compat": "msf_2025"}],
    ids=["too short", "published"],
)
def test_impossible_windows_are_refused(wrong):
    """The published form scores whole recordings."""
    with pytest.raises(ConfigError, match="window"):
        build(MsfConfig(width=16, hidden=4, **wrong))
