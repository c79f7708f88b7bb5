"""The AED detectors: every window of snippets classified, every frame scored."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import AedConfig
from outspike.detectors.aed.network import CELLS, AedNetwork
from outspike.detectors.aed.placing import Placing, place
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import LossTerm
from outspike.detectors.inputs import OneInput
from outspike.errors import BagError, ConfigError

NORMAL_AND_ANOMALOUS = ("normal", "anomalous")
#: Windows computed at once when scoring, which bounds memory for recordings of any length.
_WINDOW_BATCH = 256


class Aed(OneInput):
    """ConvLSTM over windows of ``L`` snippets with a classifier and a frame regressor.

    ``kind="aed"`` has one recurrent layer, ``aed_t`` two. Windows overlap with stride one, and a
    frame gets the highest score that any window gives it. Learns from frame labels, so it trains
    on fully supervised splits only.

    By default windows hold neighbouring snippets, a bag shorter than a window repeats its last
    snippet, and frames that are not there enter no loss. ``compat="lad2000"`` keeps the published
    arithmetic: scoring reads scrambled windows, short training bags are filled with zeros, and the
    frames of that filling count as normal.
    """

    config: AedConfig
    needs_frame_labels = True

    def __init__(self, config: AedConfig) -> None:
        _check(config)
        super().__init__(config)
        channels = -(-config.width // CELLS)
        cells = channels * CELLS
        self.project = nn.Linear(config.width, cells) if config.width != cells else None
        self.network = AedNetwork(
            channels=channels,
            hidden=config.hidden,
            num_layers=2 if config.kind == "aed_t" else 1,
            down=config.down,
            head=config.head,
            num_classes=len(config.classes or NORMAL_AND_ANOMALOUS),
            num_scores=config.window * config.frames_per_snippet,
        )

    def forward(self, bags: Bags) -> Scores:
        """Score every frame; a snippet's score is the mean over its frames.

        Extras, for windows ``W`` of all bags and crops one after the other: ``class_logits``
        ``[W, C]``, ``window_scores`` ``[W, L, F]``, ``window_writes`` ``[W, L]`` and
        ``window_bag`` ``[W]``.
        """
        self._check_snippets(bags)
        rows = self.inputs(bags)[self.config.feature_set]
        num_crops = rows.shape[1]
        rows_NSD = self._prepared(rows.flatten(0, 1))
        lengths = bags.num_snippets.repeat_interleave(num_crops).tolist()
        published = self.config.compat is not None
        windows = place(
            lengths,
            self.config.window,
            scrambled=published and not self.training,
            device=rows_NSD.device,
        )
        logits, scores = self._windows(rows_NSD, windows)
        by_crop = _highest(scores, windows, rows_NSD.shape[:2])
        frames = by_crop.view(bags.num_bags, num_crops, *by_crop.shape[1:]).mean(dim=1)
        frames = frames * bags.mask[..., None]
        return Scores(
            snippet=_mean_over_frames(frames, bags),
            frames=frames,
            extras={
                "class_logits": logits,
                "window_scores": scores,
                "window_writes": windows.writes,
                "window_bag": windows.sequence // num_crops,
            },
        )

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """Cross-entropy of each window's class and smooth L1 of its frames (section 4)."""
        owners = scores.extras["window_bag"]
        logits = scores.extras["class_logits"]
        entropy = F.cross_entropy(logits, self._classes(bags)[owners], reduction="none")
        target = self._targets(bags, owners, scores.extras["window_writes"])
        found = scores.extras["window_scores"]
        counted = target >= 0
        if self.config.compat is not None:
            target, counted = target.clamp_min(0), torch.ones_like(counted)
        error = F.smooth_l1_loss(found, target.to(found.dtype), reduction="none") * counted
        return [
            LossTerm(
                name="class",
                values=entropy,
                counts=torch.ones_like(entropy),
                bags=owners[:, None],
                weight=self.config.class_weight,
            ),
            LossTerm(
                name="frames",
                values=error.sum(dim=(1, 2)),
                counts=counted.sum(dim=(1, 2)).to(found.dtype),
                bags=owners[:, None],
                weight=self.config.frame_weight,
            ),
        ]

    def _prepared(self, x_NSD: Tensor) -> Tensor:
        """Rows as the network reads them."""
        x = x_NSD.to(self.network.down.weight.dtype)
        x = self.scaled(x)
        return x if self.project is None else self.project(x)

    def _windows(self, rows_NSD: Tensor, windows: Placing) -> tuple[Tensor, Tensor]:
        """Class logits ``[W, C]`` and frame scores ``[W, L, F]`` of all windows."""
        share = self.network.prepared(rows_NSD.flatten(0, 1))
        share = share.view(*rows_NSD.shape[:2], *share.shape[1:])
        zero = None
        if self.config.compat is not None and self.training:
            zero = self.network.prepared(torch.zeros_like(rows_NSD[0, :1]))
        logits, scores = [], []
        step = len(windows.sequence) if self.training else _WINDOW_BATCH
        for start in range(0, len(windows.sequence), step):
            some = slice(start, start + step)
            read = share[windows.sequence[some][:, None], windows.reads[some]]
            if zero is not None:
                real = windows.is_real[some][..., None, None, None]
                read = torch.where(real, read, zero[0])
            found = self.network(read)
            logits.append(found[0])
            scores.append(found[1].view(len(read), self.config.window, -1))
        return torch.cat(logits), torch.cat(scores)

    def _classes(self, bags: Bags) -> Tensor:
        """Class of each bag as the classifier numbers them, int64 ``[B]``."""
        classes = bags.class_ids if self.config.classes else bags.labels.long()
        unknown = (classes < 0).nonzero()[:, 0].tolist()
        if unknown:
            names = ", ".join(bags.bag_ids[i] for i in unknown[:5])
            wanted = self.config.classes or NORMAL_AND_ANOMALOUS
            raise BagError(
                f"{len(unknown)} bags have no class ({names}); aed tells {', '.join(wanted)} apart."
            )
        return classes

    def _targets(self, bags: Bags, owners_W: Tensor, writes_WL: Tensor) -> Tensor:
        """Labels of the frames that each window scores, -1 where there is none, ``[W, L, F]``."""
        if bags.frame_labels is None:
            raise BagError(
                f"{bags.bag_ids[0]}: aed learns from frame labels and the batch has none; collate "
                "with supervised=True, on a fully supervised split."
            )
        num_rows = bags.frame_labels.shape[1]
        missing = self.config.frames_per_snippet - bags.frame_labels.shape[2]
        known = F.pad(bags.frame_labels, (0, missing), value=-1)
        taken = known[owners_W[:, None], writes_WL.clamp(max=num_rows - 1)]
        inside = writes_WL < bags.num_snippets[owners_W][:, None]
        return torch.where(inside[..., None], taken, -1)

    def _check_snippets(self, bags: Bags) -> None:
        frames = bags.frame_ranges[..., 1] - bags.frame_ranges[..., 0]
        if int(frames.max()) > self.config.frames_per_snippet:
            bag, row = divmod(int(frames.argmax()), frames.shape[1])
            raise BagError(
                f"{bags.bag_ids[bag]}: snippet {row} covers {int(frames.max())} frames, aed scores "
                f"{self.config.frames_per_snippet} a snippet; set frames_per_snippet to that of "
                "the grid."
            )


