"""Crops written past the caches: the bytes of plain slicing, wherever and however they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.encoders import cutting

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(3, 256)).astype(np.float32)
#: A value that no table gives.
UNTOUCHED = np.float32(np.inf)


def room(shape, offset):
    """A batch that begins ``offset`` floats behind a line of the cache, and all around it."""
    size = int(np.prod(shape))
    whole = np.full(size + 64, UNTOUCHED)
    start = -whole.ctypes.data % 64 // 4 + 16 + offset
    return whole[start : start + size].reshape(shape), whole


def expected(pictures, corners, size, num_crops):
    """Slices, looked up one value at a time."""
    normalised = np.stack([TABLE[c][pictures[..., c]] for c in range(3)], axis=1)
    cut = [normalised[..., t : t + size, left : left + size] for t, left in corners]
    mirrored = [crop[..., ::-1] for crop in cut]
    return np.stack((cut + mirrored)[:num_crops], axis=1)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([1, 15, 16, 17, 32, 40, 48]),
    spare=st.tuples(st.integers(0, 9), st.integers(0, 40)),
    num_corners=st.integers(1, 5),
    is_mirrored=st.booleans(),
    offset=st.sampled_from([0, 0, 1, 8]),
    data=st.data(),
)
def test_crops_are_slices_and_nothing_beside_them_is_written(
    size, spare, num_corners, is_mirrored, offset, data
):
    """Any size, corners and alignment: those in whole lines of the cache and all the others."""
    pictures = RNG.integers(0, 256, (2, size + spare[0], size + spare[1], 3), dtype=np.uint8)
    corner = st.tuples(st.integers(0, spare[0]), st.integers(0, spare[1]))
    corners = data.draw(st.lists(corner, min_size=num_corners, max_size=num_corners))
    num_crops = num_corners * (1 + is_mirrored)
    batch, whole = room((2, num_crops, 3, size, size), offset)
    cutting.cut_through_table(pictures, TABLE, np.array(corners), batch)
    np.testing.assert_array_equal(batch, expected(pictures, corners, size, num_crops))
    assert np.isinf(whole).sum() == whole.size - batch.size


@pytest.mark.skipif(not cutting.COMPILED, reason="compilation is switched off")
def test_whole_lines_go_past_the_caches(monkeypatch):
    """The fast form is the one that an encoder's batch meets, and only whole lines do."""
    taken = []
    monkeypatch.setattr(cutting, "_stream_crops", lambda *arguments: taken.append("lines"))
    monkeypatch.setattr(cutting, "_copy_crops", lambda *arguments: taken.append("values"))
    pictures, corners = np.zeros((1, 40, 40, 3), np.uint8), np.array([(0, 0)])
    for size, offset in ((32, 0), (32, 4), (24, 0)):
        batch, _ = room((1, 1, 3, size, size), offset)
        cutting.cut_through_table(pictures, TABLE, corners, batch)
    strided, _ = room((1, 1, 3, 32, 64), 0)
    cutting.cut_through_table(pictures, TABLE, corners, strided[..., ::2])
    assert taken == ["lines", "values", "values", "values"]


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (9, 0), (0, 9)])
def test_a_crop_over_the_edge_is_refused(corner):
    """Stores past the caches check no bounds themselves."""
    batch, whole = room((1, 1, 3, 32, 32), 0)
    with pytest.raises(ValueError, match="inside"):
        cutting.cut_through_table(
            np.zeros((1, 40, 40, 3), np.uint8), TABLE, np.array([corner]), batch
        )
    assert np.isinf(whole).all()
