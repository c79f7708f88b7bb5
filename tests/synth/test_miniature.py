"""Promises of outspike.synth.miniature: a seeded, labelled, learnable data set in seconds."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest

from outspike.errors import ConfigError, DatasetError
from outspike.synth.miniature import generate, load_labels
from outspike.synth.plan import Scene, Settings, Studio, scenes
from outspike.synth.stories import STORIES
from outspike.video.decode import decode
from outspike.video.probe import probe

SMALL = {"train": 2, "test": 2, "events": 2, "unseen": 1, "synthetic": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    return root, generate(root, seed=3, **SMALL)


def contents(root):
    return {p.name: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_report_counts_what_is_there(small):
    root, report = small
    assert (report.num_videos, report.num_event_recordings, report.num_unseen) == (6, 2, 1)
    assert report.num_written == 9
    assert not report.already_complete
    assert len(list((root / "videos").glob("*.mp4"))) == 6
    assert len(list((root / "events").glob("*.raw"))) == 2
    assert len(list((root / "unseen").glob("*.mp4"))) == 1


def test_a_second_call_finds_it_complete(small):
    """Nothing is written twice, and the report says so."""
    root, _ = small
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = generate(root, seed=3, **SMALL)
    assert again.already_complete
    assert again.num_written == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_interrupted_call_is_taken_up_where_it_stopped(small, tmp_path):
    """Only what is missing is written, and the result equals an uninterrupted run."""
    root, _ = small
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "videos" / "train_001.mp4").unlink()
    (tmp_path / "labels.csv").unlink()
    state = json.loads((tmp_path / "miniature.json").read_text())
    del state["files"]
    (tmp_path / "miniature.json").write_text(json.dumps(state))
    report = generate(tmp_path, seed=3, **SMALL)
    assert report.num_written == 1
    assert contents(tmp_path) == contents(root)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    root, _ = small
    generate(tmp_path / "same", seed=3, **SMALL)
    generate(tmp_path / "other", seed=4, **SMALL)
    assert contents(tmp_path / "same") == contents(root)
    other = contents(tmp_path / "other")
    assert all(other[name] != data for name, data in contents(root).items())


def test_a_folder_of_other_settings_is_not_overwritten(small):
    root, _ = small
    with pytest.raises(ConfigError, match="seed"):
        generate(root, seed=4, **SMALL)


def test_labels_describe_the_files_frame_by_frame(small):
    """Every row's file decodes to the frames, rate and size that its row states."""
    root, _ = small
    recordings = load_labels(str(root))
    assert len({r.video_id for r in recordings}) == len(recordings) == 8
    for recording in (r for r in recordings if r.modality == "video"):
        num_frames = sum(len(chunk.frames) for chunk in decode(recording.url))
        info = probe(recording.url)
        assert num_frames == info.header_frames
        assert recording.label == int(recording.class_name != "Normal") == len(recording.intervals)
        for start, stop in recording.intervals:
            assert 0 < start < stop < num_frames
            assert stop - start >= 32


def test_splits_hold_both_labels_and_generated_clips_train_only(small):
    root, _ = small
    recordings = load_labels(str(root))
    for split in ("train", "test"):
        real = [r for r in recordings if r.split == split and not r.synthetic]
        assert {r.label for r in real if r.modality == "video"} == {0, 1}
    generated = [r for r in recordings if r.synthetic]
    assert [r.split for r in generated] == ["train", "train"]
    assert {r.label for r in generated} == {0, 1}


def test_a_scene_and_its_event_recording_share_group_label_and_intervals(small):
    """Cross-validation never separates the two recordings of one scene."""
    root, _ = small
    recordings = {r.video_id: r for r in load_labels(str(root))}
    events = [r for r in recordings.values() if r.modality == "events"]
    assert {r.label for r in events} == {0, 1}
    for recording in events:
        video = recordings[recording.video_id.removesuffix("_dvs")]
        assert (recording.group, recording.label, recording.intervals, recording.split) == (
            video.group,
            video.label,
            video.intervals,
            video.split,
        )
        assert recording.size == (160, 120)
        assert recording.fps == probe(video.url).fps


def test_unseen_videos_are_in_no_split(small):
    root, _ = small
    (unseen,) = load_labels(str(root), "unseen.csv")
    assert unseen.split == "predict"
    assert unseen.video_id not in {r.video_id for r in load_labels(str(root))}


def test_a_table_without_a_column_is_refused_by_name(small, tmp_path):
    root, _ = small
    lines = (root / "labels.csv").read_text().replace("intervals", "spans", 1)
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(DatasetError, match="intervals"):
        load_labels(str(tmp_path))


def test_the_default_set_has_every_kind_of_anomaly_in_both_splits():
    """Forty videos, half of them anomalous, and event recordings of both labels in both splits."""
    settings = Settings(seed=0, train=32, test=24, events=10, unseen=2, synthetic=0)
    planned = scenes(settings)
    for split, count in (("train", 32), ("test", 24)):
        of_split = [scene for scene in planned if scene.split == split]
        assert len(of_split) == count
        assert sum(scene.class_name == "Normal" for scene in of_split) == count // 2
        assert {scene.class_name for scene in of_split} == set(STORIES)
        recorded = [scene.class_name == "Normal" for scene in of_split if scene.with_events]
        assert set(recorded) == {True, False}
    assert sum(scene.with_events for scene in planned) == 10
    assert min(scene.num_frames for scene in planned) > 150


@pytest.mark.parametrize("class_name", sorted(set(STORIES) - {"Normal"}))
@pytest.mark.parametrize("seed", range(4))
def test_something_happens_in_the_annotated_frames(class_name, seed):
    """The picture differs from the same scene without its anomaly in the annotated frames only."""
    settings = Settings(seed=seed, train=2, test=2, events=0, unseen=0, synthetic=0)
    studio = Studio(settings)
    scene = Scene(
        key=(0, 1),
        name="scene",
        split="train",
        class_name=class_name,
        synthetic=False,
        num_frames=200,
        fps=Fraction(25),
        with_events=False,
    )
    story = studio.story(scene)
    ((start, stop),) = story.intervals
    traffic = len([a for a in story.actors if any(a.place(f) for f in range(-60, start))])
    assert traffic > 0
    only_inside = [
        actor
        for actor in story.actors
        if any(actor.place(f) for f in range(start, stop))
        and not any(actor.place(f) for f in (*range(-90, start - 60), *range(stop, 200)))
    ]
    assert only_inside
    busy = [f for f in range(200) if any(actor.place(f) for actor in only_inside)]
    assert start <= busy[len(busy) // 2] < stop


def test_video_frames_carry_noise_and_generated_ones_hardly_any():
    settings = Settings(seed=0, train=2, test=2, events=0, unseen=0, synthetic=2)
    studio = Studio(settings)
    real = next(s for s in scenes(settings) if not s.synthetic)
    generated = next(s for s in scenes(settings) if s.synthetic)

    def flicker(scene):
        frames = studio.video_frames(scene)
        first, second = next(frames).astype(float), next(frames).astype(float)
        return np.median(np.abs(second - first))

    assert flicker(real) >= 1
    assert flicker(generated) <= 1


def test_counts_that_make_no_data_set_are_refused():
    with pytest.raises(ConfigError, match="train"):
        Settings(seed=0, train=1, test=2, events=0, unseen=0, synthetic=0)
    with pytest.raises(ConfigError, match="events=5"):
        Settings(seed=0, train=2, test=2, events=5, unseen=0, synthetic=0)
