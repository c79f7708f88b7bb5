"""Data sets on recordings no one here made."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from outspike.datasets import load
from outspike.datasets.tables import read_rows
from outspike.timebase import frame_labels

pytestmark = pytest.mark.media


def test_weak_a_is_complete(media: Path) -> None:
    """Twelve normal and four anomalous training clips; four and four to test on."""
    manifest = load("ucsd_ped2", str(media / "ucsd_ped2"), "weak-a").require_complete()
    anomalous = {r.video_id for r in manifest.part("train") if r.label == 1}
    assert anomalous == {"Test006", "Test009", "Test011", "Test012"}
    test = {r.video_id for r in manifest.part("test")}
    normal = {f"Train{i:03d}" for i in range(13, 17)}
    assert test == normal | {"Test001", "Test003", "Test004", "Test008"}


def test_absent_ped2_clips_are_named(media: Path) -> None:
    """The folder holds eight of the twelve official test clips."""
    manifest = load("ucsd_ped2", str(media / "ucsd_ped2"))
    assert manifest.missing == ("Test002", "Test005", "Test007", "Test010")


def test_fight_splits_share_no_source(media: Path) -> None:
    """151 training and 49 test clips, disjoint by the video they were cut from."""
    manifest = load("surv_fight", str(media / "surv_fight")).require_complete()
    counts = Counter((r.split, r.label) for r in manifest.recordings)
    assert counts == {("train", 1): 76, ("train", 0): 75, ("test", 1): 24, ("test", 0): 25}
    train = {r.group for r in manifest.part("train")}
    assert not train & {r.group for r in manifest.part("test")}


def test_generated_clips_load(media: Path) -> None:
    """Four abnormal and four normal clips of a video generator."""
    manifest = load("gv_vad", str(media / "gv_vad")).require_complete()
    assert Counter(r.label for r in manifest.recordings) == {0: 4, 1: 4}
    assert all(r.synthetic for r in manifest.recordings)


@pytest.mark.parametrize(("name", "tolerated"), [("ucf_crime", 0), ("xd_violence", 3)])
def test_ranges_agree_with_an_independent_ground_truth(
    media: Path, name: str, tolerated: int
) -> None:
    """Frame by frame against labels of another project; three XD-Violence videos differ by one."""
    truth = np.load(media / "features" / "ground_truth" / f"{name}_test.npz")
    rows = {row.video_id: row for row in read_rows(name)}
    stops = np.cumsum(truth["lengths"])
    different = []
    for video_id, start, stop in zip(truth["names"], stops - truth["lengths"], stops, strict=True):
        row = rows[str(video_id)]
        ours = frame_labels(row.intervals, max(int(stop - start), row.num_frames or 0))
        wrong = int((ours[: stop - start] != truth["labels"][start:stop]).sum())
        if wrong:
            different.append((str(video_id), wrong))
    assert len(truth["names"]) == sum(row.split == "test" for row in rows.values())
    assert len(different) <= tolerated, different
    assert all(wrong == 1 for _, wrong in different)
