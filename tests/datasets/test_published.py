"""Published data sets: counts, conventions and split defects as their authors state them."""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from outspike.datasets import DATASETS, Manifest, load
from outspike.datasets.known import (
    AVENUE,
    MSAD,
    SHANGHAITECH,
    TAD,
    UCF_CRIME,
    UCF_CRIME_DVS,
    XD_VIOLENCE,
)
from outspike.datasets.published import Published, members
from outspike.datasets.tables import read_rows
from outspike.errors import ConfigError, DatasetError
from outspike.timebase import DVS_FPS, frame_labels

MakeFiles = Callable[[Iterable[str]], str]
ENDINGS = {"ucf_crime_dvs": ".raw", "shanghaitech": ".avi", "avenue": ".avi"}


def official_layout(known: Published, split: str = "official") -> list[str]:
    """Paths of every recording of a split, each in the first place its data set names."""
    ending = ENDINGS.get(known.name, ".mp4")
    places = [known.places(row)[0] for row, _ in members(known, split)]
    return ["/".join(filter(None, [place.parent, place.stem + ending])) for place in places]


def counts(manifest: Manifest) -> dict[tuple[str, int | None], int]:
    return dict(Counter((r.split, r.label) for r in manifest.recordings))


@pytest.mark.parametrize(
    ("known", "split", "expected"),
    [
        (UCF_CRIME, "official", (800, 810, 150, 140)),
        (UCF_CRIME_DVS, "official", (800, 810, 150, 140)),
        (XD_VIOLENCE, "official", (2049, 1905, 300, 500)),
        (XD_VIOLENCE, "as-trained", (2036, 1952, 300, 453)),
        (SHANGHAITECH, "official", (175, 63, 155, 44)),
        (SHANGHAITECH, "as-trained", (175, 65, 155, 42)),
        (MSAD, "official", (360, 119, 120, 121)),
        (TAD, "official", (210, 190, 40, 60)),
        (AVENUE, "official", (16, 0, 0, 21)),
        (AVENUE, "lad-reseeded", (8, 11, 8, 10)),
    ],
    ids=lambda value: value.name if isinstance(value, Published) else str(value),
)
def test_a_complete_download_gives_the_published_counts(
    make_files: MakeFiles, known: Published, split: str, expected: tuple[int, int, int, int]
) -> None:
    """Train normal, train anomalous, test normal, test anomalous; nothing is missing."""
    root = make_files(official_layout(known))
    manifest = load(known.name, root, split)
    keys = [("train", 0), ("train", 1), ("test", 0), ("test", 1)]
    assert tuple(counts(manifest).get(key, 0) for key in keys) == expected
    assert manifest.require_complete().missing == ()
    assert {r.dataset for r in manifest.recordings} == {known.name}


def test_what_is_missing_is_counted_and_named(make_files: MakeFiles) -> None:
    """An incomplete download loads what is there and says what is not."""
    paths = official_layout(MSAD)
    manifest = load("msad", make_files(paths[3:]))
    assert len(manifest.recordings) == 717
    assert manifest.missing == ("Assault_1", "Assault_3", "Assault_5")
    with pytest.raises(DatasetError, match=r"3 of 720 .* Assault_1, Assault_3, Assault_5"):
        manifest.require_complete()


def test_nothing_found_names_the_expected_layout(make_files: MakeFiles) -> None:
    """A wrong root is one clear line."""
    root = make_files(["holiday/beach.mp4"])
    with pytest.raises(DatasetError, match=r"none of the 1900 recordings of ucf_crime .*<Class>"):
        load("ucf_crime", root)


def test_folders_around_the_layout_do_not_matter(make_files: MakeFiles) -> None:
    """Downloads come in parts; a class folder is found at any depth."""
    paths = [f"Anomaly-Videos-Part-{i % 4}/{p}" for i, p in enumerate(official_layout(UCF_CRIME))]
    assert load("ucf_crime", make_files(paths)).missing == ()


