"""The HTML report."""

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outspike.errors import AlignmentError, MediaError
from outspike.evaluate import svg, words
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import PROTOCOLS, Protocol
from outspike.evaluate.report import render_report, write_report
from outspike.evaluate.report_videos import choose_large
from outspike.evaluate.results import Results
from outspike.scoring.scores import VideoScores

MakeSet = Callable[..., list[VideoScores]]
FOLDER = PROTOCOLS["folder"]
PROVENANCE = {
    "model": "models:/made-up/3",
    "store": "s3://bucket/store",
    "catalog_version": 12,
    "fingerprints": ["0123456789abcdef", "fedcba9876543210"],
    "command": "jobs/evaluate.py --protocol folder",
    "git": "0a1b2c3",
}
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Elements of a page, checked to be well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def values(self, attribute: str) -> list[str]:
        return [str(found[attribute]) for _, found in self.elements if attribute in found]


def grey_thumbnail(video_id: str, frame: int) -> np.ndarray:
    return np.full((120, 160, 3), frame % 255, dtype=np.uint8)


def render(videos: list[VideoScores], **options: object) -> tuple[Results, str]:
    floor = options.get("floor")
    results = evaluate(videos, FOLDER, floor=floor, num_resamples=30)  # type: ignore[arg-type]
    return results, render_report(results, videos, provenance=PROVENANCE, **options)  # type: ignore[arg-type]


def test_the_page_asks_nobody_for_anything(make_set: MakeSet) -> None:
    """No address, no import, no script that runs: it works from a disk without a network."""
    videos = make_set(10)
    _, text = render(videos, floor=videos, thumbnails=grey_thumbnail)
    page = Page(text)
    for attribute in ("src", "href", "srcset", "xlink:href", "action", "poster"):
        for value in page.values(attribute):
            assert value.startswith(("data:", "#")), value
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    scripts = [found for tag, found in page.elements if tag == "script"]
    assert [found.get("type") for found in scripts] == ["application/json"]
    assert not any(tag == "link" for tag, _ in page.elements)


def test_every_video_and_every_figure_of_the_results_is_on_the_page(make_set: MakeSet) -> None:
    """Values are those of the results, to the last bit in data attributes and in embedded JSON."""
    videos = make_set(12)
    floor = make_set(12, separation=0.05)
    results, text = render(videos, floor=floor, thumbnails=grey_thumbnail)
    page = Page(text)
    assert sorted(page.values("data-video")) == [video.video_id for video in videos]
    shown = {
        found["data-metric"]: found["data-value"]
        for tag, found in page.elements
        if tag == "tr" and "data-metric" in found
    }
    defined = {name: est.value for name, est in results.metrics.items() if est.value is not None}
    assert {name: float(value or "nan") for name, value in shown.items()} == defined
    for name, value in defined.items():
        assert words.figure(name, value) in text
        assert words.METRIC_TITLES[name] in text
        assert words.interval(name, results.metrics[name]) in text
        assert results.floor is not None
        assert words.figure(name, results.floor.metrics[name].value) in text
        assert results.floor.verdict(name) in text
    assert set(page.values("data-class")) == {row.name for row in results.per_class}
    embedded = re.search(r'<script type="application/json" id="results">(.*?)</script>', text)
    assert embedded
    assert Results.from_json(json.loads(embedded[1])) == results


def test_the_footer_says_what_made_the_page(make_set: MakeSet) -> None:
    """Store, version, fingerprint, protocol, command, revision and date."""
    _, text = render(make_set(6))
    footer = text[text.index("<footer>") :]
    for value in PROVENANCE.values():
        for item in value if isinstance(value, list) else [value]:
            assert str(item) in footer
    assert "folder v1" in footer
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", footer)


def test_names_cannot_break_the_page(make_video: Callable[..., VideoScores]) -> None:
    """Ids, classes and provenance are text, whatever they contain."""
    evil = "<script>alert(1)</script>&\"'"
    videos = [
        make_video(f"a/{evil}", [0.1, 0.9], intervals=((16, 32),), class_name=evil),
        make_video("b", [0.2, 0.3]),
    ]
    results = evaluate(videos, FOLDER, num_resamples=5)
    text = render_report(results, videos, provenance={"command": evil}, title=evil)
    assert "<script>alert" not in text
    assert f"a/{evil}" in Page(text).values("data-video")


def test_videos_without_frame_labels_get_a_page_of_whole_videos(
    make_video: Callable[..., VideoScores],
) -> None:
    """Curves are over videos, frame metrics are named as absent with the reason."""
    videos = [
        make_video(f"v{index}", [0.1, 0.1 * index], intervals=None, label=index % 2)
        for index in range(8)
    ]
    results, text = render(videos)
    page = Page(text)
    assert sorted(page.values("data-video")) == sorted(video.video_id for video in videos)
    assert "false-positive rate over videos" in text
    assert "4 of 8 videos are anomalous or unlabelled" in text
    assert results.metrics["auc"].value is None
    assert (
        "of all normal videos score above it" in text.lower() or "it scores above" in text.lower()
    )


def test_recordings_without_any_label_still_get_their_timelines(
    make_video: Callable[..., VideoScores],
) -> None:
    """Nothing can be judged, and the page says so instead of failing."""
    videos = [make_video(f"v{i}", [0.2, 0.4 + 0.1 * i], intervals=None) for i in range(3)]
    results, text = render(videos, thumbnails=grey_thumbnail)
    assert results.primary.value is None
    assert "3 of 3 videos have no label" in text
    assert len(Page(text).values("data-video")) == 3


