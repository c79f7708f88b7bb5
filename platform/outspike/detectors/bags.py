"""Batches of bags: what every detector reads, and the scores it gives back."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outspike.config import WindowConfig
from outspike.detectors import windows
from outspike.detectors.draws import draw_key
from outspike.errors import BagError

if TYPE_CHECKING:
    from outspike.store.bags import Bag


@dataclass(kw_only=True)
class Bags:
    """``B`` bags, zero padded at the end to the longest of them.

    ``labels`` are 1 anomalous, 0 normal, -1 unknown; ``class_ids`` are -1 where unknown.
    ``draw_keys`` seed dropout; None (no seed and step given) means that nothing may be drawn.
    """

    features: dict[str, Tensor]
    """``{feature set: [B, K, S, D]}``."""
    num_snippets: Tensor
    """int64 ``[B]``."""
    labels: Tensor
    """float32 ``[B]``."""
    class_ids: Tensor
    """int64 ``[B]``."""
    synthetic: Tensor
    """bool ``[B]``."""
    frame_ranges: Tensor
    """int64 ``[B, S, 2]``, half-open; (0, 0) at padding."""
    bag_ids: tuple[str, ...]
    draw_keys: Tensor | None = None
    """int64 ``[B]``, hashed from (seed, step, bag id)."""
    step: int | None = None
    """Steps that training has taken, for losses that change on the way."""
    frame_labels: Tensor | None = None
    """int8 ``[B, S, F]``: label of each frame of each snippet, -1 past the snippet's end and at
    padding. Only where the split is fully supervised; None in every other batch."""

    @property
    def num_bags(self) -> int:
        """``B``."""
        return len(self.bag_ids)

    @property
    def mask(self) -> Tensor:
        """True where a row is a snippet and not padding, bool ``[B, S]``."""
        positions = torch.arange(self.frame_ranges.shape[1], device=self.num_snippets.device)
        return positions[None, :] < self.num_snippets[:, None]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Bags":
        """The same bags on another device, features optionally in another float type."""

        def move(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        moved = {f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)}
        moved["features"] = {
            name: rows.to(device=device, dtype=dtype, non_blocking=True)
            for name, rows in self.features.items()
        }
        return Bags(**moved)

    def take(self, index: Tensor | Sequence[int]) -> "Bags":
        """Some of the bags, in the order asked for; padding is kept as it is."""
        rows = torch.as_tensor(index, dtype=torch.int64, device=self.num_snippets.device)
        taken = {
            f.name: value[rows]
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return Bags(
            features={name: value[rows] for name, value in self.features.items()},
            bag_ids=tuple(self.bag_ids[i] for i in rows.tolist()),
            step=self.step,
            **taken,
        )


@dataclass(kw_only=True)
class Scores:
    """What a detector says of each snippet."""

    snippet: Tensor
    """Probability of being anomalous, ``[B, S]``, 0 at padding."""
    frames: Tensor | None = None
    """``[B, S, F]``: the same of each frame of each snippet, from its first frame on, where a
    detector tells frames apart; 0 at padding, without meaning past a snippet's end."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Whatever else a detector's loss or report needs, by name."""


def collate(
    bags: Sequence["Bag"],
    *,
    widths: Mapping[str, int] | None = None,
    window: WindowConfig | None = None,
    seed: int = 0,
    step: int | None = None,
    classes: Sequence[str] = (),
    supervised: bool = False,
) -> Bags:
    """Check bags, cut training windows, and pad them into one batch.

    Args:
        bags: at least one; all with the same feature sets and crop count.
        widths: feature sets to take and the width expected of each (``Detector.feature_sets``);
            None takes what the first bag has.
        window: training window rule; None keeps every row (evaluation).
        seed, step: what window draws and dropout derive from, together with the bag id.
        classes: class names in the order of their ids.
        supervised: the split allows frame labels to be learnt from; without it they stay out of
            the batch even where a bag has them.

    Raises:
        BagError: naming the bag that has no snippets, lacks a feature set, has another width or
            crop count, holds values that are not finite, or has no frame labels in a supervised
            batch.
    """
    if not bags:
        raise BagError("A batch needs at least one bag.")
    expected = dict(widths) if widths is not None else _widths(bags[0])
    rows, labels = [], []
    for bag in bags:
        _check(bag, expected, bags[0])
        known = _frame_labels(bag) if supervised else None
        cut = _window(bag, tuple(expected), window, known, seed, 0 if step is None else step)
        rows.append(cut)
        if known is not None:
            labels.append([known[a:b] for a, b in zip(cut.start, cut.stop, strict=True)])
    lengths = [len(row.start) for row in rows]
    ids = tuple(_bag_id(bag) for bag in bags)
    return Bags(
        features={name: _pad([row.features[name] for row in rows]) for name in expected},
        num_snippets=torch.tensor(lengths, dtype=torch.int64),
        labels=torch.tensor([-1.0 if b.label is None else float(b.label) for b in bags]),
        class_ids=torch.tensor([_class_id(b.class_name, classes) for b in bags]),
        synthetic=torch.tensor([bool(b.synthetic) for b in bags]),
        frame_ranges=_pad_ranges(rows, max(lengths)),
        bag_ids=ids,
        draw_keys=None
        if step is None
        else torch.tensor([draw_key(seed, step, name) for name in ids], dtype=torch.int64),
        step=step,
        frame_labels=_pad_labels(labels) if supervised else None,
    )


def _bag_id(bag: "Bag") -> str:
    return f"{bag.dataset}/{bag.video_id}"


def _widths(bag: "Bag") -> dict[str, int]:
    return {name: rows.shape[-1] for name, rows in bag.features.items()}


def _class_id(name: str | None, classes: Sequence[str]) -> int:
    return classes.index(name) if name in classes else -1


def _check(bag: "Bag", widths: Mapping[str, int], first: "Bag") -> None:
    name = _bag_id(bag)
    num_rows = len(bag.start)
    if num_rows == 0:
        raise BagError(f"{name}: no snippets; extract it again, or leave it out of the manifest.")
    for key, width in widths.items():
        if key not in bag.features:
            raise BagError(f"{name}: no features {key!r}, only {sorted(bag.features)}.")
        rows = bag.features[key]
        if rows.ndim != 3 or rows.shape[1] != num_rows or rows.shape[0] < 1:
            raise BagError(
                f"{name}: features {key!r} have shape {rows.shape}; expected [K, {num_rows}, D]."
            )
        if rows.shape[2] != width:
            raise BagError(
                f"{name}: features {key!r} are {rows.shape[2]} wide, the detector reads {width}; "
                "set its width to that of the feature set."
            )
        if rows.shape[0] != first.features[key].shape[0]:
            raise BagError(
                f"{name}: {rows.shape[0]} crops in {key!r}, "
                f"{_bag_id(first)} has {first.features[key].shape[0]}; batch one layout at a time."
            )
        if not np.isfinite(rows).all():
            bad = np.argwhere(~np.isfinite(rows))
            raise BagError(
                f"{name}: {len(bad)} values of {key!r} are not finite (first: crop {bad[0, 0]}, "
                f"snippet {bad[0, 1]}, column {bad[0, 2]}); extract this recording again."
            )


def _frame_labels(bag: "Bag") -> NDArray[np.uint8]:
    known = bag.frame_labels()
    if known is None:
        raise BagError(
            f"{_bag_id(bag)}: no frame labels, and training on this split needs them; register "
            "the recording with its annotated intervals, or leave it out."
        )
    return known


def _window(
    bag: "Bag",
    names: Sequence[str],
    config: WindowConfig | None,
    known: NDArray[np.uint8] | None,
    seed: int,
    step: int,
) -> windows.Window:
    whole = windows.Window(
        features={name: bag.features[name] for name in names}, start=bag.start, stop=bag.stop
    )
    if config is None:
        return whole
    key = draw_key(seed, step, f"window/{_bag_id(bag)}")
    rng = np.random.RandomState(key & 0xFFFFFFFF)
    return windows.cut(whole, config, label=bag.label, rng=rng, frame_labels=known)


def _pad(rows: Sequence[NDArray[np.floating]]) -> Tensor:
    longest = max(row.shape[1] for row in rows)
    wide = np.float64 if rows[0].dtype == np.float64 else np.float32
    padded = np.zeros((len(rows), rows[0].shape[0], longest, rows[0].shape[2]), dtype=wide)
    for target, row in zip(padded, rows, strict=True):
        target[:, : row.shape[1]] = row
    return torch.from_numpy(padded)


def _pad_ranges(rows: Sequence[windows.Window], longest: int) -> Tensor:
    ranges = np.zeros((len(rows), longest, 2), dtype=np.int64)
    for target, row in zip(ranges, rows, strict=True):
        target[: len(row.start), 0] = row.start
        target[: len(row.stop), 1] = row.stop
    return torch.from_numpy(ranges)


def _pad_labels(labels: Sequence[Sequence[NDArray[np.uint8]]]) -> Tensor:
    longest = max(len(bag) for bag in labels)
    frames = max(len(row) for bag in labels for row in bag)
    padded = np.full((len(labels), longest, frames), -1, dtype=np.int8)
    for target, bag in zip(padded, labels, strict=True):
        for row, known in zip(target, bag, strict=False):
            row[: len(known)] = known
    return torch.from_numpy(padded)