def test_the_same_file_twice_is_refused(make_files: MakeFiles) -> None:
    """Two candidates are a question for the user, not a choice made in silence."""
    root = make_files(["a/Abuse/Abuse001_x264.mp4", "b/Abuse/Abuse001_x264.mp4"])
    with pytest.raises(DatasetError, match="Abuse001_x264: found 2 times"):
        load("ucf_crime", root)


def test_unknown_names_list_the_known_ones() -> None:
    """A misspelt data set or split says what there is."""
    with pytest.raises(ConfigError, match=r"'ucf'; known: .*ucf_crime"):
        load("ucf", ".")
    with pytest.raises(ConfigError, match="official, as-trained"):
        load("shanghaitech", ".", "as_trained")


def test_ucf_ranges_end_inside_their_video() -> None:
    """The five annotated ends past the video are clipped; all others are as annotated."""
    rows = {row.video_id: row for row in read_rows("ucf_crime")}
    test = [row for row in rows.values() if row.split == "test"]
    assert sum(row.num_frames or 0 for row in test) == 1_111_808
    for row in test:
        assert row.num_frames is not None
        frame_labels(row.intervals, row.num_frames)
        assert (row.label == 1) == bool(row.intervals)
    assert rows["Arson011_x264"].intervals == ((150, 420), (680, 1266))
    assert rows["Explosion033_x264"].intervals[-1][1] == 3154
    assert sum(len(row.intervals) for row in test) == 156


def test_ucf_frame_labels_have_the_derived_totals() -> None:
    """With the published tail rule: 1,109,792 frame labels, 84,160 of them anomalous."""
    from outspike.timebase import SnippetGrid

    grid = SnippetGrid(tail="ief_vad_2025")
    total = positive = 0
    for row in read_rows("ucf_crime"):
        if row.split == "test":
            kept = 16 * grid.num_snippets(row.num_frames or 0)
            total += kept
            positive += int(frame_labels(row.intervals, row.num_frames or 0)[:kept].sum())
    assert (total, positive) == (1_109_792, 84_160)


def test_xd_as_trained_has_the_derived_totals() -> None:
    """With the published tail rule: 2,242,112 frame labels, 500,294 of them violent."""
    from outspike.timebase import SnippetGrid

    grid = SnippetGrid(tail="ief_vad_2025")
    total = positive = 0
    for row, part in members(XD_VIOLENCE, "as-trained"):
        if part == "test":
            kept = 16 * grid.num_snippets(row.num_frames or 0)
            total += kept
            positive += int(frame_labels(row.intervals, row.num_frames or 0)[:kept].sum())
    assert (total, positive) == (2_242_112, 500_294)


def test_xd_split_defect_is_carried_as_data(make_files: MakeFiles) -> None:
    """47 multi-class test videos are trained on as trained; the manifest says so."""
    root = make_files(official_layout(XD_VIOLENCE))
    official, trained = load("xd_violence", root), load("xd_violence", root, "as-trained")
    moved = {r.key for r in official.part("test")} & {r.key for r in trained.part("train")}
    assert len(moved) == 47
    assert len(official.recordings) - len(trained.recordings) == 13
    assert any("47" in warning for warning in trained.warnings)
    assert not any("47" in warning for warning in official.warnings)


def test_shanghaitech_ends_are_inclusive_in_the_source(make_files: MakeFiles) -> None:
    """The last annotated frame is anomalous officially, and lost only as trained."""
    root = make_files(official_layout(SHANGHAITECH))
    official = {r.video_id: r for r in load("shanghaitech", root).recordings}
    trained = {r.video_id: r for r in load("shanghaitech", root, "as-trained").recordings}
    assert official["01_0015"].intervals == ((86, 374),)
    assert trained["01_0015"].intervals == ((86, 373),)
    assert (330, 331) in (official["01_0028"].intervals or ())
    assert (330, 330) not in (trained["01_0028"].intervals or ())
    assert {v for v in trained if trained[v].split != official[v].split} == {"04_0012", "05_0023"}


