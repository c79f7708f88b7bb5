"""Real, partly awkward videos decode as three independent readers agreed (OUTSPIKE_MEDIA)."""

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike import cli
from outspike.errors import MediaError
from outspike.video.decode import decode
from outspike.video.isolate import decode_isolated
from outspike.video.probe import probe

MEDIA = Path(os.environ.get("OUTSPIKE_MEDIA") or Path(__file__).parents[3] / "shared" / "media")
VIDEOS = MEDIA / "videos"
EXPECTED = json.loads((VIDEOS / "expected.json").read_text()) if VIDEOS.is_dir() else {}

pytestmark = [
    pytest.mark.media,
    pytest.mark.skipif(not EXPECTED, reason=f"no real videos at {VIDEOS} (set OUTSPIKE_MEDIA)"),
]
names = pytest.mark.parametrize("name", sorted(EXPECTED) or ["none"])


@names
def test_headers_are_read_as_expected(name):
    """Codec, size, rate, counts and turn of the default stream."""
    info, expected = probe(str(VIDEOS / name)), EXPECTED[name]
    assert info.codec == expected["codec"]
    assert (info.width, info.height) == (expected["width"], expected["height"])
    assert info.fps == Fraction(expected["fps"])
    assert info.header_frames == expected["header_frames"]
    assert info.video_streams == expected["video_streams"]
    assert info.audio_streams == expected["audio_streams"]
    assert info.rotation == expected["rotation"] % 360


@names
def test_the_probe_prints_every_expected_fact(name, capsys):
    """As ``outspike video probe FILE --json``, key by key; the size as shown stands beside it."""
    assert cli.video_probe(str(VIDEOS / name), as_json=True) == 0
    found, expected = json.loads(capsys.readouterr().out), EXPECTED[name]
    of_the_file = ("bytes", "sha256_file")
    wanted = {key: value for key, value in expected.items() if key not in of_the_file}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)
    assert ("decode_error" in found) == ("decode_error" in expected)
    size = [expected["width"], expected["height"]]
    assert found["display_size"] == (size[::-1] if expected["rotation"] % 180 else size)


@names
def test_every_frame_decodes_upright(name):
    """As many frames as really decode, in the display size."""
    info = probe(str(VIDEOS / name))
    width, height = info.display_size
    num_frames = 0
    for chunk in decode(str(VIDEOS / name), chunk_frames=32):
        assert chunk.start == num_frames
        assert chunk.frames.shape[1:] == (height, width, 3)
        num_frames += len(chunk.frames)
    assert num_frames == EXPECTED[name]["decoded_frames"]


@pytest.mark.parametrize("name", sorted(n for n in EXPECTED if "person" not in n) or ["none"])
def test_isolation_changes_no_byte(name):
    inside = np.concatenate([c.frames for c in decode(str(VIDEOS / name))])
    outside = np.concatenate([c.frames for c in decode_isolated(str(VIDEOS / name))])
    np.testing.assert_array_equal(inside, outside)


@pytest.mark.parametrize("name", sorted(n for n in EXPECTED if n.endswith(".mp4")) or ["none"])
def test_a_real_file_cut_in_half_is_truncated(name, tmp_path):
    """The index lies in front, half of the data is gone."""
    data = (VIDEOS / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError) as caught:
        for _ in decode(str(path)):
            pass
    assert caught.value.reason == "truncated"
