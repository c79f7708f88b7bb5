"""UCSD Ped2: a fixed camera over a walkway; bicycles, skateboards and carts are anomalous.

Clips are looked for as ``train/NN.mp4`` and ``test/NN.mp4``, or under their full names
(``Train001.mp4``, ``Test004.avi``). The official download holds folders of TIFF frames, which
:func:`outspike.datasets.frames.pack_folders` packs into such clips first.
"""

from outspike.datasets.files import FileTree, Place, read_table
from outspike.datasets.frame_labels import to_intervals
from outspike.datasets.manifest import Manifest, some_names
from outspike.datasets.published import Published, load_published
from outspike.datasets.tables import Row, read_rows
from outspike.errors import DatasetError

_LABELS = "frame_labels.csv"


def _places(row: Row) -> tuple[Place, ...]:
    part, number = row.video_id[:-3].lower(), row.video_id[-2:]
    return Place(row.video_id), Place(number, part)


UCSD_PED2 = Published(
    name="ucsd_ped2",
    table="ucsd_ped2",
    layout=(
        "ROOT/train/01.mp4 .. 16.mp4 and ROOT/test/01.mp4 .. 12.mp4, or Train001.mp4 and so on as "
        "outspike.datasets.frames.pack_folders makes them from the official folders of frames"
    ),
    places=_places,
    supervised=frozenset({"lad-reseeded", "full-a"}),
    warnings=(
        "Test clips 08, 09, 10 and 11 are anomalous throughout: pool frames over clips, a per-clip "
        "AUC is undefined for them.",
    ),
    split_warnings={
        "lad-reseeded": (
            "The LAD paper drew 6+8 training and 6+8 test clips at random and published no list; "
            "this one was drawn once for this package, so its figures are not the paper's.",
        ),
        "full-a": (
            "The clips of weak-a, with the frame labels of the four anomalous training clips: its "
            "figures do not compare with those of weakly supervised training.",
        ),
    },
)


def load(root: str, split: str) -> Manifest:
    """Clips of one split.

    ``official`` trains on sixteen normal clips and tests on twelve anomalous ones; the weak splits
    put anomalous clips into training under a video-level label, and ``full-a`` and ``lad-reseeded``
    with their frame labels. ``frame_labels.csv`` under the
    root, where present, must agree with the annotation that the package carries.

    Raises:
        DatasetError: no clip is there, or ``frame_labels.csv`` contradicts the annotation.
    """
    tree = FileTree.scan(root)
    if _LABELS in tree.urls:
        _check_frame_labels(tree.urls[_LABELS])
    return load_published(UCSD_PED2, tree, split)


def _check_frame_labels(url: str) -> None:
    published = {row.video_id: row.intervals for row in read_rows("ucsd_ped2")}
    found: dict[str, list[int]] = {}
    for line in read_table(url, ["clip", "frame", "label"]):
        labels = found.setdefault(f"Test{int(line['clip']):03d}", [])
        if int(line["frame"]) != len(labels):
            raise DatasetError(
                f"{url}: clip {line['clip']} has frame {line['frame']} where {len(labels)} was due."
            )
        labels.append(int(line["label"]))
    wrong = [name for name, labels in found.items() if to_intervals(labels) != published.get(name)]
    if wrong:
        raise DatasetError(
            f"{url}: labels of {some_names(wrong)} differ from the published ranges; restore the "
            "file, or remove it to use the ranges that the package carries."
        )
