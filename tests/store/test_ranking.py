"""Ranks compare like the strings and rows they stand for, whatever these are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outspike.store.ranking import combined, dense, is_constant, ranks_of_few, ranks_of_many

names = st.lists(st.text(max_size=20) | st.sampled_from(["", "a", "a\0", "video_1", "video_10"]))


def _expected(values):
    known = sorted(set(values))
    return [known.index(value) for value in values]


@pytest.mark.parametrize("ranks", [ranks_of_few, ranks_of_many])
@settings(max_examples=100, deadline=None)
@given(texts=names, skip=st.integers(0, 3))
@example(texts=["a\0", "a", "a"], skip=0)  # a zero is what padding consists of
@example(texts=["x" * 300, "x" * 299, "y"], skip=0)
@example(texts=["12345678b", "12345678a", "02345678b", "12345678b"], skip=1)
def test_ranks_compare_like_the_bytes_of_the_strings(ranks, texts, skip):
    """For any text, in any pieces, and for a column cut from a longer one."""
    kept = texts[skip:]
    column = pa.chunked_array([pa.array(texts, pa.string()), pa.array(texts, pa.string())])
    column = pa.chunked_array([*column.slice(skip, len(kept)).chunks], pa.string())
    assert ranks(column).tolist() == _expected([text.encode() for text in kept])


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(*[st.integers(0, 3) | st.integers(0, 1 << 41)] * 3), min_size=1))
def test_combined_codes_compare_like_rows(rows):
    """Products of any size: what does not fit 63 bits is counted anew."""
    codes = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    assert dense(combined(codes)).tolist() == _expected(rows)


def test_no_rows_have_no_ranks():
    empty = pa.chunked_array([], pa.string())
    assert not len(ranks_of_many(empty))
    assert not len(ranks_of_few(empty))
    assert not len(combined([dense(np.zeros(0, np.int64))]))


def test_a_constant_column_is_told_from_one_with_equal_ends():
    assert is_constant(pa.chunked_array([["a", "a"], ["a"]]))
    assert not is_constant(pa.chunked_array([["a", "b"], ["a"]]))
    assert not is_constant(pa.chunked_array([["a", "b"]]))
