"""Frames of recordings for the report."""

from fractions import Fraction

import numpy as np
import pytest

from outspike.errors import MediaError
from outspike.evaluate import thumbnails
from outspike.evaluate.thumbnails import FrameReader
from outspike.events.columns import Events
from outspike.events.write import write_events
from outspike.recording import Recording
from outspike.video.write import write_mp4

NUM_FRAMES = 40
FPS = Fraction(25)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """A video that gets brighter frame by frame, and events that move right frame by frame."""
    folder = tmp_path_factory.mktemp("thumbnails")
    frames = (np.full((48, 64, 3), 20 + 5 * i, dtype=np.uint8) for i in range(NUM_FRAMES))
    write_mp4(folder / "video.mp4", frames, fps=FPS)
    frame = np.arange(NUM_FRAMES)
    events = Events(
        t=(frame * 40_000 + 10).astype(np.int64),
        x=frame.astype(np.uint16),
        y=np.full(NUM_FRAMES, 5, dtype=np.uint16),
        p=(frame % 2).astype(np.uint8),
    )
    write_events(folder / "events.raw", events, format="evt3", size=(64, 48), anchor_us=0)
    return {
        "video": Recording(dataset="d", video_id="video", url=str(folder / "video.mp4")),
        "events": Recording(
            dataset="d",
            video_id="events",
            url=str(folder / "events.raw"),
            modality="events",
            fps=FPS,
        ),
        "gone": Recording(dataset="d", video_id="gone", url=str(folder / "gone.mp4")),
    }


def test_frames_are_those_asked_for_in_any_order(recordings: dict[str, Recording]) -> None:
    """Rising frames read on; a step back or another recording starts again."""
    reader = FrameReader(recordings)
    for frame in (0, 7, 33, 39, 2, 2):
        picture = reader("video", frame)
        assert picture.shape == (48, 64, 3)
        assert abs(float(picture.mean()) - (20 + 5 * frame)) < 4


def test_rising_frames_cost_one_pass(
    recordings: dict[str, Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report asks frame by frame; the file is decoded once."""
    calls = []
    real = thumbnails.IsolatedVideo

    def counted(url: str, **options: object) -> object:
        calls.append(url)
        return real(url, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(thumbnails, "IsolatedVideo", counted)
    with FrameReader(recordings) as reader:
        for frame in range(0, NUM_FRAMES, 5):
            reader("video", frame)
    assert len(calls) == 1


def test_a_closed_reader_holds_no_decoding_child(
    recordings: dict[str, Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child of a video that is read half way ends with the reader, not with the collector."""
    closed = []
    real = thumbnails.IsolatedVideo.close

    def noted(video: thumbnails.IsolatedVideo) -> None:
        closed.append(video.url)
        real(video)

    monkeypatch.setattr(thumbnails.IsolatedVideo, "close", noted)
    with FrameReader(recordings) as reader:
        reader("video", 0)
        assert closed == []
        kept = reader._pictures  # a reference from elsewhere keeps the collector away
    assert closed == [recordings["video"].url]
    assert kept is not None


def test_event_recordings_give_a_picture_of_their_events(recordings: dict[str, Recording]) -> None:
    """A few frames of events from the one asked for, ON and OFF in two colours."""
    reader = FrameReader(recordings)
    for frame in (0, 11, NUM_FRAMES - 1):
        picture = reader("events", frame).astype(int)
        y, x = np.nonzero((picture != picture[0, 63]).any(axis=2))
        assert set(y) == {5}
        assert x.tolist() == list(range(frame, min(frame + 4, NUM_FRAMES)))
    assert (picture[5, NUM_FRAMES - 1] == thumbnails._ON).all()


def test_what_cannot_be_read_is_a_media_error_with_its_reason(
    recordings: dict[str, Recording],
) -> None:
    """The report shows the reason in the frame's place."""
    reader = FrameReader(recordings)
    for video_id, frame in (("video", NUM_FRAMES), ("events", 10 * NUM_FRAMES)):
        with pytest.raises(MediaError, match=f"frame {frame} was asked for") as caught:
            reader(video_id, frame)
        assert caught.value.reason == "too_short"
    with pytest.raises(MediaError):
        reader("gone", 0)
    with pytest.raises(MediaError, match="no recording of that id"):
        reader("never", 0)
