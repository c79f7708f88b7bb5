"""The miniature set as a manifest."""

import shutil
from pathlib import Path

import pytest

from outspike.datasets import load
from outspike.errors import DatasetError
from outspike.synth.miniature import generate


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniature")
    generate(folder, train=2, test=2, events=1, unseen=1, synthetic=1)
    return folder


def test_generated_recordings_are_found(root: Path) -> None:
    """Every listed recording has its file; generated ones are training bags."""
    manifest = load("miniature", str(root)).require_complete()
    assert {r.split for r in manifest.recordings} == {"train", "test"}
    assert all(Path(r.url).is_file() and Path(r.url).is_absolute() for r in manifest.recordings)
    assert {r.modality for r in manifest.recordings} == {"video", "events"}
    assert all(r.intervals is not None for r in manifest.part("test"))
    assert sum(r.synthetic for r in manifest.recordings) == 1


def test_a_deleted_recording_is_missing(root: Path, tmp_path: Path) -> None:
    """What the table lists and the folder lacks is named."""
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    gone = load("miniature", str(tmp_path)).part("test")[0]
    Path(gone.url).unlink()
    assert load("miniature", str(tmp_path)).missing == (gone.video_id,)


def test_an_empty_root_says_how_to_make_one(tmp_path: Path) -> None:
    """The message names the command."""
    with pytest.raises(DatasetError, match=r"no miniature data set there .*`outspike demo`"):
        load("miniature", str(tmp_path))
