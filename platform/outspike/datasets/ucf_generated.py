"""UCF-Crime with generated clips in its training part, as the GV-VAD lists have it.

``ucfg1`` admits 596 generated clips, ``ucfg2`` the 303 that its authors kept by hand. Real videos
keep the data set name ``ucf_crime`` and clips ``gv_vad``, so that features extracted for either are
used here and not computed again. The test part is UCF-Crime's and holds no generated clip.
"""

from collections.abc import Iterator

from outspike.datasets.files import VIDEO_SUFFIXES, FileIndex, FileTree, Place
from outspike.datasets.gv_vad import generated
from outspike.datasets.known import UCF_CRIME
from outspike.datasets.manifest import Manifest
from outspike.datasets.published import match, warnings_of
from outspike.datasets.tables import read_fields
from outspike.errors import DatasetError
from outspike.recording import Recording

_COLUMNS = ("id", "label", "ucfg1", "ucfg2")


def load(root: str, split: str) -> Manifest:
    """Real and generated videos under ``root``; clips may lie anywhere below it.

    A clip is called by its number (``2.mp4`` in a folder ``GeneratedVideos``), ``gen_2.mp4``, or
    as the public samples are (``gen_002_abnormal.mp4``).
    """
    index = FileTree.scan(root).index(VIDEO_SUFFIXES)
    recordings, missing = match(UCF_CRIME, index, "official")
    for clip_id, found in _clips(index, split):
        if found is None:
            missing.append(f"gen_{clip_id}")
        else:
            recordings.append(found)
    if not recordings:
        raise DatasetError(
            f"{root}: found none of the {len(missing)} listed videos; expected "
            f"{UCF_CRIME.layout}, and ROOT/GeneratedVideos/<number>.mp4."
        )
    return Manifest(
        name="ucf_generated",
        split=split,
        recordings=tuple(recordings),
        missing=tuple(missing),
        warnings=(
            *warnings_of(UCF_CRIME, "official"),
            "Clips 270, 275, 288 and 551 of the 600 generated ones are in neither published list.",
        ),
    )


def _clips(index: FileIndex, split: str) -> Iterator[tuple[str, Recording | None]]:
    for row in read_fields("ucf_crime_generated", _COLUMNS):
        if row[split] == "1":
            label = int(row["label"])
            url = index.find(_places(int(row["id"]), label))
            yield row["id"], generated(row["id"], url, label) if url else None


def _places(number: int, label: int) -> tuple[Place, ...]:
    word = "abnormal" if label else "normal"
    return (
        Place(str(number), "GeneratedVideos"),
        Place(f"gen_{number}"),
        Place(f"gen_{number:03d}_{word}"),
    )
