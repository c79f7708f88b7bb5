"""Feature files find their recordings; imported sets train, are judged, and say what they are."""

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outspike.datasets.feature_import import FolderImport, export_folder, import_folder
from outspike.datasets.tables import read_rows
from outspike.errors import ConfigError, DatasetError
from outspike.store.bags import BagReader
from outspike.store.importing import ImportSettings
from outspike.store.npy_layouts import load_array, save_array
from outspike.store.store import FeatureStore


def settings_of(layout="rows", **changes):
    return ImportSettings(**{"name": "f", "origin": "made up", "layout": layout} | changes)


def put(root, name, rows=4, width=3, seed=0):
    rng = np.random.default_rng([seed, len(name)])
    save_array(f"{root}/{name}.npy", rng.random((rows, width), dtype=np.float32))


def import_into(url, root, dataset="folder", split="official", **changes):
    """The table as a dict, whether all was taken, and the store."""
    wanted = FolderImport(
        root=str(root), settings=settings_of(**changes), dataset=dataset, split=split
    )
    rows, complete = import_folder(str(url), wanted)
    return dict(rows), complete, FeatureStore.open(str(url))


def test_published_lists_tell_label_class_split_and_frames(tmp_path):
    """Ids match at any depth; strangers are counted; weak training ranges are withheld."""
    rows = read_rows("ucf_crime")
    test = next(r for r in rows if r.split == "test" and r.label == 1)
    train = next(r for r in rows if r.split == "train" and r.label == 1)
    put(tmp_path / "in" / "deep" / test.class_name, test.video_id, test.num_frames // 16)
    put(tmp_path / "in", train.video_id)
    put(tmp_path / "in", "Holiday_2024")
    told, complete, store = import_into(tmp_path / "s", tmp_path / "in", "ucf_crime")
    assert complete
    assert told["imported"] == 2
    assert told["not in the list"] == "1: Holiday_2024"
    assert told["listed, no file"].startswith(f"{len(rows) - 2}: ")
    found = store.recording("ucf_crime", test.video_id)
    assert (found.split, found.label, found.class_name) == ("test", 1, test.class_name)
    assert found.intervals == test.intervals
    assert store.recording("ucf_crime", train.video_id).intervals is None
    assert store.features("f").num_frames(("ucf_crime", test.video_id)) == test.num_frames
    assert store.features("f").num_frames(("ucf_crime", train.video_id)) == 64
    assert told["length taken from the rows"] == 1


def test_rows_of_another_video_do_not_pass(tmp_path):
    """A test video with far too few rows is refused, and the exit is not clean."""
    test = [r for r in read_rows("ucf_crime") if r.split == "test" and r.num_frames > 400][:2]
    put(tmp_path / "in", test[0].video_id, 3)
    put(tmp_path / "in", test[1].video_id, test[1].num_frames // 16)
    told, complete, _ = import_into(tmp_path / "s", tmp_path / "in", "ucf_crime")
    assert not complete
    assert "3 rows" in told[f"refused ucf_crime/{test[0].video_id}"]


def test_generated_clips_are_their_own_data_set(tmp_path):
    """In the lists with generated clips a bare number is a clip, flagged and for training only."""
    put(tmp_path / "in" / "GeneratedVideos", "2")
    put(tmp_path / "in", "gen_302")
    put(tmp_path / "in", "Abuse001_x264")
    told, _, store = import_into(tmp_path / "s", tmp_path / "in", "ucf_generated", "ucfg1")
    assert told["imported"] == 3
    clips = [store.recording("gv_vad", name) for name in ("gen_2", "gen_302")]
    assert [(c.label, c.synthetic, c.split) for c in clips] == [
        (1, True, "train"),
        (0, True, "train"),
    ]
    assert not store.recording("ucf_crime", "Abuse001_x264").synthetic


def test_events_keep_their_modality(tmp_path):
    """Features of UCF-Crime-DVS are of event recordings."""
    put(tmp_path / "in", "Abuse001_x264")
    _, _, store = import_into(tmp_path / "s", tmp_path / "in", "ucf_crime_dvs")
    assert store.recording("ucf_crime_dvs", "Abuse001_x264").modality == "events"


def test_ones_own_features_take_labels_from_a_table_or_folders(tmp_path):
    """labels.csv with lengths, else class folders with splits above them."""
    put(tmp_path / "a", "x")
    put(tmp_path / "a", "y")
    table = (
        "video_id,label,split,intervals,num_frames,synthetic\nx,1,test,3:9,60,0\ny,0,train,,,1\n"
    )
    (tmp_path / "a" / "labels.csv").write_text(table)
    _, _, store = import_into(tmp_path / "s", tmp_path / "a")
    found = store.recording("folder", "x")
    assert (found.label, found.split, found.intervals) == (1, "test", ((3, 9),))
    assert store.features("f").num_frames(("folder", "x")) == 60
    assert [store.recording("folder", name).synthetic for name in "xy"] == [False, True]
    put(tmp_path / "b" / "train" / "normal", "n")
    put(tmp_path / "b" / "train" / "theft", "t")
    _, _, store = import_into(tmp_path / "s2", tmp_path / "b")
    assert store.recording("folder", "train/theft/t").label == 1
    assert store.recording("folder", "train/normal/n").label == 0


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path):
    """No such data set or split, no file of the layout, none of the data set, two of one id."""
    put(tmp_path / "in", "x")
    with pytest.raises(ConfigError, match="there are folder, ucf_crime"):
        import_into(tmp_path / "s", tmp_path / "in", "imagenet")
    with pytest.raises(ConfigError, match="no split 'weak-z'"):
        import_into(tmp_path / "s", tmp_path / "in", "ucf_crime", "weak-z")
    with pytest.raises(DatasetError, match=r"no file of layout 'lad'"):
        import_into(tmp_path / "s", tmp_path / "in", layout="lad")
    with pytest.raises(DatasetError, match=r"none of the 1 recordings.*is in ucf_crime"):
        import_into(tmp_path / "s", tmp_path / "in", "ucf_crime")
    put(tmp_path / "in" / "a", "Abuse001_x264")
    put(tmp_path / "in" / "b", "Abuse001_x264")
    with pytest.raises(DatasetError, match="lie in a/Abuse001_x264 and b/Abuse001_x264"):
        import_into(tmp_path / "s", tmp_path / "in", "ucf_crime")


def test_endings_of_other_projects_are_taken(tmp_path):
    """RTFM's files are called <id>_i3d.npy."""
    rng = np.random.default_rng(0)
    save_array(f"{tmp_path}/in/Abuse001_x264_i3d.npy", rng.random((4, 10, 6), dtype=np.float32))
    _, _, store = import_into(
        tmp_path / "s", tmp_path / "in", "ucf_crime", layout="snippets-first", ending="_i3d.npy"
    )
    bag = BagReader(store, ["f"]).read(("ucf_crime", "Abuse001_x264"))
    assert bag.features["f"].shape == (10, 4, 6)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.sampled_from([0, 1, None]), min_size=1, max_size=4),
    rows=st.integers(1, 5),
    layout=st.sampled_from(["rows", "lad", "crop-files", "crops-first"]),
)
def test_an_export_imports_as_what_it_was(labels, rows, layout, tmp_path_factory):
    """Features, labels, ranges and lengths go to files and back unchanged."""
    root = tmp_path_factory.mktemp("round")
    lines = ["video_id,label,split,intervals,num_frames"]
    for i, label in enumerate(labels):
        put(root / "in", f"v{i}", rows, seed=i)
        frames = 16 * rows - i
        lines.append(f"v{i},{'' if label is None else label},,{'0:1' if label else ''},{frames}")
    (root / "in" / "labels.csv").write_text("\n".join(lines))
    _, _, first = import_into(root / "s1", root / "in", fps=Fraction(30000, 1001))
    export_folder(first.url, "f", str(root / "out"), layout)
    _, _, second = import_into(root / "s2", root / "out", layout=layout, fps=Fraction(30000, 1001))
    one, other = BagReader(first, ["f"]), BagReader(second, ["f"])
    assert one.keys() == other.keys()
    for key in one.keys():  # noqa: SIM118 - a reader is no dict
        a, b = one.read(key), other.read(key)
        assert a.features["f"].tobytes() == b.features["f"].tobytes()
        same = ("label", "intervals", "split", "num_frames", "fps")
        assert [getattr(a, n) for n in same] == [getattr(b, n) for n in same]
        assert np.array_equal(a.stop, b.stop)
    with Path(root / "out" / "labels.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(labels)


def test_files_and_store_may_lie_on_s3(s3_bucket):
    """From a prefix into a store beside it, and out to another prefix."""
    source, url, target = (f"{s3_bucket}/{name}" for name in ("in", "store", "out"))
    for k in range(3):
        rows = np.full((4, 2), k, dtype=np.float32)
        save_array(f"{source}/Abuse001_x264__{k}.npy", rows)
    told, complete, store = import_into(url, source, "ucf_crime", layout="crop-files")
    assert (complete, told["imported"]) == (True, 1)
    assert BagReader(store, ["f"]).num_crops("f") == 3
    assert import_into(url, source, "ucf_crime", layout="crop-files")[0]["imported"] == 0
    export_folder(url, "f", target, "crop-files")
    assert load_array(f"{target}/Abuse001_x264__2.npy").tolist() == [[2, 2]] * 4
