"""What a protocol says of crops and windows, applied to bags before they are scored."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np

from outspike.detectors.base import Detector
from outspike.errors import AlignmentError
from outspike.evaluate.protocols import Protocol
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.store.bags import Bag

#: Place of a crop among the ten of the published archives: centre, corners, then their mirrors.
_CROPS = {"centre": 0, "mirrored_centre": 5}
_NUM_CROPS = 10
_WINDOW = 256


def score_under(protocol: Protocol, detector: Detector, bags: Iterable[Bag]) -> list[VideoScores]:
    """Scores of bags as the protocol has them computed.

    Raises:
        AlignmentError: the protocol scores one crop of ten, and a bag has another number.
        BagError: a bag does not fit the detector.
    """
    chosen = (one_crop(bag, protocol) for bag in bags)
    if protocol.window_policy == "whole":
        return score_bags(detector, chosen)
    pieces = score_bags(detector, (piece for bag in chosen for piece in windows(bag)))
    return [_joined(list(same)) for _, same in groupby(pieces, key=lambda piece: piece.key)]


def one_crop(bag: Bag, protocol: Protocol) -> Bag:
    """The bag with the one crop that the protocol scores, or as it is where crops are averaged."""
    if protocol.crop_policy == "mean":
        return bag
    index = _CROPS[protocol.crop_policy]
    for name, rows in bag.features.items():
        if rows.shape[0] != _NUM_CROPS:
            raise AlignmentError(
                f"{bag.key}: {rows.shape[0]} crop(s) of {name!r}; protocol {protocol.label} scores "
                f"crop {index} of {_NUM_CROPS}: extract all of them."
            )
    features = {name: rows[index : index + 1] for name, rows in bag.features.items()}
    return dataclasses.replace(bag, features=features)


def windows(bag: Bag) -> Iterator[Bag]:
    """Pieces of at most 256 snippets, side by side."""
    for first in range(0, bag.num_snippets, _WINDOW):
        rows = slice(first, first + _WINDOW)
        yield dataclasses.replace(
            bag,
            features={name: values[:, rows] for name, values in bag.features.items()},
            start=bag.start[rows],
            stop=bag.stop[rows],
        )


def _joined(pieces: list[VideoScores]) -> VideoScores:
    """One recording from the scores of its pieces, in their order."""
    return dataclasses.replace(
        pieces[0],
        scores=np.concatenate([piece.scores for piece in pieces]),
        start=np.concatenate([piece.start for piece in pieces]),
        stop=np.concatenate([piece.stop for piece in pieces]),
    )
