"""Classes told of windows: pooled over windows, rows by true class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import AlignmentError
from outspike.evaluate.window_classes import row_shares, window_accuracy, window_confusion

VIDEOS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=6)),
    min_size=1,
    max_size=6,
)


@given(VIDEOS)
def test_accuracy_is_the_diagonal_of_the_confusion(videos: list[tuple[int, list[int]]]) -> None:
    """Every window counts once in both, and rows sum to the windows of their class."""
    truth = [label for label, _ in videos]
    predicted = [np.array(classes) for _, classes in videos]
    table = window_confusion(predicted, truth, range(4))
    total = sum(map(len, predicted))
    assert table.sum() == total
    assert window_accuracy(predicted, truth) == pytest.approx(np.trace(table) / total)
    for label in range(4):
        assert table[label].sum() == sum(len(c) for t, c in videos if t == label)


def test_a_class_that_is_never_true_has_no_shares() -> None:
    """Its row is NaN, the others sum to 1."""
    shares = row_shares(np.array([[1, 3], [0, 0]]))
    np.testing.assert_array_equal(shares, [[0.25, 0.75], [np.nan, np.nan]])


def test_what_does_not_fit_together_is_refused() -> None:
    """Numbers of videos, no windows, and classes outside the list."""
    with pytest.raises(AlignmentError, match="2 videos and 1 true"):
        window_accuracy([np.array([1]), np.array([1])], [1])
    with pytest.raises(AlignmentError, match="need one"):
        window_accuracy([np.array([], dtype=int)], [1])
    with pytest.raises(AlignmentError, match=r"\[7\], known are \[0, 1\]"):
        window_confusion([np.array([7, 1])], [0], [0, 1])
