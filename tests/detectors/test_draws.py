"""Dropout that belongs to a bag: same mask wherever the bag turns up."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.detectors import kernels
from outspike.detectors.draws import draw_key, keyed_dropout, keyed_uniform_bits, subkeys

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(keys=KEYS, num=st.integers(1, 300), salt=st.integers(0, 9), rate=st.floats(0, 0.99))
def test_the_compiled_mask_is_the_written_out_hash(keys, num, salt, rate):
    """CPU and accelerator draw the same mask."""
    keys = torch.tensor(keys)
    limit = int(rate * 2**31)
    keep = torch.empty(len(keys), num, dtype=torch.bool)
    kernels.keep_mask(keys.numpy(), salt, limit, keep.numpy())
    assert torch.equal(keep, keyed_uniform_bits(keys, num, salt) >= limit)


def test_a_mask_does_not_depend_on_padding_or_company():
    """Longer padding appends draws; other bags and their order change nothing."""
    keys = torch.tensor([draw_key(1, 2, name) for name in "abc"])
    x = torch.ones(3, 20, 8)
    whole = keyed_dropout(x, 0.5, keys, 0)
    assert torch.equal(keyed_dropout(x[:, :7], 0.5, keys, 0), whole[:, :7])
    assert torch.equal(keyed_dropout(x, 0.5, keys.flip(0), 0), whole.flip(0))
    assert torch.equal(keyed_dropout(x[1:2], 0.5, keys[1:2], 0), whole[1:2])


def test_masks_drop_the_share_asked_for_and_keep_the_mean():
    """A rate of 0.8 keeps a fifth, scaled by five; layers, bags and steps differ."""
    keys = torch.tensor([draw_key(0, step, "bag") for step in range(4)])
    x = torch.ones(4, 25_000)
    dropped = keyed_dropout(x, 0.8, keys, 0)
    assert set(dropped.unique().tolist()) == {0.0, 5.0}
    assert torch.allclose(dropped.mean(dim=1), torch.ones(4), atol=0.06)
    others = [dropped[1], keyed_dropout(x, 0.8, keys, 1)[0]]
    for other in others:
        agreement = (dropped[0] == other).float().mean()
        assert abs(agreement - (0.8**2 + 0.2**2)) < 0.02


def test_parts_of_a_bag_get_keys_of_their_own():
    """Crops and rows draw apart from each other and from other bags."""
    keys = torch.tensor([draw_key(0, 0, "a"), draw_key(0, 0, "b")])
    parts = subkeys(keys, 500)
    assert len(set(parts.tolist())) == 1000
    assert torch.equal(subkeys(keys[1:], 500), parts[500:])
    nested = subkeys(parts, 20)
    assert len(set(nested.tolist())) == 20_000


def test_no_dropout_is_the_identity():
    """A rate of zero returns the very tensor."""
    x = torch.rand(2, 3)
    assert keyed_dropout(x, 0.0, torch.tensor([1, 2]), 0) is x
