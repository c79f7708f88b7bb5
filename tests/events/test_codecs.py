"""Every codec reads what its format's description says, in pieces of any length, or says why."""

import re
import struct
from pathlib import Path

import event_samples as packed
import numpy as np
import pytest
from event_samples import SIZE, make_events, samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.errors import ConfigError, MediaError
from outspike.events import extras
from outspike.events.columns import Events, concatenate
from outspike.events.reader import CODECS, EventReader, open_events
from outspike.events.summary import summarise

SAMPLES = {
    f"{codec}-{number}": (codec, sample)
    for codec, found in samples().items()
    for number, sample in enumerate(found)
}
SECTIONS = {"evt2": "raw", "evt21": "raw", "evt3": "raw"}

every_sample = pytest.mark.parametrize("name", SAMPLES)


def stored(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def read(reader: EventReader, num_events: int = 1 << 20) -> Events:
    return concatenate(list(reader.chunks(num_events)))


def assert_equal(found: Events, expected: Events) -> None:
    for key in "txyp":
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key), err_msg=key)


@every_sample
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num_events=st.integers(1, 60), resync=st.booleans())
def test_a_recording_is_read_in_pieces_of_any_length(
    tmp_path: Path, name: str, num_events: int, resync: bool
) -> None:
    """The same columns, nothing skipped, and no difference between both ways with faults."""
    _, sample = SAMPLES[name]
    url = stored(tmp_path / "recording", sample.data)
    reader = open_events(url, size=sample.size, on_error="resync" if resync else "raise")
    assert_equal(read(reader, num_events), sample.events)
    assert reader.skipped == {}


@every_sample
def test_exactly_one_codec_knows_a_file_by_its_content(name: str) -> None:
    """DAT and raw share the sign of their header; the order of asking decides there alone."""
    codec, sample = SAMPLES[name]
    head = sample.data[: 1 << 16]
    claims = [key for key, known in CODECS.items() if known.sniff(head, len(sample.data))]
    assert claims[0] == SECTIONS.get(codec, codec)
    assert claims[1:] in ([], ["raw"])
    assert claims[1:] == [] or codec == "dat"


