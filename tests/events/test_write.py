"""Files that cannot be read back are never written, and half a file never has its name."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from outspike.errors import ConfigError
from outspike.events.columns import Events, concatenate
from outspike.events.reader import open_events
from outspike.events.write import EventWriter, write_events

SIZE = (320, 240)


def at(*times_us: int) -> Events:
    num = len(times_us)
    column = np.arange(num, dtype=np.uint16)
    return Events(np.array(times_us, dtype=np.int64), column, column, (column % 2).astype(np.uint8))


@pytest.mark.parametrize("name", ["evt2", "evt3"])
@pytest.mark.parametrize(
    "times",
    [
        (0,),
        (913_716_224, 913_812_095),
        (5, 5, 2**24 + 5, 2**24 + 5),
        (0, 3 * 2**24 - 1, 3 * 2**24, 40 * 2**24),
        (2**34 - 1, 2**34, 2**34 + 2**24),
        (2**36 + 7,),
    ],
    ids=["zero", "late", "one-wrap", "long-gaps", "evt2-wrap", "hours"],
)
def test_times_survive_late_starts_long_gaps_and_wraps(tmp_path: Path, name: str, times) -> None:
    """Counters of the formats start again after 17 s and 4.8 h; readers follow them."""
    path = tmp_path / "recording.raw"
    write_events(path, at(*times), format=name, size=SIZE)
    found = concatenate(list(open_events(str(path)).chunks()))
    assert found.t.tolist() == list(times)


@pytest.mark.parametrize("name", ["evt2", "evt3", "dat", "npz"])
def test_a_recording_without_events_is_a_file_with_a_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / "silent.bin"
    write_events(path, Events.empty(), format=name, size=SIZE, anchor_us=5, duration_us=1_000_000)
    reader = open_events(str(path))
    assert (reader.info.width, reader.info.height, reader.info.size_source) == (*SIZE, "header")
    assert (reader.info.anchor_us, reader.info.duration_us) == (5, 1_000_000)
    assert sum(len(chunk) for chunk in reader.chunks()) == 0


def test_neighbours_share_vector_words(tmp_path: Path) -> None:
    """A row of 36 columns is a base and three vectors of twelve, not 36 words."""
    row = np.arange(36, dtype=np.uint16)
    events = Events(
        np.full(36, 7, dtype=np.int64),
        100 + row,
        np.full(36, 5, dtype=np.uint16),
        np.ones(36, dtype=np.uint8),
    )
    write_events(tmp_path / "a.raw", events, format="evt3", size=SIZE)
    data = (tmp_path / "a.raw").read_bytes()
    words = np.frombuffer(data[data.index(b"% end\n") + 6 :], dtype="<u2")
    assert [hex(word) for word in words] == [
        "0x8000",  # high time
        "0x6007",  # low time
        "0x5",  # row
        "0x3864",  # base, ON
        *["0x4fff"] * 3,
    ]


@pytest.mark.parametrize("times", [(2**32,), (0, 2**30)], ids=["late-start", "silence"])
def test_times_that_dat_cannot_tell_are_refused(tmp_path: Path, times) -> None:
    """Its clock starts again after 71.6 minutes; silences of a quarter of that look damaged."""
    with pytest.raises(ConfigError, match="DAT counts times in 32 bits"):
        write_events(tmp_path / "a.dat", at(*times), format="dat", size=SIZE)


def test_polarities_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    events = at(1, 2)
    events.p[1] = 2
    with pytest.raises(ConfigError, match="polarities reach 2"):
        write_events(tmp_path / "a.raw", events, format="evt3", size=SIZE)


def test_files_carry_on_over_the_writers_own_blocks(tmp_path: Path, monkeypatch) -> None:
    """Row and time state is carried from block to block."""
    events = at(*range(0, 100_000, 700))
    for block in (1, 7, 1000):
        monkeypatch.setattr("outspike.events.write._EVENTS_PER_WRITE", block)
        for name in ("evt2", "evt3"):
            write_events(tmp_path / f"{name}_{block}", events, format=name, size=SIZE)
    for name in ("evt2", "evt3"):
        contents = {path.read_bytes() for path in tmp_path.glob(f"{name}_*")}
        assert len(contents) == 1


@pytest.mark.parametrize(
    ("events", "says"),
    [
        (at(10, 9), "backwards"),
        (at(-1), "do not fit"),
        (at(1_643_243_628_737_093), "subtract"),
        (at(*range(241)), "outside"),
    ],
    ids=["order", "negative", "unix-time", "outside"],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, events: Events, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        write_events(tmp_path / "a.raw", events, format="evt3", size=SIZE)
    assert os.listdir(tmp_path) == []


def test_wall_clock_times_fit_an_npz(tmp_path: Path) -> None:
    """Unix times in microseconds exceed 2^50 and stay exact."""
    events = at(1_643_243_628_737_093, 1_643_243_628_737_094)
    write_events(tmp_path / "a.npz", events, format="npz", size=SIZE)
    (found,) = open_events(str(tmp_path / "a.npz")).chunks()
    assert found.t.tolist() == events.t.tolist()


def test_sides_above_eleven_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2048"):
        write_events(tmp_path / "a.raw", at(1), format="evt2", size=(4096, 10))


def test_columns_of_different_lengths_are_no_events() -> None:
    one = at(1)
    with pytest.raises(ConfigError, match="x 2"):
        Events(one.t, np.zeros(2, dtype=np.uint16), one.y, one.p)


@pytest.mark.parametrize("name", ["evt2", "evt3", "dat", "npz"])
def test_pieces_make_the_file_that_the_whole_would(tmp_path: Path, name: str) -> None:
    """A writer carries times, rows and column lengths from piece to piece."""
    events = at(*range(0, 20_000_000, 90_000))
    write_events(tmp_path / "whole", events, format=name, size=SIZE, anchor_us=0)
    with EventWriter(tmp_path / "pieces", format=name, size=SIZE, anchor_us=0) as writer:
        for start, stop in [(0, 1), (1, 1), (1, 100), (100, len(events))]:
            writer.push(events.slice(start, stop))
    found = concatenate(list(open_events(str(tmp_path / "pieces")).chunks()))
    assert found.t.tolist() == events.t.tolist()
    if name != "npz":  # whose entries carry the time of writing
        assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["pieces", "whole"]


@pytest.mark.parametrize("name", ["evt2", "evt3", "dat", "npz"])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Neither half a file nor the columns that wait for an archive; times are checked across."""

    def write_late_piece() -> None:
        with EventWriter(tmp_path / "a", format=name, size=SIZE) as writer:
            writer.push(at(0, 1000))
            writer.push(at(700))

    with pytest.raises(ConfigError, match="backwards by 300 us"):
        write_late_piece()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["evt2", "evt3", "dat", "npz"])
def test_reading_takes_no_more_memory_for_a_longer_recording(tmp_path: Path, name: str) -> None:
    """Three times the events, the same peak; pieces are not kept."""
    peaks = []
    for num in (300_000, 1_000_000):
        column = np.arange(num)
        events = Events(
            column * 7,
            (column % 320).astype(np.uint16),
            (column // 320 % 240).astype(np.uint16),
            (column % 2).astype(np.uint8),
        )
        write_events(tmp_path / "a", events, format=name, size=SIZE)
        reader = open_events(str(tmp_path / "a"))
        tracemalloc.start()
        assert sum(len(chunk) for chunk in reader.chunks(1 << 15)) == num
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000
    assert peaks[1] < 16e6
