"""A plan tells what it will cost before it begins: hours, pixels, bytes, and time from rates."""

import dataclasses
import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike.config import EncoderConfig
from outspike.encoders import build
from outspike.encoders.base import Encoder
from outspike.extract.estimate import estimate
from outspike.extract.plan import WorkItem
from outspike.extract.rates import RATES, RateBook, sample_rate, stored_rate
from outspike.extract.sample import SAMPLES
from outspike.recording import Recording
from outspike.urls import stat
from outspike.video.write import write_mp4

Film = Callable[..., WorkItem]
WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def encoders() -> list[Encoder]:
    kinds = ("event-pyramid", "frame-pyramid")
    return [build(EncoderConfig(kind=kind)) for kind in kinds]  # type: ignore[arg-type]


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Make a video and the work it is."""

    def one(name: str, num_frames: int = 50, encoders: tuple[int, ...] = (0, 1)) -> WorkItem:
        path = tmp_path / f"{name}.mp4"
        rng = np.random.default_rng(num_frames)
        frames = rng.integers(0, 256, (num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
        write_mp4(path, frames, fps=Fraction(25))
        return _item(Recording(dataset="d", video_id=name, url=str(path)), encoders)

    return one


def _item(recording: Recording, encoders: tuple[int, ...] = (0, 1)) -> WorkItem:
    return WorkItem(recording=recording, source=stat(recording.url), encoders=encoders)


def test_hours_pixels_and_bytes_are_those_of_the_headers(
    film: Film, encoders: list[Encoder], tmp_path: Path
) -> None:
    """50 frames are four snippets; every encoder counts the recordings that it still has to see."""
    items = [film("a"), film("b", 100, encoders=(1,))]
    found = estimate(items, encoders, str(tmp_path / "store"), num_actors=1)
    assert found.hours == pytest.approx(150 / 25 / 3600)
    assert found.pixels == pytest.approx(150 * WIDTH * HEIGHT)
    first, second = (encoder.spec() for encoder in encoders)
    assert found.feature_bytes == {
        first.address: pytest.approx(4 * first.row_bytes),
        second.address: pytest.approx((4 + 7) * second.row_bytes),
    }
    assert found.num_told == 2
    assert found.source_bytes == sum(item.source.size for item in items)
    assert not (tmp_path / "store").exists(), "asking writes nothing"


def test_time_follows_from_what_earlier_jobs_measured(
    film: Film, encoders: list[Encoder], tmp_path: Path
) -> None:
    """Twice the pixels take twice as long, two actors half as long; the source is named."""
    url, items = str(tmp_path / "store"), [film("a"), film("b")]
    book = RateBook([encoder.spec().fingerprint for encoder in encoders], items)
    book.add(items[0].key, 50 * WIDTH * HEIGHT, 3.0)
    book.save(url)
    one = estimate(items, encoders, url, num_actors=1)
    two = estimate(items, encoders, url, num_actors=2)
    assert one.seconds == pytest.approx(6.0)
    assert two.seconds == pytest.approx(3.0)
    assert "measured by the job of 20" in str(one)
    assert "about 6 s with num_actors=1" in str(one)


def test_without_a_rate_the_sample_is_measured(
    film: Film, encoders: list[Encoder], tmp_path: Path
) -> None:
    found = estimate([film("a")], encoders, str(tmp_path / "store"), num_actors=1)
    assert found.seconds is not None
    assert found.seconds > 0
    assert "bundled sample" in str(found)


def test_what_is_not_probed_is_told_from_the_size_of_its_file(
    film: Film, encoders: list[Encoder], tmp_path: Path
) -> None:
    items = [film(f"v{i}", 60) for i in range(6)]
    found = estimate(items, encoders, str(tmp_path / "s"), num_actors=1, most_probed=3)
    assert (found.num_told, found.num_recordings) == (3, 6)
    assert found.hours == pytest.approx(360 / 25 / 3600, rel=0.05)
    assert "about" in str(found)


def test_a_file_that_cannot_be_used_is_named_and_costs_nothing(
    film: Film, encoders: list[Encoder], tmp_path: Path
) -> None:
    """What the job will quarantine is told before, and does not pass for footage."""
    path = tmp_path / "notes.mp4"
    path.write_text("minutes of a meeting" * 1000)
    bad = _item(Recording(dataset="d", video_id="notes", url=str(path)))
    film_alone = estimate([film("a")], encoders, str(tmp_path / "store"), num_actors=1)
    found = estimate([film("a"), bad], encoders, str(tmp_path / "store"), num_actors=1)
    assert (found.num_told, found.num_recordings) == (1, 2)
    assert (found.hours, found.feature_bytes) == (film_alone.hours, film_alone.feature_bytes)
    assert str(found).endswith("1 cannot be used by what their headers say: d/notes (not_media)")
    assert "footage     about" not in str(found), "what can be used is known exactly"
    alone = estimate([bad], encoders, str(tmp_path / "store"), num_actors=1)
    assert (alone.num_told, alone.hours) == (0, 0)


def test_event_recordings_count_by_their_bytes(encoders: list[Encoder], tmp_path: Path) -> None:
    item = _item(SAMPLES["events"], encoders=(0,))
    book = RateBook([encoder.spec().fingerprint for encoder in encoders], [item])
    book.add(item.key, 0, 0.5)
    book.save(str(tmp_path / "store"))
    found = estimate([item], encoders, str(tmp_path / "store"), num_actors=1)
    assert found.pixels == 0
    assert found.seconds == pytest.approx(0.5)


def test_nothing_to_do_costs_nothing(encoders: list[Encoder], tmp_path: Path) -> None:
    found = estimate([], encoders, str(tmp_path / "store"), num_actors=1)
    assert (found.seconds, found.hours, found.source_bytes) == (0, 0, 0)
    assert "nothing to do" in str(found)


@pytest.fixture
def measured(film: Film, encoders: list[Encoder], tmp_path: Path) -> tuple[str, list[str]]:
    """A store in which one job has kept its rate, and the feature sets it made."""
    url, items = str(tmp_path / "store"), [film("a")]
    names = [encoder.spec().fingerprint for encoder in encoders]
    book = RateBook(names, items)
    book.add(items[0].key, 100, 2.0)
    book.save(url)
    return url, names


def test_a_rate_is_that_of_its_own_combination(measured: tuple[str, list[str]]) -> None:
    """Two feature sets in one decode say nothing about either alone; order does not matter."""
    url, names = measured
    found = stored_rate(url, "video", names[::-1])
    assert found is not None
    assert found.seconds_of(300) == pytest.approx(6.0)
    assert stored_rate(url, "video", names[:1]) is None
    assert stored_rate(url, "events", names) is None


def test_a_damaged_rate_is_no_rate(
    measured: tuple[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    url, names = measured
    (path,) = Path(url, RATES).iterdir()
    for text in ("", "[]", "{}", '{"units": 0, "seconds": 1, "source": ""}'):
        path.write_text(text)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="outspike"):
            assert stored_rate(url, "video", names) is None
        assert "not a rate" in caplog.text


def test_no_rate_is_made_up_for_what_an_encoder_does_not_take(encoders: list[Encoder]) -> None:
    assert sample_rate([encoders[1]], "events") is None


def test_a_recording_without_a_duration_is_not_told(
    encoders: list[Encoder], tmp_path: Path
) -> None:
    """Formats that state no length are left to their neighbours of the same kind."""
    recording = dataclasses.replace(SAMPLES["events"], url=str(tmp_path / "e.raw"))
    Path(recording.url).write_bytes(Path(SAMPLES["events"].url).read_bytes())
    found = estimate([_item(recording, (0,))], encoders, str(tmp_path / "s"), num_actors=1)
    assert found.num_recordings == 1
    assert found.seconds is not None
