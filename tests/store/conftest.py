"""Small feature sets and recordings written the way extraction writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outspike.recording import Recording
from outspike.store.catalog import Receipt
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.segments import SegmentWriter
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.urls import SourceStat


def make_spec(
    name: str = "tiny",
    *,
    num_crops: int = 2,
    width: int = 6,
    dtype: str = "float16",
    **document: Any,
) -> FeatureSetSpec:
    return FeatureSetSpec(
        name=name,
        document={"encoder": name, "width": width, "crops": num_crops, **document},
        num_crops=num_crops,
        width=width,
        dtype=dtype,
    )


@dataclass(frozen=True)
class Video:
    """A recording with the features an encoder would give."""

    recording: Recording
    features: NDArray[np.float32]  # [S, K, D]
    num_frames: int
    fps: Fraction = Fraction(30000, 1001)
    etag: str = "etag-1"

    @property
    def key(self) -> tuple[str, str]:
        return self.recording.dataset, self.recording.video_id

    @property
    def stat(self) -> SourceStat:
        return SourceStat(url=self.recording.url, size=1000 + self.num_frames, etag=self.etag)

    def ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return SnippetGrid().ranges(self.num_frames)


def make_video(
    name: str, num_frames: int, spec: FeatureSetSpec, *, seed: int = 0, **fields: Any
) -> Video:
    etag = fields.pop("etag", "etag-1")
    recording = Recording(
        **{"dataset": "ds", "video_id": name, "url": f"/videos/{name}.mp4", **fields}
    )
    num_snippets = SnippetGrid().num_snippets(num_frames)
    generator = np.random.default_rng([seed, num_frames, *name.encode(), *spec.name.encode()])
    features = generator.standard_normal((num_snippets, spec.num_crops, spec.width))
    return Video(recording, features.astype(np.float32), num_frames, etag=etag)


def feed(writer: SegmentWriter, video: Video, *, step: int = 7) -> None:
    """One recording through a writer, ``step`` snippets at a time."""
    start, stop = video.ranges()
    writer.begin(video.recording, stat=video.stat)
    for first in range(0, len(start), step):
        part = slice(first, first + step)
        writer.append(video.features[part], start[part], stop[part])
    writer.end(video.num_frames, video.fps)


def write(
    store: FeatureStore, spec: FeatureSetSpec, videos: Sequence[Video], **settings: Any
) -> list[Receipt]:
    """Write recordings and return their receipts, uncommitted."""
    step = settings.pop("step", 7)
    writer = SegmentWriter(store.url, spec, **settings)
    for video in videos:
        feed(writer, video, step=step)
    writer.close()
    return writer.drain()


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers above, for tests."""
    return SimpleNamespace(spec=make_spec, video=make_video, feed=feed, write=write)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore.create(str(tmp_path / "store"))
