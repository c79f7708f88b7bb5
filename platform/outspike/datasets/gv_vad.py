"""Generated surveillance-style clips of GV-VAD: text-to-video output, for training only."""

from outspike.datasets.files import FileTree, read_table
from outspike.datasets.manifest import Manifest
from outspike.errors import DatasetError
from outspike.recording import Recording

_LABELS = {"normal": 0, "abnormal": 1}


def load(root: str, split: str) -> Manifest:
    """Clips listed in ``ROOT/index.csv``; split ``ucfg2`` keeps those the authors kept by hand."""
    tree = FileTree.scan(root)
    if "index.csv" not in tree.urls:
        raise DatasetError(f"{root}: no index.csv; expected it beside the generated clips.")
    recordings, missing = [], []
    for row in read_table(tree.urls["index.csv"], ["file", "id", "label", "in_ucfg2"]):
        if split == "ucfg2" and row["in_ucfg2"] != "1":
            continue
        if row["label"] not in _LABELS:
            raise DatasetError(
                f"{tree.urls['index.csv']}: {row['file']}: label {row['label']!r}; expected "
                "normal or abnormal."
            )
        if row["file"] not in tree.urls:
            missing.append(row["file"])
            continue
        recordings.append(generated(row["id"], tree.urls[row["file"]], _LABELS[row["label"]]))
    return Manifest(
        name="gv_vad",
        split=split,
        recordings=tuple(recordings),
        missing=tuple(missing),
        warnings=(
            "Every clip carries a static badge at its lower right, normal and abnormal alike; "
            "do not let a detector learn it.",
        ),
    )


def generated(clip_id: str, url: str, label: int) -> Recording:
    """A generated clip as a recording; its id is the same in every list that admits it."""
    return Recording(
        dataset="gv_vad",
        video_id=f"gen_{int(clip_id)}",
        url=url,
        split="train",
        label=label,
        class_name="Generated" if label else "Normal",
        synthetic=True,
        intervals=None if label else (),
    )
