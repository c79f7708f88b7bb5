"""Label pickles: plain values come through, everything else is refused before it can run."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.datasets.safe_pickle import load_plain
from outspike.errors import DatasetError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
ARRAYS = st.builds(
    lambda shape, dtype, seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.sampled_from(["int64", "uint8", "float32", "float64", "bool", ">i4", "<f2"]),
    st.integers(0, 9),
)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value, protocol):
    """Numbers, text, lists and dicts, whatever the protocol."""
    assert load_plain(pickle.dumps(value, protocol=protocol), "f") == value


@given(ARRAYS, st.sampled_from(PROTOCOLS), st.booleans())
def test_arrays_come_back_bit_for_bit(array, protocol, fortran):
    """Every plain type, order and protocol, inside a dict as label files have them."""
    array = np.asfortranarray(array) if fortran else array
    found = load_plain(pickle.dumps({"v": array}, protocol=protocol), "f")["v"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert np.array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_and_lists_of_arrays_come_back(protocol):
    """Scalars become plain numbers; an array of objects becomes a list."""
    value = {"n": np.int64(7), "f": np.float32(0.5), "b": np.bool_(True)}
    assert load_plain(pickle.dumps(value, protocol), "f") == {"n": 7, "f": 0.5, "b": True}
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(2), [1, 2, 3]]
    first, second = load_plain(pickle.dumps(ragged, protocol), "f")
    assert first.tolist() == [0, 0]
    assert second == [1, 2, 3]
    boxed = np.array({"v": 1}, dtype=object)
    assert load_plain(pickle.dumps(boxed, protocol), "f") == {"v": 1}


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_and_not_run(tmp_path, protocol):
    """Wherever it hides: as the value, in a dict, in an array of objects."""
    trap = Trap(tmp_path / "sprung")
    boxed = np.empty(1, dtype=object)
    boxed[0] = trap
    for value in (trap, {"v": [trap]}, boxed):
        with pytest.raises(DatasetError, match="code in a pickle is never run"):
            load_plain(pickle.dumps(value, protocol), "labels.pickle")
    assert not trap.path.exists()


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        1j,
        collections.OrderedDict(a=1),
        Path("x"),
        np.array([1j]),
        np.array(["a"]),
        range(3),
    ],
    ids=repr,
)
def test_other_kinds_are_refused_by_name(value):
    """Even harmless ones: a label file holds none of them."""
    with pytest.raises(DatasetError, match=r"labels\.pickle"):
        load_plain(pickle.dumps({"v": value}), "labels.pickle")


_PLAIN = (type(None), bool, int, float, str, bytes, list, tuple, dict, np.ndarray)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error_of_ours(data):
    """No crash, no other exception; a value is made of plain kinds only."""
    try:
        value = load_plain(data, "f")
    except DatasetError:
        return
    assert isinstance(
        value, (type(None), bool, int, float, str, bytes, list, tuple, dict, np.ndarray)
    )


def test_shared_parts_do_not_take_forever():
    """Lists of lists of the same list: converted once each; cycles are refused."""
    value: list = [0, 1]
    for _ in range(18):
        value = [value] * 9
    assert len(load_plain(pickle.dumps(value), "f")) == 9
    loop: list = []
    loop.append(loop)
    with pytest.raises(DatasetError, match="deep"):
        load_plain(pickle.dumps(loop), "f")


def test_functions_handed_out_cannot_be_changed():
    """A state for a stand-in is refused, so that one file cannot spoil the next."""
    data = b"cnumpy.core.multiarray\nscalar\n(N}(V__defaults__\nNsttb."
    with pytest.raises(DatasetError):
        load_plain(data, "f")
    assert load_plain(pickle.dumps(np.int64(3)), "f") == 3
