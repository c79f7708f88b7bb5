"""Published label files in every form become the same table."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from outspike.datasets import load
from outspike.datasets.label_files import cut, read_labels
from outspike.datasets.label_import import LabelImport, import_labels
from outspike.datasets.tables import read_rows
from outspike.errors import AlignmentError, ConfigError, DatasetError
from outspike.recording import Recording
from outspike.store.importing import FeatureFiles, ImportSettings, import_features
from outspike.store.npy_layouts import save_array
from outspike.store.store import FeatureStore
from outspike.timebase import frame_labels

VIDEOS = {"Abuse028_x264": [0, 1, 1, 0, 1], "Normal_Videos_003_x264": [0, 0, 0]}
EXPECTED = {"Abuse028_x264": ((1, 3), (4, 5)), "Normal_Videos_003_x264": ()}


def order_of(folder, videos=None):
    lines = [f"{name},{len(labels)}" for name, labels in (videos or VIDEOS).items()]
    path = folder / "order.csv"
    path.write_text("\n".join(["video_id,num_frames", *lines]))
    return str(path)


def as_vector(folder):
    np.save(folder / "gt-ucf.npy", np.concatenate(list(VIDEOS.values())).astype(float))
    return str(folder / "gt-ucf.npy")


def as_archive(folder):
    lengths = [len(labels) for labels in VIDEOS.values()]
    labels = np.concatenate(list(VIDEOS.values())).astype(np.uint8)
    np.savez(folder / "gt.npz", names=list(VIDEOS), lengths=lengths, labels=labels)
    return str(folder / "gt.npz")


def as_dictionary(folder, make=list):
    path = folder / "gt-ucf-dic.pickle"
    path.write_bytes(pickle.dumps({name: make(labels) for name, labels in VIDEOS.items()}))
    return str(path)


def as_folder(folder, suffix):
    root = folder / "masks"
    root.mkdir()
    for name, labels in VIDEOS.items():
        if suffix == ".npy":
            np.save(root / f"{name}.npy", np.array(labels))
        else:
            savemat(root / f"{name}.mat", {"gt": [labels]})
    return str(root)


@pytest.mark.parametrize(
    "write",
    [
        as_archive,
        as_dictionary,
        lambda folder: as_dictionary(folder, np.array),
        lambda folder: as_dictionary(folder, lambda labels: np.array([labels])),
        lambda folder: as_folder(folder, ".npy"),
        lambda folder: as_folder(folder, ".mat"),
    ],
)
def test_every_form_tells_the_same(write, tmp_path):
    """Names, lengths and ranges, however they were stored."""
    found = read_labels(write(tmp_path))
    assert {v.video_id: v.intervals for v in found} == EXPECTED
    assert {v.video_id: v.num_frames for v in found} == {n: len(v) for n, v in VIDEOS.items()}
    assert {v.video_id: v.label for v in found} == {"Abuse028_x264": 1, "Normal_Videos_003_x264": 0}


def test_a_vector_is_cut_by_its_list(tmp_path):
    """A concatenated vector with the list it was made from is as good as the others."""
    found = read_labels(as_vector(tmp_path), order_of(tmp_path))
    assert {v.video_id: v.intervals for v in found} == EXPECTED


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20), min_size=1, max_size=5))
def test_cutting_undoes_joining(parts):
    """Painted again, the ranges of each video are the labels it came with."""
    names = [f"v{i}" for i in range(len(parts))]
    vector = np.concatenate([np.array(part) for part in parts])
    for part, found in zip(parts, cut(vector, names, list(map(len, parts)), "f"), strict=True):
        assert frame_labels(found.intervals, found.num_frames).tolist() == part


def test_a_vector_of_another_length_is_never_cut(tmp_path):
    """Both totals and the difference are told; nothing is truncated."""
    order = order_of(tmp_path, VIDEOS | {"Arrest001_x264": [0, 0]})
    with pytest.raises(DatasetError, match=r"8 labels, the 3 videos of the list have 10.*-2"):
        read_labels(as_vector(tmp_path), order)
    with pytest.raises(DatasetError, match="give order="):
        read_labels(as_vector(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"v": [0, 2]}, "labels like 2"),
        ({"v": [0.5]}, "labels like"),
        ({"v": [[0, 1], [1]]}, "not one list|shape"),
        ({"v": np.zeros((2, 2))}, "shape"),
        ({"v": "01"}, "shape"),
        ({3: [0]}, "dict from video"),
        ([0, 1], "dict from video"),
        ({}, "empty"),
        ({"v": -1}, "class -1"),
        ({"v": [0], "v.mp4": [1]}, "v named twice"),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused(content, message, tmp_path):
    """Values outside 0 and 1, shapes that are no list of frames, foreign dictionaries."""
    path = tmp_path / "labels.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=message):
        read_labels(str(path))


def test_foreign_files_are_refused(tmp_path):
    """An archive of something else, an empty folder, text."""
    np.savez(tmp_path / "frames.npz", frames=np.zeros(3))
    with pytest.raises(DatasetError, match="event-frames"):
        read_labels(str(tmp_path / "frames.npz"))
    (tmp_path / "t.npy").write_text("text")
    with pytest.raises(DatasetError, match="plain numbers"):
        read_labels(str(tmp_path / "t.npy"), order_of(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    with pytest.raises(DatasetError, match="no labels there"):
        read_labels(str(tmp_path / "empty"))


def test_the_table_is_the_one_that_folders_read(tmp_path):
    """What is imported labels one's own copies of the videos: label, class, ranges."""
    classes = tmp_path / "video_label.pickle"
    classes.write_bytes(pickle.dumps({"Abuse028_x264": 1}))
    source = as_dictionary(tmp_path)
    root = tmp_path / "videos"
    root.mkdir()
    for name in VIDEOS:
        (root / f"{name}.mp4").touch()
    wanted = LabelImport(
        source=source,
        classes=str(classes),
        class_names=("Normal", "Abuse"),
        out=str(root / "labels.csv"),
    )
    rows = dict(import_labels(wanted))
    assert (rows["videos"], rows["frames"], rows["anomalous frames"]) == (2, 8, 3)
    found = {r.video_id: r for r in load("folder", str(root)).recordings}
    assert found["Abuse028_x264"].intervals == EXPECTED["Abuse028_x264"]
    assert (found["Abuse028_x264"].label, found["Abuse028_x264"].class_name) == (1, "Abuse")
    assert found["Normal_Videos_003_x264"].intervals == ()


