"""Surveillance Camera Fight: CCTV clips of about two seconds with a label per clip.

Layout: ``clips.csv`` (``clip, label, split, source_group``) and ``clips/<clip>.mp4``. A fight's
frames are not annotated. Clips cut from the same source video share a ``group``.
"""

from outspike.datasets.files import FileTree, Place, read_table
from outspike.datasets.manifest import Manifest
from outspike.errors import DatasetError
from outspike.recording import Recording


def load(root: str, split: str) -> Manifest:
    """The clips listed in ``ROOT/clips.csv``; train and test share no source video."""
    tree = FileTree.scan(root)
    if "clips.csv" not in tree.urls:
        raise DatasetError(f"{root}: no clips.csv; expected it beside the folder clips/.")
    index = tree.index([".mp4"])
    recordings, missing = [], []
    for row in read_table(tree.urls["clips.csv"], ["clip", "label", "split", "source_group"]):
        url = index.find([Place(row["clip"], "clips")])
        if url is None:
            missing.append(row["clip"])
            continue
        label = int(row["label"])
        recordings.append(
            Recording(
                dataset="surv_fight",
                video_id=row["clip"],
                url=url,
                split=row["split"],
                label=label,
                class_name="Fight" if label else "Normal",
                intervals=None if label else (),
                group=row["source_group"],
            )
        )
    return Manifest(
        name="surv_fight",
        split=split,
        recordings=tuple(recordings),
        missing=tuple(missing),
        warnings=("Labels are per clip: which frames of a fight clip show it is not annotated.",),
    )
