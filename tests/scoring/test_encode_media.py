"""Real recordings through the weights-free encoders (OUTSPIKE_MEDIA)."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from outspike.encoders.event_pyramid import EventPyramid
from outspike.encoders.frame_motion import FrameMotion
from outspike.encoders.frame_pyramid import FramePyramid
from outspike.errors import DatasetError
from outspike.recording import Recording
from outspike.scoring.encode import encode_recording

pytestmark = pytest.mark.media


def rows_of(recording, encoders):
    rows = {}

    def emit(name, part, start, stop):
        rows.setdefault(name, []).append(part)

    facts = encode_recording(recording, encoders, emit=emit, isolate=False)
    return facts, {name: np.concatenate(parts)[:, 0] for name, parts in rows.items()}


@pytest.fixture(scope="session")
def ped2(media):
    """Folder of UCSD Ped2 with its table of clips."""
    folder = media / "ucsd_ped2"
    with (folder / "clips.csv").open() as table:
        return folder, list(csv.DictReader(table))


def test_ped2_clips_have_a_row_for_every_frame_and_snippet(ped2):
    """Rows cover exactly the frames that the data set lists."""
    folder, clips = ped2
    for clip in clips[:2]:
        recording = Recording(
            dataset="ucsd_ped2",
            video_id=f"{clip['split']}-{clip['clip']}",
            url=str(folder / clip["split"] / f"{clip['clip']}.mp4"),
        )
        facts, rows = rows_of(recording, [EventPyramid(), FrameMotion()])
        assert facts.num_frames == int(clip["frames"])
        assert len(rows["frame-motion"]) == facts.num_frames
        assert len(rows["event-pyramid"]) == -(-facts.num_frames // 16)
        past = replace(recording, label=1, intervals=((0, facts.num_frames + 1),))
        with pytest.raises(DatasetError, match="annotat"):
            rows_of(past, [FrameMotion()])


def test_awkward_videos_are_encoded(media):
    """Rotated, reordered and multi-stream files give finite rows of the stated frames."""
    expected = json.loads((media / "videos" / "expected.json").read_text())
    for name in ("rotated_90.mov", "unordered.mov", "multi_stream_space_station.mp4"):
        recording = Recording(dataset="d", video_id=name, url=str(media / "videos" / name))
        facts, rows = rows_of(recording, [EventPyramid(), FramePyramid(), FrameMotion()])
        assert facts.num_frames == expected[name]["decoded_frames"]
        turned = expected[name]["rotation"] % 180 != 0
        size = (expected[name]["width"], expected[name]["height"])
        assert (facts.width, facts.height) == (size[::-1] if turned else size)
        assert all(np.isfinite(part).all() for part in rows.values())


@pytest.mark.parametrize("name", ["evt2_gen3_vga.raw", "evt3_gen41_hd.raw"])
def test_camera_recordings_are_encoded(media, name):
    """Real events of any sensor become rows of the common width, none of them silent."""
    expected = json.loads((media / "events" / "expected.json").read_text())[name]
    recording = Recording(
        dataset="d",
        video_id=name,
        url=str(media / "events" / name),
        modality="events",
        size=(expected["width"], expected["height"]),
    )
    facts, rows = rows_of(recording, [EventPyramid()])
    duration_us = expected["t_last_us"] - expected["t_first_us"]
    assert facts.num_frames == duration_us // 33_333 + 1
    assert rows["event-pyramid"].shape[-1] == EventPyramid().width
    assert rows["event-pyramid"].any(axis=-1).all()
