"""Each kind of bad input, by name, in every format that can have it.

With ``raise`` an error that says what was found at which byte and what was expected; with
``resync`` a tally of what was left out, or the same error where nothing can be read behind it.
"""

import struct
from pathlib import Path

import event_samples as packed
import numpy as np
import pytest
from event_samples import SIZE, Sample, make_events, samples

from outspike.errors import MediaError
from outspike.events.codec import OnError
from outspike.events.columns import Events, concatenate
from outspike.events.reader import CODECS, open_events

EVERY = [(codec, number) for codec, found in samples().items() for number in range(len(found))]
MODES: tuple[OnError, OnError] = ("raise", "resync")


def sample_of(codec: str, number: int = 0) -> Sample:
    return samples()[codec][number]


def fault(path: Path, data: bytes, size: tuple[int, int] | None, on_error: OnError) -> MediaError:
    """The error that reading gives."""
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        list(open_events(str(path), size=size, on_error=on_error).chunks())
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


def resynced(
    path: Path, data: bytes, size: tuple[int, int] | None
) -> tuple[Events, dict[str, int]]:
    """Events and tally."""
    path.write_bytes(data)
    reader = open_events(str(path), size=size, on_error="resync")
    return concatenate(list(reader.chunks())), reader.skipped


# --- files of no format ---------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (b"", "empty", "an empty file; expected an event recording"),
        (b"\x07", "unknown_format", r"1 bytes begin at byte 0 with b'\x07'"),
        (b"minutes of a meeting\n" * 40, "unknown_format", "840 bytes begin at byte 0"),
    ],
    ids=["empty", "one byte", "text"],
)
def test_what_is_no_recording_is_refused(
    tmp_path: Path, data: bytes, reason: str, says: str, on_error: OnError
) -> None:
    error = fault(tmp_path / "file", data, None, on_error)
    assert error.reason == reason
    assert says in str(error)


@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize(("codec", "number"), EVERY)
def test_one_byte_of_a_recording_is_refused(
    tmp_path: Path, codec: str, number: int, on_error: OnError
) -> None:
    """Whatever its first byte would promise."""
    error = fault(tmp_path / "file", sample_of(codec, number).data[:1], SIZE, on_error)
    assert "byte" in str(error)


# --- headers --------------------------------------------------------------------------------------

_HEADERS = {
    "evt2": (9, "header without end"),
    "evt21": (30, "header without end"),
    "evt3": (20, "header without end"),
    "dat": (50, "header without end"),
    "es": (17, "sensor size of 4 bytes at byte 16"),
    "aedat2": (30, "header without end"),
    "aedat4": (60, "header of 408 bytes at byte 14"),
    "npz": (30, "expected a zip archive with its table before the end at byte 30"),
    "mat": (140, "the file ends at byte 140"),
    "hdf5": (50, "superblock of 96 bytes at byte 0"),
}


@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize("codec", sorted(_HEADERS))
def test_a_header_without_end_is_refused(tmp_path: Path, codec: str, on_error: OnError) -> None:
    """In both modes: nothing can be read behind it."""
    length, says = _HEADERS[codec]
    error = fault(tmp_path / "file", sample_of(codec).data[:length], SIZE, on_error)
    assert says in str(error)
    assert error.reason in ("truncated", "corrupt")


@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize("table", [True, False])
def test_an_aedat4_header_and_nothing_else_is_empty(
    tmp_path: Path, table: bool, on_error: OnError
) -> None:
    """Whether the recorder closed the file, with an empty table, or died before any packet."""
    whole = packed.aedat4(make_events(0), table=table)
    body = len(packed.aedat4(make_events(0), table=False))
    error = fault(tmp_path / "a.aedat4", whole, None, on_error)
    assert error.reason == "empty"
    assert f"header of {body} bytes and no packet" in str(error)
    assert f"expected packets from byte {body} on" in str(error)


@pytest.mark.parametrize("on_error", MODES)
def test_an_aedat4_header_whose_packets_are_all_missing_is_empty(
    tmp_path: Path, on_error: OnError
) -> None:
    """Cut right behind a header that states a table of contents further on."""
    body = len(packed.aedat4(make_events(0), table=False))
    error = fault(tmp_path / "a.aedat4", packed.aedat4(make_events(35))[:body], None, on_error)
    assert error.reason == "empty"


@pytest.mark.parametrize("on_error", MODES)
def test_an_aedat2_header_and_nothing_else_is_empty(tmp_path: Path, on_error: OnError) -> None:
    data = packed.aedat2(make_events(0))
    error = fault(tmp_path / "a.aedat", data, None, on_error)
    assert error.reason == "empty"
    assert f"{len(data)} bytes" in str(error)


