"""One decode feeds all encoders; what comes out covers the frames, and bad input is named."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from outspike.encoders.base import Encoder, EncoderStream
from outspike.encoders.event_pyramid import EventPyramid
from outspike.encoders.frame_motion import FrameMotion
from outspike.encoders.frame_pyramid import FramePyramid
from outspike.errors import ConfigError, DatasetError, MediaError
from outspike.events.columns import Events
from outspike.events.write import write_events
from outspike.recording import Recording
from outspike.scoring import encode
from outspike.scoring.encode import encode_recording
from outspike.timebase import DVS_FPS, EventClock, SnippetGrid
from outspike.video.write import write_mp4

FPS = Fraction(25)


def make_video(path, num_frames, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
    frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
    write_mp4(path, iter(frames), fps=FPS)
    return Recording(dataset="test", video_id=path.stem, url=str(path), split="test")


def make_event_recording(path, events, *, size=(64, 48), **facts):
    write_events(path, events, format="evt3", size=size, **facts)
    return Recording(
        dataset="test", video_id=path.stem, url=str(path), modality="events", split="test"
    )


def make_events(num_events=3000, span_us=2_000_000, first_us=500_000, seed=0):
    rng = np.random.default_rng(seed)
    t = first_us + np.sort(rng.integers(0, span_us, num_events)).astype(np.int64)
    t[0], t[-1] = first_us, first_us + span_us
    return Events(
        t,
        rng.integers(0, 64, num_events).astype(np.uint16),
        rng.integers(0, 48, num_events).astype(np.uint16),
        rng.integers(0, 2, num_events).astype(np.uint8),
    )


class Collected:
    """What encode_recording emits, checked piece by piece and joined."""

    def __init__(self):
        self.rows, self.start, self.stop = {}, {}, {}

    def __call__(self, name, rows, start, stop):
        assert len(rows) == len(start) == len(stop) > 0
        for joined, part in ((self.rows, rows), (self.start, start), (self.stop, stop)):
            joined[name] = np.concatenate([joined[name], part]) if name in joined else part


@pytest.mark.parametrize("num_frames", [1, 5, 16, 33, 70])
def test_one_decode_feeds_every_encoder(tmp_path, monkeypatch, num_frames):
    """Each encoder gets all frames from one decode, and its rows tile the recording."""
    recording = make_video(tmp_path / "video.mp4", num_frames)
    decoded = []
    plain = encode.decode
    monkeypatch.setattr(
        encode, "decode", lambda url, **options: decoded.append(url) or plain(url, **options)
    )
    encoders = [EventPyramid(), FramePyramid(), FrameMotion()]
    collected = Collected()
    facts = encode_recording(recording, encoders, emit=collected, isolate=False)
    assert decoded == [recording.url]
    assert (facts.num_frames, facts.fps, facts.width, facts.height) == (num_frames, FPS, 64, 48)
    assert facts.hours == pytest.approx(num_frames / 25 / 3600)
    for encoder in encoders:
        start, stop = encoder.grid.ranges(num_frames)
        np.testing.assert_array_equal(collected.start[encoder.name], start)
        np.testing.assert_array_equal(collected.stop[encoder.name], stop)
        rows = collected.rows[encoder.name]
        assert rows.shape == (len(start), 1, encoder.width)
        assert rows.dtype == np.float16
        assert facts.num_rows[encoder.name] == len(start)


def test_a_child_process_gives_the_same_rows(tmp_path):
    """Isolated decoding changes no bit."""
    recording = make_video(tmp_path / "video.mp4", 20)
    plain, isolated = Collected(), Collected()
    encode_recording(recording, [EventPyramid()], emit=plain, isolate=False)
    encode_recording(recording, [EventPyramid()], emit=isolated, isolate=True, timeout_s=60)
    assert plain.rows["event-pyramid"].tobytes() == isolated.rows["event-pyramid"].tobytes()


def test_overlapping_rows_carry_their_ranges(tmp_path):
    """With stride 4 and snippets of 16 frames every row covers its own frames."""
    grid = SnippetGrid(snippet_frames=16, stride=4)
    collected = Collected()
    recording = make_video(tmp_path / "video.mp4", 30)
    encode_recording(recording, [EventPyramid(grid=grid)], emit=collected, isolate=False)
    start, stop = grid.ranges(30)
    np.testing.assert_array_equal(collected.start["event-pyramid"], start)
    np.testing.assert_array_equal(collected.stop["event-pyramid"], stop)


def test_event_recordings_are_cut_on_their_clock(tmp_path):
    """Frames count from the anchor, else the first event; rows equal those of the bare encoder."""
    events = make_events()
    for name, anchor_us in (("anchored.raw", 100_000), ("bare.raw", None)):
        recording = make_event_recording(tmp_path / name, events, anchor_us=anchor_us)
        collected = Collected()
        facts = encode_recording(recording, [EventPyramid()], emit=collected)
        start_us = 500_000 if anchor_us is None else anchor_us
        clock = EventClock(fps=DVS_FPS, anchor_us=start_us)
        assert facts.fps == DVS_FPS
        assert facts.num_frames == int(clock.frame_of(events.t)[-1]) + 1
        start, _ = SnippetGrid().ranges(facts.num_frames)
        np.testing.assert_array_equal(collected.start["event-pyramid"], start)


def test_footage_is_told_piece_by_piece_up_to_the_whole_length(tmp_path):
    """What a job shows of a recording that takes hours rises, and ends at its length."""
    video = make_video(tmp_path / "video.mp4", 150)
    events = make_event_recording(tmp_path / "anchored.raw", make_events(), anchor_us=100_000)
    for recording, length_s in ((video, 150 / 25), (events, 2.4)):
        told = []
        encode_recording(recording, [EventPyramid()], emit=Collected(), reach=told.append)
        assert told == sorted(told)
        assert told[-1] == pytest.approx(length_s)
        if recording is video:
            assert len(told) > 2


def test_a_known_duration_keeps_the_silence_at_the_end(tmp_path):
    """A recording that says how long it is has rows for the time after its last event."""
    recording = make_event_recording(
        tmp_path / "long.raw", make_events(), anchor_us=500_000, duration_us=4_000_000
    )
    facts = encode_recording(recording, [EventPyramid()], emit=Collected())
    assert facts.num_frames == -(-4_000_000 // 33_333)


def test_an_annotation_past_the_end_is_named(tmp_path):
    """Intervals are checked against the frames that really decode."""
    recording = replace(make_video(tmp_path / "video.mp4", 20), label=1, intervals=((4, 20),))
    encode_recording(recording, [EventPyramid()], emit=Collected(), isolate=False)
    wrong = replace(recording, intervals=((4, 9), (15, 21)))
    with pytest.raises(DatasetError, match=r"test/video.*\[15, 21\).*20 frames"):
        encode_recording(wrong, [EventPyramid()], emit=Collected(), isolate=False)


def reason_of(recording, encoders=None, **options):
    with pytest.raises(MediaError) as caught:
        encode_recording(recording, encoders or [EventPyramid()], emit=Collected(), **options)
    assert recording.url in str(caught.value) or recording.key in str(caught.value)
    return caught.value.reason


def test_too_short_recordings_are_named(tmp_path):
    """Five frames give one short row, and none under a rule that drops it: a clear reason."""
    recording = make_video(tmp_path / "video.mp4", 5)
    facts = encode_recording(recording, [EventPyramid()], emit=Collected(), isolate=False)
    assert facts.num_rows == {"event-pyramid": 1}
    dropping = EventPyramid(grid=SnippetGrid(tail="drop"))
    assert reason_of(recording, [dropping], isolate=False) == "too_short"


def test_damaged_files_are_named(tmp_path):
    """An empty file and a text file called .mp4 have their own reasons."""
    for name, content in (("empty.mp4", b""), ("text.mp4", b"hello world, no video\n" * 50)):
        (tmp_path / name).write_bytes(content)
    base = Recording(dataset="test", video_id="x", url="x", split="test")
    assert reason_of(replace(base, url=str(tmp_path / "empty.mp4")), isolate=False) == "empty"
    assert reason_of(replace(base, url=str(tmp_path / "text.mp4")), isolate=False) == "not_media"


def test_a_truncated_video_gives_no_facts(tmp_path):
    """Rows emitted before the file broke off are followed by an error, never by facts."""
    whole = make_video(tmp_path / "whole.mp4", 200)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    assert reason_of(replace(whole, url=str(tmp_path / "cut.mp4")), isolate=False) == "truncated"


def test_event_recordings_with_broken_times_are_named(tmp_path):
    """A jump of days, an event before the stated start, and no event at all."""
    jump = make_events()
    jump.t[-1] = jump.t[0] + 9 * 3_600_000_000
    recording = make_event_recording(tmp_path / "jump.raw", jump)
    assert reason_of(recording) == "time_jump"
    early = make_event_recording(tmp_path / "early.raw", make_events(), anchor_us=600_000)
    assert reason_of(early) == "inconsistent"


def test_an_encoder_that_cannot_read_the_recording_is_named(tmp_path):
    """Frame encoders have nothing to say of event recordings."""
    recording = make_event_recording(tmp_path / "events.raw", make_events())
    assert reason_of(recording, [FramePyramid()]) == "modality"


class _Loud(Encoder):
    name, width, num_crops = "loud", 1, 1
    grid = SnippetGrid()
    modalities = frozenset({"video"})

    def __init__(self, value):
        self.value = value

    def document(self):
        return {"value": str(self.value)}

    def open(self, source):
        return _LoudStream(self.value)


class _LoudStream(EncoderStream):
    def __init__(self, value):
        self.value = value

    def push(self, piece):
        return np.zeros((0, 1, 1), dtype=np.float32)

    def finish(self, num_frames):
        return np.full((1, 1, 1), self.value, dtype=np.float32)


@pytest.mark.parametrize("value", [1e6, np.nan, np.inf])
def test_values_that_cannot_be_stored_are_named(tmp_path, value):
    """Features beyond the stored type are refused, not stored as infinity."""
    recording = make_video(tmp_path / "video.mp4", 5)
    assert reason_of(recording, [_Loud(value)], isolate=False) == "not_finite"


def test_encoders_need_names_of_their_own(tmp_path):
    """No encoder, or the same twice, is a configuration error."""
    recording = Recording(dataset="test", video_id="x", url="x")
    for encoders in ([], [EventPyramid(), EventPyramid()]):
        with pytest.raises(ConfigError, match="each once"):
            encode_recording(recording, encoders, emit=Collected())