def test_an_oracle_page_says_so_on_top(make_set: MakeSet) -> None:
    """Selection on the test split is stamped where nobody can miss it."""
    videos = make_set(6)
    oracle = evaluate(videos, PROTOCOLS["folder-test-selected"], num_resamples=5)
    assert "Selected on the test split." in render_report(oracle, videos, provenance={})
    assert "Selected on the test split." not in render(videos)[1]


def test_the_worst_are_large_and_the_rest_are_counted_and_small(make_set: MakeSet) -> None:
    """Misses and false alarms share the large places, costliest first."""
    videos = make_set(40, separation=0.1)
    results, text = render(videos, max_large=6, thumbnails=grey_thumbnail)
    chosen = choose_large(results.per_video, 6)
    assert (len(chosen["miss"]), len(chosen["false_alarm"])) == (3, 3)
    for rows in chosen.values():
        shares = [row.error_share for row in rows]
        assert shares == sorted(shares, reverse=True)
    assert "6 of 40 videos are shown large, the other 34" in text
    assert text.count('class="spark"') == 34
    assert text.count('class="timeline"') == 6
    order = Page(text).values("data-video")
    assert order[0] == chosen["miss"][0].video_id
    assert order[3] == chosen["false_alarm"][0].video_id


def test_key_frames_are_small_pictures_asked_for_in_order(make_set: MakeSet) -> None:
    """Frames rise within a video, so that one pass of decoding serves them; marks show labels."""
    asked: dict[str, list[int]] = {}

    def thumbnail(video_id: str, frame: int) -> np.ndarray:
        asked.setdefault(video_id, []).append(frame)
        return grey_thumbnail(video_id, frame)

    videos = make_set(4)
    _, text = render(videos, thumbnails=thumbnail)
    assert set(asked) == {video.video_id for video in videos}
    for video in videos:
        frames = asked[video.video_id]
        assert frames == sorted(set(frames))
        assert 1 <= len(frames) <= 6
        assert max(frames) < video.num_frames
    sources = [value for value in Page(text).values("src") if value.startswith("data:image/jpeg")]
    assert len(sources) == sum(map(len, asked.values()))
    picture = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert picture.size == (176, 132)
    assert '<figure class="anomalous">' in text


def test_a_frame_that_cannot_be_read_is_named_in_its_place(make_set: MakeSet) -> None:
    """A broken file costs its pictures, not the page."""

    def broken(video_id: str, frame: int) -> np.ndarray:
        raise MediaError(f"{video_id}: gone", reason="truncated")

    assert "not readable: truncated" in render(make_set(4), thumbnails=broken)[1]


def test_the_page_lands_under_its_address(make_set: MakeSet, tmp_path: Path) -> None:
    """Folders are made; scores that are not those of the results are refused."""
    videos = make_set(4)
    results = evaluate(videos, FOLDER, num_resamples=5)
    target = tmp_path / "deep" / "report.html"
    assert write_report(results, videos, str(target), provenance={}) == str(target)
    assert target.read_text().startswith("<!doctype html>")
    with pytest.raises(AlignmentError, match="same order"):
        write_report(results, videos[::-1], str(target), provenance={})


def test_three_hundred_long_videos_stay_below_ten_megabytes(
    make_video: Callable[..., VideoScores],
) -> None:
    """Long series are thinned without losing a peak; noisy key frames are the worst case."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    videos = [
        make_video(
            f"v{index:03d}",
            rng.random(1200),
            intervals=((160, 800),) if index % 2 else (),
        )
        for index in range(300)
    ]
    plain = Protocol(name="plain", dataset="*", metrics=("auc",))
    results = evaluate(videos, plain, num_resamples=0)
    text = render_report(results, videos, provenance={}, floor=videos, thumbnails=lambda *_: noise)
    assert len(text.encode()) < 10_000_000
    assert len(Page(text).values("data-video")) == 300


def test_thinning_keeps_peaks_and_the_ends_of_curves() -> None:
    """What a reader looks for must survive drawing."""
    score = np.zeros(50_000)
    score[31_234] = 1.0
    start = np.arange(50_000.0) * 16
    series = svg.Series(score=score, start=start, stop=start + 16, num_frames=800_000)
    drawn = svg.sparkline(series, intervals=(), y_max=1.0, label="x")
    assert "V2H" in drawn
    assert len(drawn) < 5000
    x, y = svg.thin(np.linspace(0, 1, 10_000), np.linspace(0, 1, 10_000) ** 2)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert len(x) < 600


def test_figures_are_written_the_same_everywhere() -> None:
    """Rounding, units and signs."""
    assert words.figure("auc", 0.96666) == "0.967"
    assert words.figure("far", 0.0327) == "3.27 %"
    assert words.figure("auc", None) == "\N{EN DASH}"
    assert words.signed("auc", -0.25) == "\N{MINUS SIGN}0.250"
    assert words.signed("auc", 0.0) == "0.000"
    assert words.percent(0.00004) == "less than 0.01 %"
    assert [words.clock(s) for s in (2.5, 75, 3700)] == ["0:02.5", "1:15", "1:01:40"]
    assert [words.duration(s) for s in (42, 678, 8640)] == ["42 s", "11.3 min", "2.4 h"]
