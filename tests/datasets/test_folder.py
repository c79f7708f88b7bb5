"""Anyone's own folder: labels from folders or from a table, and clear words about what is wrong."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import pytest

from outspike.datasets import load
from outspike.errors import DatasetError
from outspike.recording import Recording
from outspike.timebase import DVS_FPS

MakeFiles = Callable[[Iterable[str]], str]


def by_id(root: str) -> dict[str, Recording]:
    return {r.video_id: r for r in load("folder", root).recordings}


def table(root: str, text: str) -> None:
    (Path(root) / "labels.csv").write_text(text)


def test_a_flat_folder_is_to_be_scored(make_files: MakeFiles) -> None:
    """Without labels every video and event file is a recording of unknown label."""
    found = by_id(make_files(["a.mp4", "b.MKV", "c.raw", "notes.txt", "cam/d.avi"]))
    assert set(found) == {"a", "b", "c", "cam/d"}
    assert all((r.label, r.split) == (None, "predict") for r in found.values())
    assert (found["c"].modality, found["c"].fps) == ("events", DVS_FPS)


def test_equal_names_in_two_folders_stay_apart(make_files: MakeFiles) -> None:
    """An id is the path under the root, not the base name alone."""
    assert set(by_id(make_files(["mon/door.mp4", "tue/door.mp4"]))) == {"mon/door", "tue/door"}


def test_a_folder_called_normal_makes_folders_the_classes(make_files: MakeFiles) -> None:
    """Class folders label their videos; only a folder "normal" turns that on."""
    found = by_id(make_files(["normal/a.mp4", "theft/b.mp4", "loose.mp4"]))
    assert (found["normal/a"].label, found["normal/a"].intervals) == (0, ())
    assert (found["theft/b"].label, found["theft/b"].class_name) == (1, "theft")
    assert (found["loose"].label, found["loose"].split) == (None, "predict")
    assert found["theft/b"].split == "train"


def test_split_folders_come_first(make_files: MakeFiles) -> None:
    """train/ and test/ divide what their class folders label."""
    found = by_id(make_files(["train/Normal/a.mp4", "test/Normal/a.mp4", "test/fire/b.mp4"]))
    assert found["train/Normal/a"].split == "train"
    assert (found["test/fire/b"].split, found["test/fire/b"].label) == ("test", 1)


def test_a_table_labels_recordings(make_files: MakeFiles) -> None:
    """Every column of labels.csv reaches the recording."""
    root = make_files(["a.mp4", "e.raw", "x.mp4"])
    table(
        root,
        "video_id,label,class,split,intervals,group,fps,width,height\n"
        "a,1,theft,test,10:50;80:90,cam1,,,\n"
        "e,0,,train,,cam2,30000/1001,640,480\n",
    )
    found = by_id(root)
    a, e = found["a"], found["e"]
    assert (a.label, a.class_name, a.split, a.group) == (1, "theft", "test", "cam1")
    assert a.intervals == ((10, 50), (80, 90))
    assert (e.fps, e.size, e.intervals) == (Fraction(30000, 1001), (640, 480), ())
    assert found["x"].label is None
    assert "x" in load("folder", root).warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,label\nb,1\n", r"1 listed videos have no file .*: b"),
        ("video_id,label\na,1\na,0\n", r"line 3 \('a'\): this video is listed twice"),
        ("video_id,label\na,yes\n", r"line 2 \('a'\): label 'yes'"),
        ("video_id,label,intervals\na,1,9-12\n", r"interval '9-12'; expected START:STOP"),
        ("video_id,label,intervals\na,1,12:12\n", "'12:12' is empty or negative"),
        ("video_id,label,intervals\na,0,1:2\n", "its label must be 1"),
        ("video_id,split\na,validation\n", "split 'validation'; expected one of train, test"),
        ("video_id,fps\na,fast\n", "fps 'fast'"),
        ("video_id,fps\na,0\n", "must be positive"),
        ("video_id,width\na,640\n", "width '640', height ''"),
        ("name,label\na,1\n", "no column video_id; the first line has name, label"),
        ("", "no column video_id; the first line has nothing"),
        ("video_id,label\na\n", "line 2 has another number of fields"),
        ("video_id,label\na,1,2\n", "line 2 has another number of fields"),
    ],
)
def test_a_wrong_table_is_one_clear_line(make_files: MakeFiles, text: str, message: str) -> None:
    """The message names the table, the line and the cause."""
    root = make_files(["a.mp4"])
    table(root, text)
    with pytest.raises(DatasetError, match=message) as caught:
        load("folder", root)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_text_is_named(make_files: MakeFiles) -> None:
    """Binary rubbish in place of the table is a clear error."""
    root = make_files(["a.mp4"])
    (Path(root) / "labels.csv").write_bytes(b"\xff\xfe\x00video")
    with pytest.raises(DatasetError, match="not a UTF-8 text table"):
        load("folder", root)


def test_two_files_of_one_id_are_refused(make_files: MakeFiles) -> None:
    """a.mp4 beside a.raw would share an id."""
    with pytest.raises(DatasetError, match=r"a\.mp4 and a\.raw would share the id 'a'"):
        load("folder", make_files(["a.mp4", "a.raw"]))


def test_a_root_without_recordings_says_so(make_files: MakeFiles, tmp_path: Path) -> None:
    """An absent folder, an empty one, and one of other files are three different messages."""
    with pytest.raises(DatasetError, match="no such folder"):
        load("folder", str(tmp_path / "absent"))
    with pytest.raises(DatasetError, match="no files there"):
        load("folder", str(tmp_path))
    with pytest.raises(DatasetError, match="1 files, none of them a video or event recording"):
        load("folder", make_files(["readme.txt"]))


def test_one_file_is_a_folder_of_one(make_files: MakeFiles) -> None:
    """The root may be the recording itself."""
    found = by_id(make_files(["clips/a.mp4"]) + "/clips/a.mp4")
    assert set(found) == {"a"}
    assert found["a"].url.endswith("/clips/a.mp4")


def test_local_addresses_are_absolute(
    make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative root means the same file in a worker with another working directory."""
    monkeypatch.chdir(make_files(["clips/a.mp4"]))
    assert Path(by_id("clips")["a"].url).is_absolute()