@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize(
    ("kind", "name"), [(0, "generic"), (2, "ATIS"), (4, "colour"), (77, "unknown")]
)
def test_an_es_file_that_is_not_dvs_is_refused(
    tmp_path: Path, kind: int, name: str, on_error: OnError
) -> None:
    data = b"Event Stream\x02\x00\x00" + bytes([kind]) + struct.pack("<HH", *SIZE) + bytes(40)
    error = fault(tmp_path / "a.es", data, None, on_error)
    assert error.reason == "unknown_format"
    assert f"{name} events (type {kind} at byte 15); expected DVS events" in str(error)


# --- what comes behind ----------------------------------------------------------------------------

_WIDTHS = {"evt2": 4, "evt21": 8, "evt3": 2, "dat": 8, "nmnist": 5, "es": 5, "aedat2": 8}


@pytest.mark.parametrize("codec", sorted(_WIDTHS))
def test_a_truncated_word_is_told_with_its_byte(tmp_path: Path, codec: str) -> None:
    """The last byte is missing; resync counts those that are left of the word."""
    sample, width = sample_of(codec), _WIDTHS[codec]
    data = sample.data[:-1]
    error = fault(tmp_path / "file", data, sample.size, "raise")
    assert error.reason == "truncated"
    assert f"{width} bytes at byte {len(data) - width + 1}" in str(error)
    events, skipped = resynced(tmp_path / "file", data, sample.size)
    assert skipped == {"truncated_bytes": width - 1}
    # The last word of EVT 3.0 is a vector without an event.
    assert len(events) == len(sample.events) - (codec != "evt3")


def test_a_truncated_packet_of_aedat4_is_told_with_its_byte(tmp_path: Path) -> None:
    data = packed.aedat4(make_events(35), table=False)[:-60]
    error = fault(tmp_path / "a.aedat4", data, None, "raise")
    assert error.reason == "truncated"
    assert "no packet header at byte " in str(error)
    events, skipped = resynced(tmp_path / "a.aedat4", data, None)
    assert len(events) == 28
    assert set(skipped) == {"bytes_between_packets"}


@pytest.mark.parametrize("codec", ["mat", "npz"])
@pytest.mark.parametrize("on_error", MODES)
def test_arrays_that_were_cut_short_are_refused(
    tmp_path: Path, codec: str, on_error: OnError
) -> None:
    """An npz has its table at its end; what is in a MAT-file is looked up before it is read."""
    data = sample_of(codec).data[:-1]
    error = fault(tmp_path / "file", data, SIZE, on_error)
    assert f"byte {len(data)}" in str(error)


@pytest.mark.parametrize("number", range(3))
def test_a_tag_that_was_cut_is_told_with_its_byte(tmp_path: Path, number: int) -> None:
    """A MAT-file that ends inside what would say what comes next."""
    sample = sample_of("mat", number)
    data = sample.data + b"\x0e\0\0"
    error = fault(tmp_path / "a.mat", data, sample.size, "raise")
    assert error.reason == "truncated"
    assert f"at byte {len(sample.data)}" in str(error)
    events, skipped = resynced(tmp_path / "a.mat", data, sample.size)
    assert (len(events), skipped) == (len(sample.events), {"truncated_bytes": 3})


@pytest.mark.parametrize("number", [0, 3])
def test_an_hdf5_array_that_breaks_off_gives_the_events_before(tmp_path: Path, number: int) -> None:
    """In these files chunks lie last, one after the other; those behind the cut are counted."""
    sample = sample_of("hdf5", number)
    refused = 0
    for missing in (1, 100):
        data = sample.data[:-missing]
        error = fault(tmp_path / "file", data, sample.size, "raise")
        assert error.reason == "truncated"
        assert f"past the end of the file at byte {len(data)}" in str(error)
        path = tmp_path / "file"
        reader = open_events(str(path), size=sample.size, on_error="resync")
        events = concatenate(list(reader.chunks(8)))
        np.testing.assert_array_equal(events.t, sample.events.t[: len(events)])
        assert reader.skipped == {"unreadable_events": len(sample.events) - len(events)}
        refused += reader.skipped["unreadable_events"]
    assert refused > 0


