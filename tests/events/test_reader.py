"""What is written is read back, cut anywhere; what is damaged gives one clear reason."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from outspike.errors import MediaError
from outspike.events.columns import Events, concatenate
from outspike.events.reader import open_events
from outspike.events.write import write_events

SIZE = (640, 480)

#: Longer than the clock of EVT 3.0 (16.8 s), and a few of them longer than that of DAT (71.6 min).
SILENCE = 400_000_000


@st.composite
def recordings(draw: st.DrawFn) -> Events:
    """Rows of neighbours (vector words), lone events, silences, and clocks that start again."""
    num = draw(st.integers(1, 300))
    steps = draw(
        arrays(np.int64, num, elements=st.sampled_from([0, 0, 0, 0, 1, 30, 200_000, SILENCE]))
    )
    steps[0] = draw(st.sampled_from([0, 5, 2**24 - 3, 2**32 - 1000]))
    columns = draw(arrays(np.int64, num, elements=st.sampled_from([1, 1, 1, 2, 11, 12, 13, 300])))
    rows = draw(arrays(np.int64, num, elements=st.sampled_from([0, 0, 0, 0, 0, 1, 77])))
    turns = draw(arrays(np.int64, num, elements=st.sampled_from([0, 0, 0, 0, 0, 1])))
    return Events(
        np.cumsum(steps),
        (np.cumsum(columns) % SIZE[0]).astype(np.uint16),
        (np.cumsum(rows) % SIZE[1]).astype(np.uint16),
        (np.cumsum(turns) % 2).astype(np.uint8),
    )


@pytest.mark.parametrize("name", ["evt2", "evt3", "dat", "npz"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=recordings(), num_events=st.integers(1, 400))
def test_a_recording_survives_its_file_whatever_the_chunks(
    tmp_path: Path, name: str, events: Events, num_events: int
) -> None:
    """decode(encode(x)) = x for every format, streamed in pieces of any length."""
    path = tmp_path / f"recording.{name}"
    write_events(path, events, format=name, size=SIZE, anchor_us=0)  # type: ignore[arg-type]
    reader = open_events(str(path))
    assert (reader.info.width, reader.info.height) == SIZE
    assert reader.info.anchor_us == 0
    found = concatenate(list(reader.chunks(num_events)))
    for column in ("t", "x", "y", "p"):
        np.testing.assert_array_equal(getattr(found, column), getattr(events, column))


@pytest.mark.parametrize("name", ["dat", "npz"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=recordings(), data=st.data())
def test_late_events_stay_late(tmp_path: Path, name: str, events: Events, data) -> None:
    """Readout jitter is stored and read as it is, in the formats that keep whole times."""
    late = data.draw(st.integers(0, len(events) - 1))
    before = events.t[max(late - 1, 0)]
    events.t[late] = max(0, before - data.draw(st.integers(0, 256)))
    path = tmp_path / f"recording.{name}"
    write_events(path, events, format=name, size=SIZE)  # type: ignore[arg-type]
    found = concatenate(list(open_events(str(path)).chunks(50)))
    np.testing.assert_array_equal(found.t, events.t)


def _words(path: Path, words: list[int]) -> str:
    path.write_bytes(b"% evt 3.0\n" + np.array(words, dtype="<u2").tobytes())
    return str(path)


def test_low_time_words_that_step_back_do_not_turn_time_back(tmp_path: Path) -> None:
    """Readout jitter within one high word gives the running maximum (not another 4,096 us)."""
    url = _words(
        tmp_path / "a.raw", [0x8001, 0x6010, 0x0005, 0x2003, 0x600B, 0x2803, 0x6012, 0x2003]
    )
    events = concatenate(list(open_events(url).chunks()))
    assert events.t.tolist() == [4112, 4112, 4114]
    assert events.p.tolist() == [0, 1, 0]


def test_the_high_time_word_may_wrap(tmp_path: Path) -> None:
    """A step from 4095 to 0 is the next epoch of 2^24 us."""
    url = _words(tmp_path / "a.raw", [0x8FFF, 0x6000, 0x0001, 0x2001, 0x8000, 0x6000, 0x2001])
    events = concatenate(list(open_events(url).chunks()))
    assert events.t.tolist() == [4095 << 12, 4096 << 12]


def test_vector_words_expand_from_their_base(tmp_path: Path) -> None:
    """Set bits are columns from the base on; the base moves by the width of each vector."""
    words = [0x8001, 0x6010, 0x0007, 0x3864, 0x4801, 0x5081, 0x3005, 0x4003]
    events = concatenate(list(open_events(_words(tmp_path / "a.raw", words)).chunks(1)))
    assert events.x.tolist() == [100, 111, 112, 119, 5, 6]
    assert events.p.tolist() == [1, 1, 1, 1, 0, 0]
    assert set(events.y.tolist()) == {7}


def test_events_before_the_first_time_word_are_counted_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows when they were; they are left out, and a warning says how many."""
    url = _words(tmp_path / "a.raw", [0x0001, 0x2001, 0x3001, 0x4003, 0x8001, 0x6000, 0x2002])
    events = concatenate(list(open_events(url).chunks()))
    assert events.x.tolist() == [2]
    assert "untimed_events=3" in caplog.text


