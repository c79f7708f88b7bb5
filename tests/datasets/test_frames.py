"""Folders of pictures become clips, frame for frame."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outspike.datasets import load
from outspike.datasets.frames import pack_folders
from outspike.errors import DatasetError, MediaError
from outspike.video.decode import decode


def write_frames(folder: Path, count: int, ending: str = "tif") -> None:
    """Grey frames whose level is ten times their number."""
    folder.mkdir(parents=True)
    for i in range(1, count + 1):
        picture = np.full((24, 36), 10 * i, dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{i:03d}.{ending}")


def test_official_ped2_folders_become_its_clips(tmp_path: Path) -> None:
    """Every TIFF is one frame, in the order of its number; mask folders are left out."""
    write_frames(tmp_path / "UCSDped2" / "Train" / "Train001", 12)
    write_frames(tmp_path / "UCSDped2" / "Test" / "Test004", 5)
    write_frames(tmp_path / "UCSDped2" / "Test" / "Test004_gt", 5, "bmp")
    clips = pack_folders(str(tmp_path / "UCSDped2"), tmp_path / "clips", fps=Fraction(10))
    assert [clip.name for clip in clips] == ["Test004.mp4", "Train001.mp4"]
    levels = [f.mean() for chunk in decode(str(clips[1])) for f in chunk.frames]
    assert np.allclose(levels, 10 * np.arange(1, 13), atol=1.5)
    manifest = load("ucsd_ped2", str(tmp_path / "clips"))
    assert [r.video_id for r in manifest.recordings] == ["Train001", "Test004"]


def test_a_second_call_writes_nothing(tmp_path: Path) -> None:
    """Finished clips are kept."""
    write_frames(tmp_path / "in" / "01_0014", 3, "png")
    (clip,) = pack_folders(str(tmp_path / "in"), tmp_path / "out", fps=Fraction(24))
    before = clip.stat().st_mtime_ns
    assert pack_folders(str(tmp_path / "in"), tmp_path / "out", fps=Fraction(24)) == [clip]
    assert clip.stat().st_mtime_ns == before


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    """A broken picture, a name without a number, equal folder names, no pictures at all."""
    write_frames(tmp_path / "a" / "x", 2, "png")
    (tmp_path / "a" / "x" / "002.png").write_text("no picture")
    with pytest.raises(MediaError, match=r"002\.png: not a readable picture"):
        pack_folders(str(tmp_path / "a"), tmp_path / "out", fps=Fraction(10))
    assert not list((tmp_path / "out").glob("*"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cover.png").touch()
    with pytest.raises(DatasetError, match=r"cover\.png: a frame's name must hold its number"):
        pack_folders(str(tmp_path / "b"), tmp_path / "out", fps=Fraction(10))
    write_frames(tmp_path / "c" / "p" / "x", 1)
    write_frames(tmp_path / "c" / "q" / "x", 1)
    with pytest.raises(DatasetError, match="two folders of pictures are called 'x'"):
        pack_folders(str(tmp_path / "c"), tmp_path / "out", fps=Fraction(10))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "readme.txt").touch()
    with pytest.raises(DatasetError, match="no folder with pictures"):
        pack_folders(str(tmp_path / "d"), tmp_path / "out", fps=Fraction(10))
