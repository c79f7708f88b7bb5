"""CUHK Avenue: sixteen normal training videos, twenty-one test videos with pixel labels.

The published labels are MATLAB files and no part of this package. Where the download's
``testing_label_mask/<n>_label.mat`` lies under the root, its frames become the annotation.
"""

from dataclasses import replace

from outspike.datasets.files import FileIndex, FileTree, Place
from outspike.datasets.frame_labels import read_mat
from outspike.datasets.known import AVENUE
from outspike.datasets.manifest import Manifest, some_names
from outspike.datasets.published import load_published
from outspike.recording import Recording


def load(root: str, split: str) -> Manifest:
    """Videos of one split, with frame ranges where label files were found.

    Raises:
        DatasetError: no video is there, or a label file cannot be read.
    """
    tree = FileTree.scan(root)
    manifest = load_published(AVENUE, tree, split)
    labels = tree.index([".mat"])
    recordings = tuple(_annotated(recording, labels) for recording in manifest.recordings)
    bare = [r.video_id for r in recordings if r.split == "test" and r.intervals is None]
    warnings = manifest.warnings
    if bare:
        warnings += (
            f"No frame labels for {len(bare)} test videos ({some_names(bare)}); frame metrics need "
            "ROOT/testing_label_mask/<n>_label.mat.",
        )
    return replace(manifest, recordings=recordings, warnings=warnings)


def _annotated(recording: Recording, labels: FileIndex) -> Recording:
    if recording.label == 0:
        return recording
    number = int(recording.video_id[-2:])
    url = labels.find(
        [Place(f"{number}_label"), Place(f"{number:02d}_label"), Place(f"Test{number:02d}")]
    )
    return replace(recording, intervals=read_mat(url)) if url else recording