def test_a_first_word_that_begins_like_a_header_line_is_data(tmp_path: Path) -> None:
    """0x25 is ``%``; files of older cameras do not say where their header ends."""
    words = np.array([0x8025, 0x6010, 0x0007, 0x2064, 0x0A0A], dtype="<u2")
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n" + words.tobytes())
    events = concatenate(list(open_events(str(path)).chunks()))
    assert events.t.tolist() == [(0x25 << 12) + 16]


def test_a_header_that_states_no_number_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% geometry wide x high\n\x01\x80")
    with pytest.raises(MediaError, match="header width") as caught:
        open_events(str(path))
    assert caught.value.reason == "corrupt"


def test_a_damaged_npz_column_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    column = np.random.default_rng(0).integers(0, 200, 5000)
    np.savez_compressed(path, t=np.sort(column), x=column, y=column, p=column % 2)
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        list(open_events(str(path)).chunks())
    assert caught.value.reason == "corrupt"


def test_recordings_on_s3_are_read_like_local_ones(tmp_path: Path, s3_bucket: str) -> None:
    """The same columns, and an absent key is unreadable."""
    from outspike.urls import write_bytes

    column = np.arange(200, dtype=np.uint16)
    events = Events(column.astype(np.int64), column, column, (column % 2).astype(np.uint8))
    for name in ("evt3", "npz"):
        write_events(tmp_path / name, events, format=name, size=SIZE)  # type: ignore[arg-type]
        write_bytes(f"{s3_bucket}/{name}", (tmp_path / name).read_bytes())
        found = concatenate(list(open_events(f"{s3_bucket}/{name}").chunks(64)))
        np.testing.assert_array_equal(found.x, events.x)
    with pytest.raises(MediaError) as caught:
        open_events(f"{s3_bucket}/absent.raw")
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"minutes of a meeting", "unknown_format"),
        (b"% evt 3.0\n\x00\x80\x01", "truncated"),
        (b"% evt 4.0\n\x00\x80", "unknown_format"),
        (b"PK\x03\x04 not really", "corrupt"),
    ],
)
def test_damaged_files_give_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.raw"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"bad\.raw") as caught:
        list(open_events(str(path)).chunks())
    assert caught.value.reason == reason


def test_an_absent_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        open_events(str(tmp_path / "none.raw"))
    assert caught.value.reason == "unreadable"


def test_events_outside_the_given_size_are_refused(tmp_path: Path) -> None:
    url = _words(tmp_path / "a.raw", [0x8001, 0x6010, 0x0005, 0x2300])
    with pytest.raises(MediaError, match="outside the configured size 320x240"):
        list(open_events(url, size=(320, 240)).chunks())


def test_an_npz_without_polarity_names_the_column(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, t=np.arange(3), x=np.arange(3), y=np.arange(3))
    with pytest.raises(MediaError, match="no column p"):
        open_events(str(path))


def test_signed_polarity_of_an_npz_is_stored_as_zero_and_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, t=np.arange(3), x=np.arange(3), y=np.arange(3), p=np.array([-1, 1, -1]))
    (chunk,) = open_events(str(path)).chunks()
    assert chunk.p.tolist() == [0, 1, 0]
