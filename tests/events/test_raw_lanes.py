"""Words taken a vector at a time give what the loops over single words give, to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from outspike.events import raw_kernels, raw_lanes
from outspike.events.columns import Events
from outspike.events.raw_decode import EVT2, EVT3, WordFormat
from outspike.events.raw_forecast import LOOK_BACK, state_after
from outspike.events.raw_words import (
    HIGH,
    LOW,
    ROW,
    STATE_SIZE,
    TIMED,
    Evt3,
    State,
    new_state,
)

needs_packing = pytest.mark.skipif(
    not raw_lanes.USABLE3, reason="this processor does not pack 16-bit lanes (AVX-512 VBMI2)"
)
Decode = Callable[..., tuple[int, int, int]]


def evt3_words(rng: np.random.Generator, num: int, faults: float) -> np.ndarray:
    """Rows, columns, times and vectors in the mix that cameras send, and some wild words."""
    words: list[int] = []
    high, low = int(rng.integers(4096)), 0
    while len(words) < num:
        kind = rng.choice(8, p=[0.45, 0.28, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02])
        value = int(rng.integers(1 << 12))
        match kind:
            case 0:
                words += [0x2000 | int(v) for v in rng.integers(0, 1 << 12, rng.integers(1, 40))]
            case 1:
                words.append(value & 0x7FF)
            case 2:
                low = min(0xFFF, max(0, low + int(rng.integers(-11, 60))))
                words.append(0x6000 | low)
            case 3:
                marks = rng.integers(0, 1 << 12, 3) & rng.integers(0, 1 << 12, 3)
                words += [0x3000 | (value & 0x800) | value % 2000, 0x4000 | int(marks[0])]
                words += [0x4000 | int(marks[1]), 0x5000 | int(marks[2])]
            case 4:
                words.append(int(rng.choice([0x3000, 0x4000, 0x5000])) | value)
            case 5:
                high, low = (high + int(rng.choice([0, 1, 1, 700]))) % 4096, 0
                words.append(0x8000 | high)
            case 6:
                words.append(int(rng.choice([0x7000, 0xA000, 0xE000, 0xF000])) | value)
            case _:
                words.append(int(rng.integers(1 << 16)) if rng.random() < faults else 0x2000)
    return np.array(words[:num], dtype=np.uint16)


def evt2_words(rng: np.random.Generator, num: int, faults: float) -> np.ndarray:
    """Runs of events between high times."""
    words = rng.integers(0, 1 << 29, num, dtype=np.uint32)
    highs = rng.random(num) < rng.choice([0.01, 0.2])
    counts = np.cumsum(highs).astype(np.uint32) + rng.choice([0, 1, (1 << 28) - 3])
    words[highs] = 8 << 28 | (counts[highs] & ((1 << 28) - 1))
    silent = rng.random(num) < 0.01
    words[silent] = 0xE << 28
    wild = rng.random(num) < faults / 50
    words[wild] = rng.integers(0, 1 << 32, wild.sum(), dtype=np.uint32)
    return words


def read_all(
    decode: Decode, fmt: WordFormat, words: np.ndarray, room: int
) -> tuple[list[object], State]:
    """All events, faults and states of a stretch; a word at fault is passed over."""
    state, position, found = new_state(), 0, []
    state[TIMED], state[HIGH], state[ROW] = 1, 5, 7
    while position < len(words):
        columns = [np.zeros(room, dtype=kind) for kind in ("i8", "u2", "u2", "u1")]
        position, count, fault = decode(words, position, state, *columns, 0)
        assert count <= room
        found += list(zip(*(c[:count].tolist() for c in columns), strict=True))
        if fault:
            found.append((position, fault))
            position += 1
    return found, state


@needs_packing
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    num=st.integers(0, 700),
    room=st.sampled_from([32, 33, 45, 64, 1000]),
    faults=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_evt3_in_vectors_equals_evt3_word_by_word(
    seed: int, num: int, room: int, faults: float
) -> None:
    """Events, faults with their places, and the state behind the last word."""
    words = evt3_words(np.random.default_rng(seed), num, faults)
    found, state = read_all(raw_lanes.decode_evt3, EVT3, words, room)
    expected, after = read_all(raw_kernels.decode_evt3, EVT3, words, room)
    assert found == expected
    assert np.array_equal(state, after)


@needs_packing
@settings(deadline=None)
@given(words=st.lists(st.integers(0, (1 << 16) - 1), min_size=32, max_size=200))
def test_evt3_in_vectors_takes_any_words(words: list[int]) -> None:
    """Noise, in which nearly every vector holds a fault."""
    data = np.array(words, dtype=np.uint16)
    found, state = read_all(raw_lanes.decode_evt3, EVT3, data, 100)
    expected, after = read_all(raw_kernels.decode_evt3, EVT3, data, 100)
    assert found == expected
    assert np.array_equal(state, after)


@pytest.mark.skipif(not raw_lanes.USABLE2, reason="compilation is switched off")
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    num=st.integers(0, 500),
    room=st.sampled_from([16, 17, 40, 1000]),
    faults=st.sampled_from([0.0, 0.1, 1.0]),
)
@example(seed=0, num=500, room=16, faults=0.0)
def test_evt2_in_vectors_equals_evt2_word_by_word(
    seed: int, num: int, room: int, faults: float
) -> None:
    words = evt2_words(np.random.default_rng(seed), num, faults)
    found, state = read_all(raw_lanes.decode_evt2, EVT2, words, room)
    expected, after = read_all(raw_kernels.decode_evt2, EVT2, words, room)
    assert found == expected
    assert np.array_equal(state, after)


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), num=st.integers(0, 700), version=st.sampled_from([2, 3]))
@example(seed=1389832, num=609, version=3)  # the highest low time lies far behind the last
def test_what_carries_over_sound_words_is_foretold(seed: int, num: int, version: int) -> None:
    """The forecast for the next part is the state in which decoding this one ends.

    Of low times only those near the last are asked.
    """
    rng = np.random.default_rng(seed)
    words = evt3_words(rng, num, 0.0) if version == 3 else evt2_words(rng, num, 0.0)
    fmt = EVT3 if version == 3 else EVT2
    highs = words[words >> fmt.kind_shift == fmt.high_kind]
    state = new_state()
    state[TIMED], state[ROW] = 1, 7
    state[HIGH] = int(highs[0]) & (fmt.time.period - 1) if len(highs) else 5
    forecast = state_after(words, state, fmt)
    columns = Events.room(12 * num + 12).columns
    position, _, fault = fmt.decode(words, 0, state, *columns, 0)
    assume(not fault)
    assert position == num
    if version == 3 and len(lows := np.flatnonzero(words >> 12 == Evt3.TIME_LOW)):
        near = words[max(0, lows[-1] + 1 - LOOK_BACK) : lows[-1] + 1]
        if state[LOW] not in near[near >> 12 == Evt3.TIME_LOW] & 0xFFF:
            assert forecast[LOW] <= state[LOW]
            forecast[LOW] = state[LOW]
    assert forecast.tolist() == state.tolist()


@needs_packing
@pytest.mark.parametrize("lane", range(32))
def test_every_lane_carries_its_own_row_and_time(lane: int) -> None:
    """One row and one time word anywhere in a vector of columns change what comes after them."""
    words = np.arange(0x2000, 0x2040, dtype=np.uint16)
    words[lane], words[lane + 1] = 0x0155, 0x6123
    columns = [np.zeros(100, dtype=kind) for kind in ("i8", "u2", "u2", "u1")]
    state = np.zeros(STATE_SIZE, dtype=np.int64)
    state[TIMED], state[ROW] = 1, 9
    _, count, _ = raw_lanes.decode_evt3(words, 0, state, *columns, 0)
    assert count == 62
    assert columns[0][:count].tolist() == [0] * lane + [0x123] * (62 - lane)
    assert columns[2][:count].tolist() == [9] * lane + [0x155] * (62 - lane)