def test_classes_outside_the_map_are_refused(tmp_path):
    """Of a class without a name, and of a video without labels."""
    path = tmp_path / "video_label.pickle"
    path.write_bytes(pickle.dumps({"Abuse028_x264": 5}))
    source = as_dictionary(tmp_path)
    wanted = LabelImport(
        source=source, classes=str(path), class_names=("Normal", "Abuse"), out=str(tmp_path / "o")
    )
    with pytest.raises(DatasetError, match=r"class 5, there are names for 2 classes \(0 to 1\)"):
        import_labels(wanted)
    path.write_bytes(pickle.dumps({"Other001": 1}))
    with pytest.raises(DatasetError, match="No frame labels of Other001"):
        import_labels(wanted)
    with pytest.raises(ConfigError, match="where the labels go"):
        import_labels(LabelImport(source=source))


@pytest.fixture
def store(tmp_path):
    """Features of two test recordings and one of training, 40 frames each."""
    store = FeatureStore.create(str(tmp_path / "store"))
    save_array(f"{tmp_path}/f.npy", np.ones((3, 2), dtype=np.float32))
    items = [
        FeatureFiles(
            recording=Recording(
                dataset="ds",
                video_id=name,
                url=f"{tmp_path}/f.npy",
                split=split,
                label=label,
                intervals=() if label == 0 else None,
            ),
            files=(f"{tmp_path}/f.npy",),
            num_frames=40,
        )
        for name, split, label in (("a", "test", 1), ("n", "test", 0), ("t", "train", 1))
    ]
    settings = ImportSettings(name="f", origin="made up", layout="rows", fps=Fraction(25))
    import_features(store, items, settings)
    return store


def into(store, tmp_path, content, **changes):
    path = tmp_path / "gt.pickle"
    path.write_bytes(pickle.dumps(content))
    wanted = LabelImport(source=str(path), store=store.url, dataset="ds", **changes)
    rows = dict(import_labels(wanted))
    opened = FeatureStore.open(store.url)
    return rows, {k[1]: r for k, r in opened.recordings_by_key().items()}


def labels(num_frames, *ranges):
    return frame_labels(ranges, num_frames).tolist()


def test_labels_reach_the_recordings_of_a_store(store, tmp_path):
    """Test ranges are set, a range past the features' end is clipped and counted, training ranges
    are withheld unless asked for.
    """
    content = {
        "a": labels(47, (3, 9), (38, 47)),
        "n": labels(40),
        "t": labels(40, (1, 2)),
        "elsewhere": [0],
    }
    rows, found = into(store, tmp_path, content)
    assert found["a"].intervals == ((3, 9), (38, 40))
    assert found["n"].intervals == ()
    assert found["t"].intervals is None
    assert (rows["ranges clipped at the end"], rows["training ranges withheld"]) == (1, 1)
    assert (rows["labelled in the store"], rows["not in the store"]) == (3, 1)
    rows, found = into(store, tmp_path, content, training=True)
    assert found["t"].intervals == ((1, 2),)


def test_labels_of_another_video_are_refused(store, tmp_path):
    """Another length, anomalous frames in a normal video, another data set."""
    with pytest.raises(AlignmentError, match="ds/a: 80 labels, its features cover 40"):
        into(store, tmp_path, {"a": labels(80)})
    with pytest.raises(DatasetError, match="ds/n: registered as normal"):
        into(store, tmp_path, {"n": labels(40, (1, 2))})
    with pytest.raises(DatasetError, match="none of the 1 labelled"):
        into(store, tmp_path, {"x": [0]})


@pytest.mark.media
@pytest.mark.parametrize(("name", "table"), [("ucf_crime_test", "ucf_crime")])
def test_real_ground_truth_is_read(media, name, table):
    """290 videos of UCF-Crime as PEL4VAD has them: the ranges are those of our own table."""
    found = read_labels(str(media / "features" / "ground_truth" / f"{name}.npz"))
    assert len(found) == 290
    assert sum(v.num_frames for v in found) == 1_109_680
    ours = {row.video_id: row for row in read_rows(table)}
    differing = [v.video_id for v in found if (v.label or 0) != ours[v.video_id].label]
    assert differing == []