def _highest(scores_WLF: Tensor, windows: Placing, shape: torch.Size) -> Tensor:
    """Highest score that any window gives each frame, ``[N, S, F]``; 0 at padding."""
    num_sequences, num_rows = shape
    size = max(num_rows, int(windows.writes.max()) + 1)
    flat = (windows.sequence[:, None] * size + windows.writes).flatten()
    best = scores_WLF.new_zeros(num_sequences * size, scores_WLF.shape[2])
    index = flat[:, None].expand(-1, scores_WLF.shape[2])
    best = best.scatter_reduce(0, index, scores_WLF.flatten(0, 1), reduce="amax")
    return best.view(num_sequences, size, -1)[:, :num_rows]


def _mean_over_frames(frames_BSF: Tensor, bags: Bags) -> Tensor:
    """Mean score over the frames that each snippet covers, ``[B, S]``."""
    number = bags.frame_ranges[..., 1] - bags.frame_ranges[..., 0]
    inside = torch.arange(frames_BSF.shape[2], device=number.device) < number[..., None]
    return (frames_BSF * inside).sum(dim=2) / number.clamp_min(1)


def _check(config: AedConfig) -> None:
    names = ("width", "window", "frames_per_snippet", "hidden", "down", "head")
    sizes = {name: getattr(config, name) for name in names}
    if min(sizes.values()) < 1:
        raise ConfigError(f"{config.kind}: {sizes}: each must be at least 1.")
    if len(set(config.classes)) != len(config.classes) or len(config.classes) == 1:
        raise ConfigError(f"{config.kind}: classes={config.classes}: two or more, each once.")
    if config.input_clip is not None and config.input_norm == "none":
        raise ConfigError(
            f"{config.kind}: input_clip is in deviations; set input_norm='standardise' with it."
        )
    if config.compat is not None and (config.input_norm != "none" or config.width % CELLS):
        raise ConfigError(
            f"{config.kind}: compat={config.compat!r} has no input scaling or projection; set "
            f"input_norm='none' and a width that is a multiple of {CELLS}, not {config.width}."
        )
