"""Frame annotations from downloads: MATLAB label files, split lists, label tables."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from outspike.datasets import load
from outspike.datasets.frame_labels import read_mat, to_intervals
from outspike.errors import DatasetError
from outspike.timebase import frame_labels

MakeFiles = Callable[[Iterable[str]], str]


@given(st.lists(st.integers(0, 1), max_size=60))
def test_ranges_repaint_the_labels_they_came_from(labels: list[int]) -> None:
    """Runs and painting are inverse to each other."""
    painted = frame_labels(to_intervals(labels), len(labels))
    assert painted.tolist() == labels


def test_pixel_masks_become_frame_ranges(tmp_path: Path) -> None:
    """A frame with any mask pixel is anomalous, as Avenue defines it."""
    masks = np.empty((1, 4), dtype=object)
    for i in range(4):
        masks[0, i] = np.full((3, 5), int(i in (1, 2)), dtype=np.uint8)
    savemat(tmp_path / "3_label.mat", {"volLabel": masks})
    assert read_mat(str(tmp_path / "3_label.mat")) == ((1, 3),)


def test_other_matlab_files_are_refused_by_name(tmp_path: Path) -> None:
    """Neither a foreign variable nor a broken file passes for labels."""
    savemat(tmp_path / "x.mat", {"scores": [1, 2]})
    with pytest.raises(DatasetError, match="expected a variable gt or volLabel, found scores"):
        read_mat(str(tmp_path / "x.mat"))
    (tmp_path / "y.mat").write_text("not MATLAB at all, only text of some length" * 9)
    with pytest.raises(DatasetError, match=r"y\.mat: not a readable MATLAB"):
        read_mat(str(tmp_path / "y.mat"))
    (tmp_path / "z.mat").touch()
    with pytest.raises(DatasetError, match=r"z\.mat: not a readable MATLAB"):
        read_mat(str(tmp_path / "z.mat"))


def test_avenue_takes_labels_from_the_download(make_files: MakeFiles) -> None:
    """With label files frame ranges are known; without, the manifest says what is needed."""
    root = make_files(["training_videos/01.avi", "testing_videos/01.avi", "testing_videos/02.avi"])
    savemat(Path(root) / "1_label.mat", {"volLabel": np.array([[0, 1, 1]], dtype=object)})
    manifest = load("avenue", root)
    found = {r.video_id: r.intervals for r in manifest.recordings}
    assert found == {"Train01": (), "Test01": ((1, 3),), "Test02": None}
    assert "1 test videos (Test02)" in manifest.warnings[-1]
    assert len(manifest.missing) == 34


def test_lad2000_reads_the_lists_of_its_download(make_files: MakeFiles) -> None:
    """Label from the third last token, class from the folder, ranges from gt files."""
    root = make_files(["Fire/v_Fire_n_s1_01.avi", "Fire/v_Fire_a_s1_02.avi"])
    (Path(root) / "train_split.txt").write_text("v_Fire_n_s1_01\n")
    (Path(root) / "test_split.txt").write_text("v_Fire_a_s1_02\nv_Crash_a_s2_03\n")
    savemat(Path(root) / "gt_Fire_a_s1_02.mat", {"gt": [[0, 1, 1, 0]]})
    manifest = load("lad2000", root)
    normal, anomalous = manifest.recordings
    assert (normal.label, normal.class_name, normal.intervals) == (0, "Fire", ())
    assert (anomalous.label, anomalous.split, anomalous.intervals) == (1, "test", ((1, 3),))
    assert manifest.missing == ("v_Crash_a_s2_03",)
    assert any("not the published ones" in warning for warning in manifest.warnings)


def test_lad2000_without_lists_says_where_they_come_from(make_files: MakeFiles) -> None:
    """The lists are not public text, so their absence is explained."""
    with pytest.raises(DatasetError, match=r"no train_split\.txt\. LAD2000's lists come with"):
        load("lad2000", make_files(["Fire/v_Fire_n_s1_01.avi"]))


def test_ped2_full_names_and_numbers_are_both_found(make_files: MakeFiles) -> None:
    """train/01.mp4 and Train001.avi are the same clip of different downloads."""
    by_number = make_files(["train/01.mp4", "test/01.mp4"])
    assert [r.video_id for r in load("ucsd_ped2", by_number).recordings] == ["Train001", "Test001"]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("official", {"train": (16, 0), "test": (0, 12)}),
        ("weak-a", {"train": (12, 4), "test": (4, 4)}),
        ("weak-rtfm", {"train": (4, 6), "test": (12, 6)}),
        ("lad-reseeded", {"train": (8, 6), "test": (8, 6)}),
    ],
)
def test_ped2_splits_have_their_published_sizes(
    make_files: MakeFiles, split: str, expected: dict[str, tuple[int, int]]
) -> None:
    """Normal and anomalous clips of each part; weak training clips carry no frame ranges."""
    paths = [f"train/{i:02d}.mp4" for i in range(1, 17)]
    manifest = load(
        "ucsd_ped2", make_files(paths + [f"test/{i:02d}.mp4" for i in range(1, 13)]), split
    )
    for part, sizes in expected.items():
        labels = [r.label for r in manifest.part(part)]
        assert (labels.count(0), labels.count(1)) == sizes
    withheld = [r for r in manifest.part("train") if r.label == 1 and r.intervals is None]
    weak = split.startswith("weak")
    assert len(withheld) == (expected["train"][1] if weak else 0)


def test_ped2_ranges_add_up() -> None:
    """1,648 of 2,010 test frames are anomalous."""
    from outspike.datasets.tables import read_rows

    rows = [row for row in read_rows("ucsd_ped2") if row.label == 1]
    assert sum(row.num_frames or 0 for row in rows) == 2010
    assert sum(stop - start for row in rows for start, stop in row.intervals) == 1648


def test_contradicting_ped2_labels_are_refused(make_files: MakeFiles) -> None:
    """A damaged frame_labels.csv is noticed, not believed."""
    root = make_files(["test/01.mp4"])
    lines = ["clip,frame,label"] + [f"01,{i},{int(i >= 50)}" for i in range(180)]
    (Path(root) / "frame_labels.csv").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match="labels of Test001 differ from the published ranges"):
        load("ucsd_ped2", root)


def test_generated_clips_are_synthetic_training_bags(make_files: MakeFiles) -> None:
    """Only clips of the split, flagged, and never outside training."""
    root = make_files(["gen_003_abnormal.mp4", "gen_302_normal.mp4"])
    (Path(root) / "index.csv").write_text(
        "file,id,label,in_ucfg2\n"
        "gen_003_abnormal.mp4,3,abnormal,1\n"
        "gen_302_normal.mp4,302,normal,0\n"
        "gen_400_normal.mp4,400,normal,1\n"
    )
    manifest = load("gv_vad", root)
    assert [(r.video_id, r.label) for r in manifest.recordings] == [("gen_3", 1), ("gen_302", 0)]
    assert all(r.synthetic and r.split == "train" for r in manifest.recordings)
    assert manifest.missing == ("gen_400_normal.mp4",)
    assert [r.video_id for r in load("gv_vad", root, "ucfg2").recordings] == ["gen_3"]


def test_ped2_full_a_is_weak_a_with_frame_labels(make_files: MakeFiles) -> None:
    """The same clips in the same parts; only the anomalous training clips differ, by labels."""
    names = [f"train/{n:02d}.mp4" for n in range(1, 17)]
    names += [f"test/{n:02d}.mp4" for n in range(1, 13)]
    root = make_files(names)
    weak, full = (load("ucsd_ped2", root, split) for split in ("weak-a", "full-a"))
    parts = [{r.key: r.split for r in manifest.recordings} for manifest in (weak, full)]
    assert parts[0] == parts[1]
    known = {r.video_id: r.intervals for r in full.part("train")}
    assert known["Test006"] == ((0, 159),)
    differ = {
        one.video_id
        for one, other in zip(weak.recordings, full.recordings, strict=True)
        if one != other
    }
    assert differ == {"Test006", "Test009", "Test011", "Test012"}
    assert all(r.intervals is None for r in weak.part("train") if r.label)
    assert any("weakly" in warning for warning in full.warnings)
