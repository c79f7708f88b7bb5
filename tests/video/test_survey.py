"""``outspike video probe`` tells what really decodes, and where it stops."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from outspike import cli
from outspike.errors import MediaError
from outspike.video.isolate import survey_isolated
from outspike.video.survey import Survey, signed_rotation, survey


def test_a_whole_video_is_counted_and_timed(numbered_video):
    found = survey(numbered_video(30))
    assert (found.decoded_frames, found.info.header_frames) == (30, 30)
    assert (found.t_first, found.t_last, found.monotone) == (0.0, 29 / 25, True)
    assert found.error is None
    assert "decode_error" not in found.facts()


def test_what_breaks_off_tells_how_far_it_decodes_and_why(noisy_video, tmp_path):
    """The header claims all frames; what decodes wins."""
    path = tmp_path / "cut.mp4"
    whole = Path(noisy_video).read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    found = survey(str(path))
    assert 0 < found.decoded_frames < found.info.header_frames == 40
    assert found.reason == "truncated"
    assert str(path) in found.facts()["decode_error"]


def test_what_does_not_open_is_an_error_with_its_reason(bad_input):
    url, reason = bad_input
    if Path(url).name == "truncated.mp4":  # its first frames decode
        assert survey(url).reason == reason
        return
    for look in (survey, survey_isolated):
        with pytest.raises(MediaError) as caught:
            look(url)
        assert caught.value.reason == reason


def test_isolation_changes_nothing(numbered_video):
    path = numbered_video(9)
    assert survey_isolated(path) == survey(path)


def test_a_survey_that_hangs_is_stopped(numbered_video):
    with pytest.raises(MediaError) as caught:
        survey_isolated(numbered_video(400), timeout_s=0.001)
    assert caught.value.reason == "timeout"


def test_a_variable_rate_keeps_its_times(tmp_path):
    """Frames are counted as they are shown; their times are those of the container."""
    path = tmp_path / "variable.mp4"
    ticks = [0, 1, 2, 10, 11, 30]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = survey(str(path))
    assert (found.decoded_frames, found.monotone) == (len(ticks), True)
    assert found.t_last == pytest.approx(30 / 25)


def test_a_turned_video_states_both_sizes(numbered_video):
    info = dataclasses.replace(survey(numbered_video(2)).info, rotation=270)
    facts = Survey(info=info).facts()
    assert (facts["width"], facts["height"], facts["rotation"]) == (64, 48, -90)
    assert facts["display_size"] == (48, 64)
    assert [signed_rotation(turn) for turn in (0, 90, 180, 270)] == [0, 90, 180, -90]


def test_the_command_prints_it(numbered_video, capsys):
    path = numbered_video(3)
    assert cli.video_probe(path, as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["decoded_frames"], facts["fps"]) == (3, "25")
    assert cli.video_probe(path, as_json=True, headers_only=True) == 0
    assert "decoded_frames" not in json.loads(capsys.readouterr().out)