def test_tad_normal_videos_have_no_anomalous_frame(make_files: MakeFiles) -> None:
    """The sentinel frames of the published dictionary are gone; 6,276 frames are anomalous."""
    manifest = load("tad", make_files(official_layout(TAD)))
    test = manifest.part("test")
    assert all(r.intervals == () for r in test if r.label == 0)
    assert sum(stop - start for r in test for start, stop in r.intervals or ()) == 6276
    assert sum(len(r.intervals or ()) for r in test) == 69
    unannotated = {r.video_id for r in test if r.label == 1 and not r.intervals}
    assert unannotated == {"05_else_038", "06_PedestrianOnRoad_027"}


def test_weak_training_recordings_withhold_frame_ranges(make_files: MakeFiles) -> None:
    """An anomalous training recording of a weak split carries its video-level label only."""
    for known in (UCF_CRIME, MSAD):
        train = load(known.name, make_files(official_layout(known))).part("train")
        assert all(r.intervals == (() if r.label == 0 else None) for r in train)


def test_event_recordings_know_their_clock_and_sensor(make_files: MakeFiles) -> None:
    """UCF-Crime-DVS files tell neither frame rate nor size, so the manifest does."""
    manifest = load("ucf_crime_dvs", make_files(official_layout(UCF_CRIME_DVS)))
    first = manifest.recordings[0]
    assert (first.modality, first.fps, first.size) == ("events", DVS_FPS, (1280, 720))
    assert first.url.endswith("extract/UCF_Crime_DVS/Abuse001_x264.raw")


def test_dvs_npz_layout_is_found_by_class_number(make_files: MakeFiles) -> None:
    """The converted layout names folders by class number."""
    root = make_files(
        ["events_np/test/0/Abuse028_x264.npz", "events_np/train/7/Normal_Videos001_x264.npz"]
    )
    found = {r.video_id for r in load("ucf_crime_dvs", root).recordings}
    assert found == {"Abuse028_x264", "Normal_Videos001_x264"}


@pytest.mark.parametrize(("split", "generated"), [("ucfg1", (297, 299)), ("ucfg2", (116, 187))])
def test_generated_list_has_the_published_composition(
    make_files: MakeFiles, split: str, generated: tuple[int, int]
) -> None:
    """Real training videos plus generated ones, flagged; no generated clip in the test part."""
    clips = [f"GeneratedVideos/{i}.mp4" for i in range(1, 601)]
    manifest = load("ucf_generated", make_files(official_layout(UCF_CRIME) + clips), split)
    train = manifest.part("train")
    synthetic = Counter(r.label for r in train if r.synthetic)
    assert (synthetic[1], synthetic[0]) == generated
    assert len(train) == 1610 + sum(generated)
    assert len(manifest.part("test")) == 290
    assert not any(r.synthetic for r in manifest.part("test"))
    assert {r.dataset for r in train} == {"ucf_crime", "gv_vad"}


def test_every_data_set_is_listed_with_its_splits() -> None:
    """The listing names the default split first."""
    for name, source in DATASETS.items():
        assert source.splits, name
        assert source.summary[0] != " ", name


def test_the_same_recordings_are_found_on_s3(s3_bucket: str) -> None:
    """A prefix of a bucket serves as a folder does, ids with # and = included."""
    from outspike import urls

    paths = official_layout(XD_VIOLENCE)[:20] + official_layout(XD_VIOLENCE)[-3:]
    for path in paths:
        urls.write_bytes(urls.join(s3_bucket, "raw", path), b"x")
    manifest = load("xd_violence", f"{s3_bucket}/raw/")
    assert len(manifest.recordings) == 23
    assert all(urls.stat(r.url).size == 1 for r in manifest.recordings)