@every_sample
def test_a_recording_cut_short_gives_no_other_events(tmp_path: Path, name: str) -> None:
    """At any length: an error, or the first events where a record happens to end there."""
    _, sample = SAMPLES[name]
    step = max(37, len(sample.data) // 30)
    for length in sorted({*range(0, len(sample.data), step), len(sample.data) - 1}):
        url = stored(tmp_path / "recording", sample.data[:length])
        found = read_or_none(url, sample.size)
        if found is not None:
            assert_equal(found, sample.events.slice(0, len(found)))


def read_or_none(url: str, size: tuple[int, int] | None) -> Events | None:
    """Events, or None where the file was refused."""
    try:
        return read(open_events(url, size=size))
    except MediaError:
        return None


@pytest.mark.parametrize(
    ("content", "reason", "says"),
    [
        (b"", "empty", "empty file"),
        (b"\x07", "unknown_format", "1 bytes begin at byte 0"),
        (b"%", "unknown_format", "version unknown"),
        (b"minutes of a meeting, in plain words", "unknown_format", "not an event recording"),
        (b"% evt 3.0\n% geometry 12", "truncated", "header without end"),
        (b"% evt 3.0\n", "truncated", "header without end"),
        (b"% " + b"x" * (1 << 17), "truncated", "header without end"),
        (b"% evt 3.0\n% end\n\x00\x80\x00\xd0", "corrupt", "type 0xD at byte 18"),
        (b"% evt 2.0\n% end\n\x00\x00\x00\x80\x00\x00\x00\x50", "corrupt", "0x5 at byte 20"),
        (b"% evt 3.0\n% geometry 0x0\n% end\n", "corrupt", "sensor of 0x0"),
        (b"% Version 2\n\x00\x09", "unknown_format", "type 0x00 and 9 bytes (byte 12)"),
        (b"% Version 2\n\x0e\x08", "unknown_format", "type 0x0E"),
        (b"Event Stream\x02\x00\x00\x02\x10\x00\x10\x00", "unknown_format", "ATIS events"),
        (b"Event Stream\x01\x00\x00\x01", "unknown_format", "version 1.0.0 (byte 12)"),
        (b"Event Stream\x02\x00", "truncated", "end of the file at byte 14"),
        (b"#!AER-DAT2.0\r\n# AEChip: Dvs128\r\n", "empty", "bytes and nothing behind it"),
        (b"#!AER-DAT2.0\r\n# AEChip: Cochlea\r\n" + bytes(8), "unknown_format", "'Cochlea'"),
        (b"#!AER-DAT4.0\r\n\xff\xff\xff\x7f", "corrupt", "header of 2147483647 bytes"),
        (b"#!AER-DAT4.0\r\n\x10\x00\x00\x00" + bytes(16), "corrupt", "identifier"),
        (b"#!AER-DAT3.1\r\n", "unknown_format", "AEDAT of version '3.1' (byte 9)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "corrupt", "damaged HDF5"),
        (b"MATLAB 5.0 MAT-file" + bytes(107) + b"XX", "corrupt", "byte 126"),
        (b"PK\x03\x04" + bytes(40), "corrupt", "damaged npz"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(
    tmp_path: Path, content: bytes, reason: str, says: str
) -> None:
    url = stored(tmp_path / "bad", content)
    with pytest.raises(MediaError) as caught:
        read(open_events(url))
    assert caught.value.reason == reason
    assert says in str(caught.value)
    assert str(caught.value).startswith(url)


def test_an_aedat4_header_alone_is_empty(tmp_path: Path) -> None:
    whole = packed.aedat4(make_events(0), table=False)
    with pytest.raises(MediaError, match="no packet behind it") as caught:
        open_events(stored(tmp_path / "a.aedat4", whole))
    assert caught.value.reason == "empty"


_RECORDS = {"dat": packed.dat, "nmnist": packed.nmnist, "aedat2": packed.aedat2, "es": packed.es}


@pytest.mark.parametrize("codec", ["evt2", "evt3", "dat", "aedat2", "es", "aedat4", "hdf5", "npz"])
def test_an_event_outside_the_sensor_is_named_with_its_place(tmp_path: Path, codec: str) -> None:
    """The given size is the one that counts; resync leaves out what lies outside and counts it."""
    sample = samples()[codec][0]
    url = stored(tmp_path / "recording", sample.data)
    narrow = (200, SIZE[1])
    with pytest.raises(MediaError, match=r"200x260") as caught:
        read(open_events(url, size=narrow))
    assert caught.value.reason == "outside_sensor"
    assert ("byte " in str(caught.value)) == (codec not in ("hdf5", "npz"))
    reader = open_events(url, size=narrow, on_error="resync")
    found = read(reader)
    assert int(found.x.max()) < 200
    assert reader.skipped
    if codec not in ("es", "aedat2"):  # which count bytes, and mirror their columns
        inside = sample.events.x < 200
        np.testing.assert_array_equal(found.t, sample.events.t[inside])
        assert reader.skipped == {"outside_sensor": int((~inside).sum())}


@pytest.mark.parametrize("codec", ["dat", "nmnist", "aedat2"])
def test_the_byte_of_an_event_outside_is_that_of_its_record(tmp_path: Path, codec: str) -> None:
    size = (30, 30)
    events = Events(
        np.arange(20, dtype=np.int64),
        np.full(20, 3, dtype=np.uint16),
        np.full(20, 4, dtype=np.uint16),
        np.ones(20, dtype=np.uint8),
    )
    events.x[13] = 33
    if codec == "aedat2":
        data, width = packed.aedat2(events, chip="x.DVS128"), 8
        size = (128 - 4, 128)  # columns are mirrored: 3 lies at 124 in the file
        events.x[:13] = events.x[14:] = 33
        events.x[13] = 3
        data = packed.aedat2(events, chip="x.DVS128")
    else:
        data, width = _RECORDS[codec](events), {"dat": 8, "nmnist": 5}[codec]
    place = len(data) - 7 * width
    with pytest.raises(MediaError, match=f"byte {place}[ ,]"):
        read(open_events(stored(tmp_path / "recording", data), size=size))


@pytest.mark.parametrize("codec", ["dat", "nmnist", "aedat2", "aedat4", "npz", "mat", "hdf5"])
def test_time_that_runs_back_is_a_fault_and_jitter_is_not(tmp_path: Path, codec: str) -> None:
    """Steps back of readout jitter stay as stored; one event far ahead costs only itself."""
    events = make_events(30, size=(34, 34))
    events.t[:] = 1_000_000 + 100 * np.arange(30)
    events.t[10] -= 120
    pack = {
        "dat": packed.dat,
        "nmnist": packed.nmnist,
        "aedat2": packed.aedat2,
        "aedat4": packed.aedat4,
        "npz": packed.npz,
        "mat": packed.mat,
        "hdf5": packed.hdf5_dsec,
    }[codec]
    url = stored(tmp_path / "recording", pack(events))
    assert_equal(read(open_events(url)), events)
    events.t[20] += 500_000
    stored(tmp_path / "recording", pack(events))
    with pytest.raises(MediaError, match="does not fit the times around it") as caught:
        read(open_events(url))
    assert caught.value.reason == "time_backwards"
    for num_events in (1 << 20, 21):  # what follows it is in the same piece, or in the next one
        reader = open_events(url, on_error="resync")
        np.testing.assert_array_equal(read(reader, num_events).t, np.delete(events.t, 20))
        assert reader.skipped == {"time_backwards": 1}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(20, 500),
    num=st.integers(1, 64),
    seed=st.integers(0, 99),
    piece=st.integers(1, 90),
)
def test_a_damaged_sector_costs_little_more_than_itself(
    tmp_path: Path, start: int, num: int, seed: int, piece: int
) -> None:
    """Random records in the middle do not make the rest of the recording late."""
    events = make_events(600, size=(100, 80), seed=seed)
    data = bytearray(packed.dat(events))
    body = len(data) - 8 * len(events)
    data[body + 8 * start : body + 8 * (start + num)] = np.random.default_rng(seed).bytes(8 * num)
    reader = open_events(stored(tmp_path / "a.dat", bytes(data)), on_error="resync")
    found = read(reader, piece)
    assert len(found) > len(events) - num - 20
    assert int(found.t[-1]) == int(events.t[-1])
    assert (np.maximum.accumulate(found.t) - found.t <= 256).all()


def test_times_no_clock_shows_are_refused(tmp_path: Path) -> None:
    events = make_events(5)
    events.t[-1] = 1 << 62
    url = stored(tmp_path / "a.npz", packed.npz(events))
    with pytest.raises(MediaError, match="event 4; expected less than"):
        read(open_events(url))
    reader = open_events(url, on_error="resync")
    assert len(read(reader)) == 4
    assert reader.skipped == {"impossible_times": 1}


def test_a_damaged_first_record_does_not_move_the_others(tmp_path: Path) -> None:
    events = make_events(40)
    data = bytearray(packed.dat(events))
    struct.pack_into("<I", data, len(data) - 8 * len(events), 3_000_000_000)
    reader = open_events(stored(tmp_path / "a.dat", bytes(data)), on_error="resync")
    np.testing.assert_array_equal(read(reader).t, events.t[1:])
    assert reader.skipped == {"time_backwards": 1}


@pytest.mark.parametrize("start", [0, 2**31 - 40, 2**32 - 40])
@pytest.mark.parametrize("codec", ["dat", "aedat2"])
def test_32_bit_clocks_start_again(tmp_path: Path, codec: str, start: int) -> None:
    """After 71.6 minutes, also where jitter straddles the restart."""
    events = make_events(8)
    events.t[:] = start + np.array([0, 30, 50, 45, 60, 60, 2**30, 2**31 - 1])
    url = stored(tmp_path / "recording", _RECORDS[codec](events))
    assert_equal(read(open_events(url), 3), events)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_evt21_is_read_in_both_orders_of_its_halves(
    tmp_path: Path, swapped: bool, told: bool, num_threads: int
) -> None:
    """Where the header does not say which, the order with more words of known types."""
    data = packed.evt21(make_events(300), swapped=swapped)
    if not told:
        data = re.sub(rb";endianness=\w+", b"", data)
    url = stored(tmp_path / "a.raw", data)
    assert_equal(read(open_events(url, num_threads=num_threads), 64), make_events(300))


def test_nmnist_rows_of_240_move_the_clock_on(tmp_path: Path) -> None:
    """They are no events, and later times are 8,192 us later for each of them."""
    events = make_events(40, size=(34, 34))
    data = packed.nmnist(events)
    marked = data[:100] + b"\x00\xf0\x00\x00\x00" * 2 + data[100:]
    events.t[20:] += 2 * 8192
    assert_equal(read(open_events(stored(tmp_path / "a.bin", marked)), 7), events)


def test_dvs128_addresses_with_unknown_bits_are_another_camera(tmp_path: Path) -> None:
    """Without a chip in the header a DVS128 is assumed, and the data are checked against that."""
    data = packed.aedat2(make_events()).replace(b"# AEChip: ", b"# Camera: ")
    url = stored(tmp_path / "a.aedat", data)
    with pytest.raises(MediaError, match="is no pixel of 128x128"):
        read(open_events(url))
    assert_equal(read(open_events(url, size=SIZE)), make_events())


@pytest.mark.parametrize("compression", [0, 1, 3])
def test_a_damaged_packet_of_aedat4_costs_only_itself(tmp_path: Path, compression: int) -> None:
    """Also where its length is damaged: the next packet is found by what it begins with."""
    events = make_events(35)
    data = bytearray(packed.aedat4(events, compression))
    sign = {0: b"EVTS", 1: b"\x04\x22\x4d\x18", 3: b"\x28\xb5\x2f\xfd"}[compression]
    places = [at for at in range(len(data)) if data.startswith(sign, at)]
    at = places[2] - (16 if compression == 0 else 8)  # the second packet of events
    struct.pack_into("<ii", data, at, 77, -1)
    url = stored(tmp_path / "a.aedat4", bytes(data))
    with pytest.raises(MediaError, match=f"no packet header at byte {at}"):
        read(open_events(url))
    reader = open_events(url, on_error="resync")
    kept = np.r_[0:7, 14:35]
    np.testing.assert_array_equal(read(reader).t, events.t[kept])
    assert reader.skipped["bytes_between_packets"] > 8


def test_an_aedat4_file_whose_recorder_died_is_told_by_its_missing_table(tmp_path: Path) -> None:
    events = make_events(35)
    cut = packed.aedat4(events)[:-30]
    url = stored(tmp_path / "a.aedat4", cut)
    with pytest.raises(MediaError, match="table of contents at byte"):
        open_events(url)
    reader = open_events(url, on_error="resync")
    assert len(read(reader)) >= 28
    assert reader.skipped["missing_tables"] == 1


def test_event_streams_are_picked_up_behind_lost_bytes(tmp_path: Path) -> None:
    data = packed.es(make_events(60))
    url = stored(tmp_path / "a.es", data[:60] + data[63:])
    reader = open_events(url, on_error="resync")
    found = read(reader)
    assert 40 <= len(found) < 60
    assert reader.skipped["bytes_out_of_step"] < 30


def test_bytes_of_reset_are_no_events(tmp_path: Path) -> None:
    events = make_events(12)
    whole = packed.es(events)
    one = whole[:20] + b"\xfe" * 6 + whole[20:]
    assert_equal(read(open_events(stored(tmp_path / "a.es", one)), 5), events)


def test_the_clock_of_a_dsec_file_is_told_apart_from_its_times(tmp_path: Path) -> None:
    """Times stay as stored; what to add for the common clock is a fact of the file."""
    url = stored(tmp_path / "events.h5", packed.hdf5_dsec(make_events()))
    found = summarise(open_events(url))
    assert found.clock_offset_us == 49_599_300_523
    assert found.t_first_us == int(make_events().t[0])
    assert (found.width, found.height, found.size_source) == (None, None, "unknown")


def test_an_hdf5_filter_that_is_not_undone_is_named(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "events.h5"
    with h5py.File(path, "w") as root:
        for key in "xypt":
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((16,))
            plan.set_filter(0x8ECF, h5py.h5z.FLAG_OPTIONAL, ())
            space = h5py.h5s.create_simple((40,))
            group = root.require_group("events")
            h5py.h5d.create(group.id, key.encode(), h5py.h5t.STD_U16LE, space, plan)
    with pytest.raises(MediaError, match=r"filter 36559.*ECF") as caught:
        open_events(str(path))
    assert caught.value.reason == "unknown_format"


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    url = stored(tmp_path / "a.aedat4", packed.aedat4(make_events()))
    with pytest.raises(MediaError, match=r"needs the package lz4.*outspike\[events\]"):
        read(open_events(url))


def test_polarities_of_other_kinds_and_halves_of_pixels_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    columns = {
        "t": np.arange(4.0),
        "x": np.arange(4),
        "y": np.arange(4),
        "p": np.array([0, 1, 2, 1]),
    }
    np.savez(path, **columns)
    with pytest.raises(MediaError, match="p of event 2 is 2; expected 0 and 1"):
        read(open_events(str(path)))
    columns["t"][0] = 0.5
    np.savez(path, **columns)
    with pytest.raises(MediaError, match=r"t of event 0 is 0\.5; expected whole numbers"):
        read(open_events(str(path)))
    reader = open_events(str(path), on_error="resync")
    assert read(reader).x.tolist() == [1, 3]
    assert reader.skipped == {"impossible_values": 2}


def test_a_recording_without_events_has_no_ranges(tmp_path: Path) -> None:
    found = summarise(open_events(stored(tmp_path / "a.raw", b"% evt 3.0\n% end\n")))
    assert (found.events, found.t_first_us, found.duration_us, found.x_max) == (0, None, None, None)


@pytest.mark.parametrize("size", [(0, 5), (5, 70_000)])
def test_sizes_no_sensor_has_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="expected sides from 1"):
        open_events(str(tmp_path / "a.raw"), size=size)
