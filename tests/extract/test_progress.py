"""What a person sees while a job runs."""

import logging

import pytest

from outspike.extract.progress import Progress
from outspike.extract.under_way import Standing


def at(progress: Progress, num_recordings: int, footage_s: float) -> str:
    """The line of a job whose workers are so far."""
    progress._told -= 60.0
    progress.tick(lambda: Standing(num_recordings, footage_s))
    return progress.line()


def test_before_the_first_recording_it_says_that_workers_are_starting() -> None:
    assert "workers are starting" in at(Progress(total=3), 0, 0.0)


def test_hours_move_while_one_long_recording_is_under_way() -> None:
    progress = Progress(total=1)
    assert "done=0/1 under_way=1 hours=0.500" in at(progress, 1, 1800.0)
    assert "done=0/1 under_way=1 hours=0.750" in at(progress, 1, 2700.0)
    progress.finished(3600.0)
    assert "done=1/1 under_way=0 hours=1.000" in at(progress, 0, 0.0)


def test_speed_does_not_count_the_wait_for_workers() -> None:
    progress = Progress(total=2)
    progress._since -= 1000.0  # of starting
    at(progress, 1, 0.0)
    progress._since -= 10.0  # of work
    assert "speed=2.0x" in at(progress, 2, 20.0)


def test_a_log_gets_a_line_when_it_is_due_and_not_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    progress = Progress(total=2)
    with caplog.at_level(logging.INFO):
        progress.tick(lambda: Standing(1, 0.0))
        assert not caplog.records
        at(progress, 1, 0.0)
        progress.tick(lambda: Standing(1, 0.0))
    assert len(caplog.records) == 1


def test_retried_recordings_are_taken_back_from_those_done() -> None:
    progress = Progress(total=3)
    progress.finished(10.0)
    progress.lost(1)
    assert "done=0/3" in progress.line()
    assert "retried=1" in progress.line()
