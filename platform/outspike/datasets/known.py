"""What is known of the published surveillance data sets: layouts, conventions, split defects."""

from outspike.datasets.files import EVENT_SUFFIXES, Place
from outspike.datasets.frame_labels import Intervals
from outspike.datasets.published import Published
from outspike.datasets.tables import Row
from outspike.timebase import DVS_FPS

_UCF_NORMAL = (
    "Normal",
    "Training_Normal_Videos_Anomaly",
    "Testing_Normal_Videos_Anomaly",
)

#: Class numbers of UCF-Crime-DVS, which name its folders.
DVS_CLASSES = (
    "Abuse",
    "Arrest",
    "Arson",
    "Assault",
    "Burglary",
    "Explosion",
    "Fighting",
    "Normal",
    "RoadAccidents",
    "Robbery",
    "Shooting",
    "Shoplifting",
    "Stealing",
    "Vandalism",
)

_UCF_CLIPPED = (
    "Five annotated ranges end 1 or 2 frames past their video (Arson011, Arson016, Explosion033, "
    "Fighting003, Shooting015); they are clipped to it."
)


def _ucf_places(row: Row) -> tuple[Place, ...]:
    folders = _UCF_NORMAL if row.label == 0 else (row.class_name,)
    return (*(Place(row.video_id, folder) for folder in folders), Place(row.video_id))


def _dvs_places(row: Row) -> tuple[Place, ...]:
    number = DVS_CLASSES.index(row.class_name)
    return (
        Place(row.video_id, "extract/UCF_Crime_DVS"),
        Place(row.video_id, f"events_np/{row.split}/{number}"),
        Place(row.video_id),
    )


def _avenue_places(row: Row) -> tuple[Place, ...]:
    number = row.video_id[-2:]
    part = "training_videos" if row.label == 0 else "testing_videos"
    return Place(number, part), Place(row.video_id)


def _tad_places(row: Row) -> tuple[Place, ...]:
    folder = "abnormal" if row.label else "normal"
    return Place(row.video_id, folder), Place(row.video_id)


def _paint_without_last(intervals: Intervals) -> Intervals:
    """Inclusive ends painted as if they were half-open: every range loses its last frame."""
    return tuple((start, stop - 1) for start, stop in intervals if stop - 1 > start)


UCF_CRIME = Published(
    name="ucf_crime",
    table="ucf_crime",
    layout="ROOT/<Class>/<id>.mp4, normal videos in ROOT/Normal",
    places=_ucf_places,
    warnings=(_UCF_CLIPPED,),
)

UCF_CRIME_DVS = Published(
    name="ucf_crime_dvs",
    table="ucf_crime",
    layout=(
        "ROOT/extract/UCF_Crime_DVS/<id>.raw or ROOT/events_np/{train,test}/<class number>/<id>.npz"
    ),
    places=_dvs_places,
    suffixes=EVENT_SUFFIXES,
    modality="events",
    fps=DVS_FPS,
    size=(1280, 720),
    warnings=(
        _UCF_CLIPPED,
        "Frame ranges are those of the UCF-Crime videos. Recordings were filmed from a monitor, "
        "so events and frames agree only as well as the recording's start trigger did.",
    ),
)

XD_VIOLENCE = Published(
    name="xd_violence",
    table="xd_violence",
    layout="ROOT/<id>.mp4, in one folder",
    places=lambda row: (Place(row.video_id),),
    warnings=(
        "Frame ranges of 5 videos differ slightly between two public annotation lists; "
        "the single-class list is used for videos of one class.",
    ),
    split_warnings={
        "as-trained": (
            "The 47 test videos with more than one class are in training here and absent from the "
            "test part (753 of 800), and 13 official training videos are absent: for reproducing "
            "published figures only; split 'official' is the honest one.",
        )
    },
)

SHANGHAITECH = Published(
    name="shanghaitech",
    table="shanghaitech",
    layout="ROOT/<class>/<id>.avi, normal videos in ROOT/normal",
    painted={"as-trained": _paint_without_last},
    split_warnings={
        "as-trained": (
            "Test videos 04_0012 and 05_0023 are in training here: for reproducing published "
            "figures only; split 'official' is the honest one.",
            "Inclusive range ends are painted half-open here, as published: each range lacks its "
            "last frame, and the two ranges of a single frame (01_0028, 08_0077) vanish.",
        )
    },
)

MSAD = Published(
    name="msad",
    table="msad",
    layout="ROOT/<Class>/<id>.mp4, normal videos in ROOT/Normal",
    warnings=(
        "Explosion_3 is anomalous in frames 91 to 93 only, at its very end: a grid that drops the "
        "tail leaves it without a positive frame.",
    ),
)

TAD = Published(
    name="tad",
    table="tad",
    layout="ROOT/abnormal/<id>.mp4 and ROOT/normal/<id>.mp4",
    places=_tad_places,
    warnings=(
        "The published label dictionary marks one frame of each of the 40 normal test videos (the "
        "last but one) as anomalous by mistake; here they have none, so published figures on TAD "
        "are not met exactly.",
        "05_else_038 and 06_PedestrianOnRoad_027 are anomalous test videos without an annotated "
        "frame.",
    ),
)

AVENUE = Published(
    name="avenue",
    table="avenue",
    layout="ROOT/training_videos/01.avi .. 16.avi and ROOT/testing_videos/01.avi .. 21.avi",
    places=_avenue_places,
    annotated=False,
    supervised=frozenset({"lad-reseeded"}),
    split_warnings={
        "lad-reseeded": (
            "The LAD paper drew 11+8 training and 10+8 test videos at random and published no "
            "list; this one was drawn once for this package, so its figures are not the paper's.",
        ),
    },
)
