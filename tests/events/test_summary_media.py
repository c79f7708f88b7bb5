"""Real recordings of seven formats, against what other readers agree on."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from outspike.events.reader import open_events
from outspike.events.summary import summarise

pytestmark = pytest.mark.media

#: What the table of expected values says besides what a reader can tell.
_NOTES = {"readers_agree", "note", "t_tolerance_us", "bytes", "sha256_file"}
_OTHER_STREAMS = {"aps_frames", "imu_samples"}

NAMES = [
    "evt2_gen3_vga.raw",
    "evt3_gen41_hd.raw",
    "davis346_emlb.aedat4",
    "dvs_320x240.es",
    "ncars_sample.dat",
    "nmnist_sample.bin",
    "ncaltech101_face.bin",
]


def _expected(media: Path) -> dict[str, dict[str, object]]:
    return json.loads((media / "events" / "expected.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_is_read_as_expected(media: Path, name: str) -> None:
    """Each key of the table, hashes of all four columns among them."""
    expected = _expected(media)[name]
    size = (expected["width"], expected["height"])
    reader = open_events(str(media / "events" / name), size=size)
    found = asdict(summarise(reader))
    keys = expected.keys() - _NOTES - _OTHER_STREAMS
    assert {key: found[key] for key in keys} == {key: expected[key] for key in keys}
    assert found["skipped"] == {}


def test_the_list_above_is_the_whole_table(media: Path) -> None:
    assert set(_expected(media)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_is_told_only_by_headers_that_have_one(media: Path, name: str) -> None:
    """Without a size from anybody the recording is still described, with nulls."""
    expected = _expected(media)[name]
    found = summarise(open_events(str(media / "events" / name)))
    if name.endswith((".aedat4", ".es")):
        assert (found.width, found.height) == (expected["width"], expected["height"])
        assert found.size_source == "header"
    else:
        assert (found.width, found.height, found.size_source) == (None, None, "unknown")
    assert found.events == expected["events"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_events", [1009, 1 << 20])
def test_pieces_of_any_length_hold_the_same_events(media: Path, name: str, num_events: int) -> None:
    expected = _expected(media)[name]
    reader = open_events(str(media / "events" / name))
    lengths = [len(chunk) for chunk in reader.chunks(num_events)]
    assert sum(lengths) == expected["events"]
