"""Feature lists published with GV-VAD, read into explicit columns (``gv_vad_ssls.md`` section 1.2).

A list has one feature path a line. The label is a matter of position (the first so many lines are
anomalous) and generated clips are told by words in their paths. Both become fields here, so that
nothing further on looks at a path again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from outspike.errors import DatasetError

#: Anomalous lines at the head of each published training list.
NUM_ANOMALOUS = {
    "ucf": 810,
    "ucfg1": 1107,
    "ucfg2": 926,
    "shanghai": 63,
    "violence": 1904,
    "tad": 190,
    "ped2": 6,
    "TE2": 23,
}
_GENERATED = ("description", "GeneratedVideos")
_ENDINGS = ("_clip", "_videomae")


@dataclass(frozen=True, kw_only=True)
class ListedFeature:
    """One line of a published list."""

    path: str
    stem: str
    """File name without its ending, as the published code calls the video."""
    text_name: str
    """File of the caption embeddings that belong to it."""
    label: int
    synthetic: bool

    @property
    def label_key(self) -> str:
        """Name of the video in the published label dictionaries (TAD's add ``.mp4``)."""
        return label_key(self.stem)


def read_list(lines: Sequence[str], num_anomalous: int) -> list[ListedFeature]:
    """Lines of a training list, the first ``num_anomalous`` of them anomalous.

    Raises:
        DatasetError: a line that names no ``.npy`` file, or fewer lines than anomalous ones.
    """
    paths = [line.strip() for line in lines if line.strip()]
    if not 0 <= num_anomalous <= len(paths):
        raise DatasetError(
            f"{num_anomalous} anomalous lines of {len(paths)}: this is another list; the published "
            f"ones begin with {NUM_ANOMALOUS}."
        )
    return [_feature(path, int(row < num_anomalous)) for row, path in enumerate(paths)]


def label_key(stem: str) -> str:
    """Name of a video in the published label dictionaries, from that of its feature file."""
    key = stem.replace("_large", "")
    for ending in _ENDINGS:
        key = key.removesuffix(ending)
    return key


def _feature(path: str, label: int) -> ListedFeature:
    name = PurePosixPath(path)
    if name.suffix != ".npy":
        raise DatasetError(f"{path}: a feature list names .npy files, one a line.")
    return ListedFeature(
        path=path,
        stem=name.stem,
        text_name=name.stem.removesuffix("_clip") + "_emb.npy",
        label=label,
        synthetic=any(word in path for word in _GENERATED),
    )
