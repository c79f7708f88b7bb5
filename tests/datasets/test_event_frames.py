"""Event-frame downloads become event recordings with the same counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.config import EncoderConfig
from outspike.datasets.event_frames import convert, window_of
from outspike.datasets.label_import import import_event_frames
from outspike.encoders import build
from outspike.errors import ConfigError, DatasetError
from outspike.events.columns import concatenate
from outspike.events.reader import open_events
from outspike.recording import Recording
from outspike.scoring.encode import encode_recording

WINDOW_US = 533_328


def counted(path, num_windows, size):
    """Counts of a converted file, as the frames were."""
    reader = open_events(str(path))
    events = concatenate(list(reader.chunks()))
    counts = np.zeros((num_windows, 2, size[1], size[0]))
    np.add.at(counts, (events.t // WINDOW_US, events.p, events.y, events.x), 1)
    return counts


@settings(max_examples=15)
@given(
    num_windows=st.integers(1, 5),
    dtype=st.sampled_from([np.float64, np.float32, np.int32, np.uint8]),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_counting_the_events_gives_the_frames_again(
    num_windows, dtype, density, seed, tmp_path_factory
):
    """Every count, in its window, at its pixel, with its sign; empty windows too."""
    rng = np.random.default_rng(seed)
    shape = (num_windows, 2, 5, 7)
    frames = rng.integers(0, 4, shape) * (rng.random(shape) < density)
    folder = tmp_path_factory.mktemp("frames") / f"duration_{WINDOW_US}"
    folder.mkdir()
    np.savez_compressed(folder / "v.npz", frames=frames.astype(dtype))
    done = convert(str(folder / "v.npz"), folder / "out.npz")
    assert (done.num_windows, done.num_events, done.size) == (num_windows, frames.sum(), (7, 5))
    info = open_events(str(folder / "out.npz")).info
    assert (info.width, info.height, info.anchor_us) == (7, 5, 0)
    assert info.duration_us == num_windows * WINDOW_US
    if frames.sum():
        np.testing.assert_array_equal(counted(folder / "out.npz", num_windows, (7, 5)), frames)


def test_a_converted_recording_goes_through_an_encoder(tmp_path):
    """One row a window, as the published extraction has."""
    frames = np.zeros((6, 2, 30, 40))
    frames[::2, :, 10:20, 10:20] = 2
    np.savez(tmp_path / "v.npz", frames=frames)
    convert(str(tmp_path / "v.npz"), tmp_path / "e.npz", window_us=WINDOW_US)
    recording = Recording(dataset="d", video_id="v", url=str(tmp_path / "e.npz"), modality="events")
    rows = []
    facts = encode_recording(
        recording,
        [build(EncoderConfig(kind="event-pyramid"))],
        emit=lambda name, part, start, stop: rows.append(part),
    )
    assert facts.num_rows == {"event-pyramid": 6}
    assert facts.num_frames == 96


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.full((1, 2, 3, 3), 0.5), "not whole"),
        (np.full((1, 2, 3, 3), -1.0), "counts from -1"),
        (np.full((1, 2, 3, 3), np.nan), "counts from nan"),
        (np.zeros((1, 3, 3, 3)), r"expected counts \[T, 2, H, W\]"),
        (np.zeros((2, 3)), r"expected counts"),
    ],
)
def test_frames_that_are_no_counts_are_refused(frames, message, tmp_path):
    """And no half-written file is left."""
    np.savez(tmp_path / "v.npz", frames=frames)
    with pytest.raises(DatasetError, match=message):
        convert(str(tmp_path / "v.npz"), tmp_path / "out" / "e.npz", window_us=1000)
    assert not list((tmp_path / "out").iterdir())


def test_damaged_and_foreign_files_are_refused(tmp_path):
    """Cut short, no zip, no frames."""
    np.savez(tmp_path / "e.npz", t=np.zeros(3))
    with pytest.raises(DatasetError, match="needs no conversion"):
        convert(str(tmp_path / "e.npz"), tmp_path / "o.npz", window_us=1)
    (tmp_path / "t.npz").write_text("text")
    with pytest.raises(DatasetError, match=r"not an \.npz"):
        convert(str(tmp_path / "t.npz"), tmp_path / "o.npz", window_us=1)
    np.savez(tmp_path / "v.npz", frames=np.random.default_rng(0).integers(0, 9, (4, 2, 40, 40)))
    data = bytearray((tmp_path / "v.npz").read_bytes())
    data[5000:5050] = bytes(50)
    (tmp_path / "v.npz").write_bytes(data)
    with pytest.raises(DatasetError, match="window"):
        convert(str(tmp_path / "v.npz"), tmp_path / "o.npz", window_us=1)


def test_only_windows_of_known_length_are_taken(tmp_path):
    """The folder says it; windows of equally many events lie on no clock."""
    assert window_of("root/duration_533328/train/3/v.npz") == 533_328
    with pytest.raises(ConfigError, match="do not lie on the frame clock"):
        window_of("root/frames_number_16_split_by_number/train/3/v.npz")
    with pytest.raises(ConfigError, match="give window_us"):
        window_of("root/v.npz")


def test_a_folder_is_converted_recording_by_recording(tmp_path):
    """Names stay; the class folders of the download are left behind."""
    for path in ("train/0/a.npz", "train/7/b.npz"):
        target = tmp_path / "duration_1000" / path
        target.parent.mkdir(parents=True)
        np.savez(target, frames=np.ones((2, 2, 3, 3)))
    rows = dict(import_event_frames(str(tmp_path / "duration_1000"), str(tmp_path / "out")))
    assert (rows["recordings"], rows["windows"], rows["events"]) == (2, 4, 72)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npz", "b.npz"]
