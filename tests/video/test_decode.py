"""Promises of outspike.video.decode and probe."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import ConfigError, MediaError
from outspike.urls import write_bytes
from outspike.video.decode import decode, in_chunks
from outspike.video.isolate import decode_isolated
from outspike.video.probe import VideoInfo, probe


def brightness(chunks):
    return [round(float(frame.mean())) for chunk in chunks for frame in chunk.frames]


def test_every_frame_is_decoded_once_and_in_order(numbered_video):
    """Index i is the i-th frame shown, also with B-frames stored out of order."""
    chunks = list(decode(numbered_video(50), chunk_frames=16))
    assert [chunk.start for chunk in chunks] == [0, 16, 32, 48]
    assert [len(chunk.frames) for chunk in chunks] == [16, 16, 16, 2]
    assert np.abs(np.diff(brightness(chunks)) - 2).max() <= 1
    assert all(chunk.frames.dtype == np.uint8 for chunk in chunks)


def test_a_video_of_five_frames_is_fine(numbered_video):
    (chunk,) = decode(numbered_video(5))
    assert chunk.frames.shape == (5, 48, 64, 3)


def test_probe_agrees_with_what_decodes(numbered_video):
    info = probe(numbered_video(30, fps=Fraction(30000, 1001)))
    assert (info.width, info.height, info.codec) == (64, 48, "h264")
    assert info.fps == Fraction(30000, 1001)
    assert info.header_frames == 30
    assert (info.video_streams, info.audio_streams, info.rotation) == (1, 0, 0)


def test_facts_survive_the_text_form(numbered_video):
    info = probe(numbered_video(3, fps=Fraction(30000, 1001)))
    assert VideoInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_frames_are_turned_upright(tmp_path, turn):
    """A bright top-left corner lands where the display matrix puts it."""
    path = str(tmp_path / "turned.mp4")
    picture = np.zeros((64, 96, 3), dtype=np.uint8)
    picture[:16, :16] = 255
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(turn)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(path)
    assert info.rotation in (turn, 360 - turn)
    (chunk,) = decode(path)
    expected = np.rot90(picture, info.rotation // 90)
    assert chunk.frames.shape[1:] == expected.shape == (*info.display_size[::-1], 3)
    assert np.abs(chunk.frames[0].astype(int) - expected).mean() < 8


def test_bad_inputs_are_named_with_a_stable_reason(bad_input):
    """One clear line: the file, the cause, and a word for the ledger."""
    path, reason = bad_input
    with pytest.raises(MediaError) as caught:
        list(decode(path))
    assert caught.value.reason == reason
    assert path in str(caught.value)


def test_probe_gives_the_same_reasons_where_headers_tell(bad_input):
    path, reason = bad_input
    if path.endswith("truncated.mp4"):
        assert probe(path).header_frames == 40
        return
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert caught.value.reason == reason


def test_a_broken_off_file_yields_what_decodes_first(noisy_video, tmp_path):
    """Frames before the break arrive, then the error states how many of how many."""
    path = tmp_path / "cut.mp4"
    data = Path(noisy_video).read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    got = []
    with pytest.raises(MediaError, match="of 40") as caught:
        got.extend(len(chunk.frames) for chunk in decode(str(path), chunk_frames=4))
    assert 10 < sum(got) < 40
    assert str(sum(got)) in str(caught.value)


def test_damage_inside_a_whole_file_is_corrupt(noisy_video, tmp_path):
    """Packets overwritten with rubbish shift frame numbers, so the file is refused."""
    data = bytearray(Path(noisy_video).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40_000] = b"\xff" * 40_000
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        list(decode(str(path)))
    assert caught.value.reason == "corrupt"


def test_names_with_colons_and_hashes_are_paths(numbered_video):
    """A name is never taken for an FFmpeg protocol."""
    assert probe(numbered_video(3, name="concat:a__#00-01-45.mp4")).header_frames == 3


@settings(max_examples=30, deadline=None)
@given(num_frames=st.integers(0, 40), chunk_frames=st.integers(1, 17))
def test_chunks_tile_the_frames(num_frames, chunk_frames):
    """No frame is lost, doubled or moved by chunking."""
    frames = [np.full((2, 3, 3), i, dtype=np.uint8) for i in range(num_frames)]
    chunks = list(in_chunks(((None, frame) for frame in frames), chunk_frames))
    assert [c.start for c in chunks] == list(range(0, num_frames, chunk_frames))
    assert [int(f[0, 0, 0]) for c in chunks for f in c.frames] == list(range(num_frames))


def test_a_chunk_holds_at_least_one_frame(numbered_video):
    with pytest.raises(ConfigError, match="chunk_frames=0"):
        next(decode(numbered_video(3), chunk_frames=0))


def test_videos_on_s3_are_read_like_local_ones(noisy_video, s3_bucket):
    """Same frames by address, in process and isolated; an absent key is unreadable."""
    url = f"{s3_bucket}/clips/noisy.mp4"
    write_bytes(url, Path(noisy_video).read_bytes())
    local = np.concatenate([chunk.frames for chunk in decode(noisy_video)])
    for read in (decode, decode_isolated):
        np.testing.assert_array_equal(np.concatenate([c.frames for c in read(url)]), local)
        with pytest.raises(MediaError, match=r"absent\.mp4") as caught:
            list(read(f"{s3_bucket}/absent.mp4"))
        assert caught.value.reason == "unreadable"


def test_a_broken_off_object_on_s3_is_truncated(noisy_video, s3_bucket):
    data = Path(noisy_video).read_bytes()
    write_bytes(f"{s3_bucket}/cut.mp4", data[: len(data) // 2])
    with pytest.raises(MediaError) as caught:
        list(decode(f"{s3_bucket}/cut.mp4"))
    assert caught.value.reason == "truncated"