@pytest.mark.parametrize(
    ("codec", "words", "kind", "kept"),
    [
        ("evt2", [8 << 28, 5 << 28, 1 << 28 | 7 << 11], "0x5", [7]),
        ("evt21", [8 << 60, 5 << 60, 1 << 60 | 64 << 43 | 1], "0x5", [64]),
        ("evt3", [0x8000, 0x9000, 0x2007], "0x9", [7]),
    ],
)
def test_an_unknown_event_type_is_told_with_its_byte(
    tmp_path: Path, codec: str, words: list[int], kind: str, kept: list[int]
) -> None:
    data = raw_file(codec, words)
    error = fault(tmp_path / "a.raw", data, None, "raise")
    assert error.reason == "corrupt"
    place = len(data) - 2 * _WIDTHS[codec]
    assert f"unknown type {kind} at byte {place}; expected one of" in str(error)
    events, skipped = resynced(tmp_path / "a.raw", data, None)
    assert events.x.tolist() == kept
    assert skipped == {"unknown_words": 1}


def raw_file(codec: str, words: list[int]) -> bytes:
    version, code = {"evt2": ("2", "I"), "evt21": ("21", "Q"), "evt3": ("3", "H")}[codec]
    header = f"% format EVT{version};endianness=little\n% end\n"
    return header.encode() + struct.pack(f"<{len(words)}{code}", *words)


@pytest.mark.parametrize("on_error", MODES)
def test_dat_events_of_an_unknown_type_are_refused(tmp_path: Path, on_error: OnError) -> None:
    """The header says it for all of them."""
    data = packed.dat(make_events(5))
    at = len(data) - 5 * 8 - 2
    error = fault(tmp_path / "a.dat", data[:at] + b"\x0e" + data[at + 1 :], None, on_error)
    assert error.reason == "unknown_format"
    assert "type 0x0E" in str(error)
    assert f"byte {at}" in str(error)


def test_a_polarity_that_dat_does_not_have_is_told_with_its_byte(tmp_path: Path) -> None:
    data = packed.dat(make_events(5))
    data = data[:-4] + struct.pack("<I", 7 << 28)
    error = fault(tmp_path / "a.dat", data, None, "raise")
    assert f"polarity 7 at byte {len(data) - 8}; expected 0 or 1" in str(error)
    events, skipped = resynced(tmp_path / "a.dat", data, None)
    assert (len(events), skipped) == (4, {"unknown_polarities": 1})


@pytest.mark.parametrize(("codec", "number"), EVERY)
def test_coordinates_outside_the_sensor_are_told_with_their_place(
    tmp_path: Path, codec: str, number: int
) -> None:
    """The given size counts, whatever the header says."""
    sample = sample_of(codec, number)
    narrow = (int(sample.events.x.max()) // 2, 1 << 10)
    error = fault(tmp_path / "file", sample.data, narrow, "raise")
    assert error.reason == "outside_sensor"
    assert f"{narrow[0]}x{narrow[1]}" in str(error)
    places = {"npz": "event ", "mat": "event ", "hdf5": "event "}
    assert places.get(codec, "byte ") in str(error)
    events, skipped = resynced(tmp_path / "file", sample.data, narrow)
    assert len(events) < len(sample.events)
    assert int(events.x.max()) < narrow[0]
    assert skipped


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ("evt2", [8 << 28 | 100, 1 << 28, 8 << 28 | 2, 1 << 28]),
        ("evt21", [8 << 60 | 100 << 32, 1 << 60 | 1, 8 << 60 | 2 << 32, 1 << 60 | 1]),
        ("evt3", [0x8064, 0x2001, 0x8002, 0x2002]),
    ],
)
def test_time_words_that_run_back_are_told_with_their_byte(
    tmp_path: Path, codec: str, words: list[int]
) -> None:
    """By more than readout jitter; the events until the next good time are counted. The other
    formats: ``test_time_that_runs_back_is_a_fault_and_jitter_is_not`` in ``test_codecs.py``; times
    of ``.es`` are steps and cannot run back."""
    data = raw_file(codec, words)
    error = fault(tmp_path / "a.raw", data, None, "raise")
    assert error.reason == "time_backwards"
    place = len(data) - 2 * _WIDTHS[codec]
    assert f"a high time word at byte {place} steps back" in str(error)
    events, skipped = resynced(tmp_path / "a.raw", data, None)
    assert len(events) == 1
    assert skipped == {"time_words_backwards": 1, "lost_events": 1}


def test_every_format_is_asked() -> None:
    """A new codec comes with samples, and so into the lists above."""
    raw = {"evt2", "evt21", "evt3"}
    assert set(samples()) == (set(CODECS) - {"raw"}) | raw
    # N-MNIST has no header; what it lacks is caught as a word that was cut.
    assert set(_HEADERS) == set(samples()) - {"nmnist"}
