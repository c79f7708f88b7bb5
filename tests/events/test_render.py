"""What people look at shows the events that are there, where and when they are."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from outspike.errors import ConfigError
from outspike.events.columns import Events
from outspike.events.reader import EventReader, open_events
from outspike.events.render import (
    SheetLayout,
    contact_sheet,
    highest_shown,
    paint,
    render_video,
)
from outspike.events.write import write_events

SIZE = (64, 48)


def recording(path: Path, t: np.ndarray, x: np.ndarray, p: np.ndarray) -> EventReader:
    y = np.full(len(t), 10, np.uint16)
    events = Events(t.astype(np.int64), x.astype(np.uint16), y, p.astype(np.uint8))
    write_events(path, events, format="evt3", size=SIZE)
    return open_events(str(path))


def warm(picture: np.ndarray) -> np.ndarray:
    """Where red is stronger than blue."""
    return picture[..., 0].astype(int) > picture[..., 2].astype(int) + 20


def test_colours_tell_polarity_and_brightness_tells_how_many() -> None:
    counts = np.zeros((2, 1, 5), np.uint16)
    counts[1, 0, 1], counts[0, 0, 2], counts[1, 0, 3] = 1, 1, 60000
    counts[:, 0, 4] = 2, 3
    picture = paint(counts)[0]
    assert warm(picture).tolist() == [False, True, False, True, True]
    assert picture[2, 2] > picture[2, 0] + 20
    assert picture[3].sum() > picture[1].sum() > picture[0].sum()


def test_a_video_shows_each_event_in_its_frame(tmp_path: Path) -> None:
    """One column lights up a frame; ten times slower has ten times the frames."""
    t = np.repeat(np.arange(8) * 100_000, 4)
    reader = recording(tmp_path / "a.raw", t, np.repeat(np.arange(8) * 8, 4), np.ones(32))
    assert render_video(reader, tmp_path / "a.mp4", fps=10, crf=1) == 8
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, frame in enumerate(frames):
        brightest = np.unravel_index(frame.sum(axis=2).argmax(), frame.shape[:2])
        assert abs(brightest[1] - 8 * number) <= 1
    assert render_video(reader, tmp_path / "b.mp4", fps=10, slow=10.0) == 71


def test_a_contact_sheet_shows_moments_in_order(tmp_path: Path) -> None:
    """Left half active first, right half later; the strip has a bar for each rate."""
    t = np.arange(8000) * 100
    x = np.where(t < 400_000, t % 32, 32 + t % 32)
    reader = recording(tmp_path / "a.raw", t, x, np.arange(8000) % 2)
    layout = SheetLayout(rows=1, columns=2, cell_width=64)
    contact_sheet(reader, tmp_path / "a.png", layout)
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    cells = picture[46 : 46 + 48, 10 : 10 + 64], picture[46 : 46 + 48, 84 : 84 + 64]
    lit = [cell.sum(axis=2)[10] > 200 for cell in cells]
    assert lit[0][:32].sum() > 5
    assert not lit[0][33:].any()
    assert lit[1][32:].sum() > 5
    assert not lit[1][:31].any()


def test_what_cannot_be_shown_is_an_error(tmp_path: Path) -> None:
    reader = recording(tmp_path / "a.raw", np.arange(5), np.arange(5), np.ones(5))
    with pytest.raises(ConfigError, match="at least a microsecond"):
        render_video(reader, tmp_path / "a.mp4", slow=1e9)
    with pytest.raises(ConfigError, match="at least one cell"):
        SheetLayout(rows=0)
    with pytest.raises(ConfigError, match="at least a microsecond"):
        SheetLayout(window_us=0)
    bare = tmp_path / "b.raw"
    bare.write_bytes(b"% evt 3.0\n% end\n" + np.array([0x8001, 0x2001], "<u2").tobytes())
    with pytest.raises(ConfigError, match="give it with --size"):
        contact_sheet(open_events(str(bare)), tmp_path / "b.png")
    silent = tmp_path / "c.raw"
    silent.write_bytes(b"% evt 3.0\n% end\n" + np.array([0x8001], "<u2").tobytes())
    with pytest.raises(ConfigError, match="nothing to show"):
        contact_sheet(open_events(str(silent), size=SIZE), tmp_path / "c.png")


def test_a_burst_does_not_flatten_the_rates_around_it() -> None:
    """The strip reaches to the peak, or to three times what all but a twentieth stays below."""
    even, burst = np.linspace(1.0, 2.0, 200), np.append(np.ones(199), 50.0)
    assert highest_shown(even) == 2.0
    assert highest_shown(burst) == 3.0
    assert highest_shown(np.append(np.zeros(199), 7.0)) == 7.0
    assert highest_shown(np.zeros(200)) == 0.0
