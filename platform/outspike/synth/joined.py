"""Long videos with known frames, made by joining short clips of known label.

Clips that are only labelled as a whole give no frame-level figure. Joined into longer videos they
do: the frames of each anomalous clip are the anomalous frames. The clips keep their own frames;
only the picture is brought to one size, so a clip filmed at another rate plays faster or slower.
"""

import csv
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from outspike.errors import DatasetError
from outspike.recording import Recording
from outspike.video.decode import decode
from outspike.video.write import write_mp4

logger = logging.getLogger(__name__)

_FPS = Fraction(25)
_COLUMNS = ("video_id", "label", "class", "split", "intervals")


def join_clips(
    clips: Sequence[Recording],
    root: str | Path,
    *,
    num_videos: int = 8,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
) -> bool:
    """Deal clips into ``num_videos`` videos, each with its share of every class in random order.

    Writes ``<root>/joined_NN.mp4`` and ``<root>/labels.csv`` (the layout of the data set
    ``folder``), the table last. Every clip is used once.

    Args:
        clips: labelled clips.
        root: local folder.
        num_videos: how many videos to make.
        size: width and height of the pictures.
        seed: of the dealing and the order.

    Returns:
        False when the table is already there and nothing was done.

    Raises:
        DatasetError: a clip has no label, or there are fewer of a class than videos.
    """
    folder = Path(root)
    table = folder / "labels.csv"
    if table.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, order in enumerate(_deal(clips, num_videos, seed)):
        name = f"joined_{number:02d}"
        lengths: list[int] = []
        write_mp4(folder / f"{name}.mp4", _frames(order, size, lengths), fps=_FPS)
        rows.append((name, *_labels(order, lengths)))
    partial = table.with_name(".labels.csv.partial")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    partial.replace(table)
    logger.info("joined=%d clips=%d root=%s", len(rows), len(clips), folder)
    return True


def _deal(clips: Sequence[Recording], num_videos: int, seed: int) -> list[list[Recording]]:
    rng = np.random.default_rng(seed)
    hands: list[list[Recording]] = [[] for _ in range(num_videos)]
    for label in (0, 1):
        of_class = [clip for clip in clips if clip.label == label]
        if len(of_class) < num_videos:
            raise DatasetError(
                f"{len(of_class)} clips with label {label} cannot be dealt to {num_videos} videos; "
                "ask for fewer videos."
            )
        for i, position in enumerate(rng.permutation(len(of_class))):
            hands[i % num_videos].append(of_class[position])
    unlabelled = [clip.key for clip in clips if clip.label is None]
    if unlabelled:
        raise DatasetError(f"{unlabelled[0]}: no label; only labelled clips can be joined.")
    return [[hand[i] for i in rng.permutation(len(hand))] for hand in hands]


def _frames(
    clips: Sequence[Recording], size: tuple[int, int], lengths: list[int]
) -> Iterator[NDArray[np.uint8]]:
    for clip in clips:
        count = 0
        for chunk in decode(clip.url):
            for frame in chunk.frames:
                count += 1
                yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        lengths.append(count)


def _labels(clips: Sequence[Recording], lengths: Sequence[int]) -> tuple[int, str, str, str]:
    """Label, class, split and the frames of the anomalous clips, as ``labels.csv`` has them."""
    stops = np.cumsum(lengths)
    spans = [
        f"{stop - length}:{stop}"
        for clip, length, stop in zip(clips, lengths, stops, strict=True)
        if clip.label == 1
    ]
    name = next(c.class_name or "Anomaly" for c in clips if c.label == 1)
    return 1, name, "test", ";".join(spans)
