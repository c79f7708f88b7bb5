"""The IEF-VAD detector: windows of snippets through the fusion, and its three losses."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import IefVadConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import (
    LossTerm,
    own_bags,
    probabilities,
    require_draws,
    require_labels,
)
from outspike.detectors.draws import subkeys
from outspike.detectors.ief_vad.fusion import Fused, UncertaintyFusion
from outspike.detectors.ief_vad.losses import classification_term, disagreement, divergence
from outspike.detectors.inputs import Streams
from outspike.detectors.overlap import Overlap
from outspike.detectors.recompute import recomputed
from outspike.errors import BagError, ConfigError

MODALITIES = ("image", "event")
_READ_BY_LOSS = ("image_mu", "event_mu", "image_logvar", "event_logvar")
#: Windows of long bags attended to at once, which bounds memory for any length.
_WINDOW_BATCH = 64


class IefVad(Streams):
    """Uncertainty-weighted fusion of frame features and event features on one time base.

    By default padding is never attended to and enters no loss, and bags longer than the window are
    scored in windows that overlap by half. ``compat="ief_vad_2025"`` keeps the published
    arithmetic: zero rows up to a whole window are attended to and regularised, and windows do not
    overlap.
    """

    config: IefVadConfig

    def __init__(self, config: IefVadConfig) -> None:
        _check(config)
        super().__init__(
            config,
            {
                "image": (config.image_set, config.image_width),
                "event": (config.event_set, config.event_width),
            },
        )
        projected = {m: width for m, width in self.widths.items() if width != config.width}
        self.project = nn.ModuleDict(
            {m: nn.Linear(width, config.width) for m, width in projected.items()}
        )
        self.fusion = UncertaintyFusion(config)

    def forward(self, bags: Bags) -> Scores:
        """Score all snippets; extras hold mean weight and uncertainty (log-variance) of each stream
        and, where bags are not cut into windows, all that the loss reads.
        """
        rows = self.inputs(bags)
        image = self.prepare("image", rows[self.config.image_set])
        event = self.prepare("event", rows[self.config.event_set])
        num_crops = rows[self.config.image_set].shape[1]
        if rows[self.config.event_set].shape[1] != num_crops:
            raise BagError(
                f"{bags.bag_ids[0]}: {num_crops} crops of {self.config.image_set!r} but "
                f"{rows[self.config.event_set].shape[1]} of {self.config.event_set!r}."
            )
        mask = bags.mask.repeat_interleave(num_crops, dim=0)
        published = self.config.compat is not None
        if self.training:
            drops = self.config.attention_dropout > 0
            keys = subkeys(require_draws(bags), num_crops) if drops else None
            extras = self._whole(image, event, mask, keys)
        elif published or mask.shape[1] > self.config.window:
            cut = self._published_windows if published else self._overlapping_windows
            extras = cut(image, event, mask)
        else:
            extras = self._whole(image, event, mask, None)
        by_crop = probabilities(extras["logits"]).view(bags.num_bags, num_crops, -1)
        return Scores(snippet=by_crop.mean(dim=1) * bags.mask, extras=extras)

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """Cross-entropy of the top-k mean, agreement of the streams, and KL (section 5)."""
        require_labels(bags)
        if "image_mu" not in scores.extras:
            raise BagError(
                f"{bags.bag_ids[0]}: the loss needs a forward in training mode or bags of at most "
                f"{self.config.window} snippets."
            )
        num_crops = len(scores.extras["image_mu"]) // bags.num_bags
        num_rows = scores.extras["image_mu"].shape[1]
        counted = torch.ones_like(scores.extras["image_mu"][..., 0])
        if self.config.compat is None:
            counted = bags.mask[:, :num_rows].repeat_interleave(num_crops, dim=0).to(counted)
        shift = 0.0
        if self.config.noise_model == "student_t":
            shift = math.log(self.config.nu / (self.config.nu + 1.0))
        mu = {m: scores.extras[f"{m}_mu"] for m in MODALITIES}
        image_kl, event_kl = (
            recomputed(divergence, mu[m], scores.extras[f"{m}_logvar"], shift) for m in MODALITIES
        )
        # After the others, so before them on the way back: it needs most room there.
        agreement = recomputed(disagreement, mu["image"], mu["event"]) * counted

        def term(name: str, values: Tensor, weight: float) -> LossTerm:
            return LossTerm(
                name=name,
                values=values.view(bags.num_bags, -1).sum(dim=1),
                counts=counted.view(bags.num_bags, -1).sum(dim=1),
                bags=own_bags(bags),
                weight=weight,
            )

        return [
            classification_term(scores.snippet, bags.mask, bags.labels, own_bags(bags)),
            term("agreement", agreement, self.config.reg_weight),
            term("kl", (image_kl + event_kl) * counted, self.config.kl_weight),
        ]

    def prepare(self, modality: str, rows_BKSD: Tensor) -> Tensor:
        """Features of one stream as the fusion reads them, crops as bags of their own,
        ``[B * K, S, D]``.
        """
        x = rows_BKSD.flatten(0, 1).to(self.fusion.classifier.weight.dtype)
        x = self.scaled(modality, x)
        if modality in self.project:
            x = self.project[modality](x)
        return x

    def _whole(
        self, image: Tensor, event: Tensor, mask: Tensor, keys: Tensor | None
    ) -> dict[str, Tensor]:
        """All rows at once; the published form pads to a whole window first and attends to it."""
        if self.config.compat is None:
            seen = None if bool(mask.all()) else mask
            fused = self.fusion(image, event, mask_BT=seen, keys_B=keys)
        else:
            missing = self.config.window - image.shape[1]
            if missing < 0:
                raise BagError(
                    f"compat={self.config.compat!r} trains on at most {self.config.window} rows, "
                    f"the batch has {image.shape[1]}; use the window rule mean_bins."
                )
            padded = [F.pad(x, (0, 0, 0, missing)) for x in (image, event)]
            fused = self.fusion(*padded, keys_B=keys)
        kept = {name: getattr(fused, name) for name in _READ_BY_LOSS}
        return kept | _of_rows(fused, image.shape[1])

    def _published_windows(self, image: Tensor, event: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Windows side by side, zero padded, each attending to its zeros."""
        num_bags, num_rows, width = image.shape
        window = self.config.window
        padding = (num_rows // window + 1) * window - num_rows
        cut = [F.pad(x, (0, 0, 0, padding)).view(-1, window, width) for x in (image, event)]
        columns = self._in_batches(cut[0], cut[1], None)
        return {name: values.view(num_bags, -1)[:, :num_rows] for name, values in columns.items()}

    def _overlapping_windows(self, image: Tensor, event: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Windows that overlap by half, blended with weights that fall towards their ends."""
        overlap = Overlap.of(mask, self.config.window)
        columns = self._in_batches(overlap.cut(image), overlap.cut(event), overlap.inside)
        return {name: overlap.blend(values) for name, values in columns.items()}

    def _in_batches(self, image: Tensor, event: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """As :func:`_of_rows`, of many windows, a few at a time."""
        parts = []
        for start in range(0, len(image), _WINDOW_BATCH):
            chosen = slice(start, start + _WINDOW_BATCH)
            seen = None if mask is None else mask[chosen]
            fused = self.fusion(image[chosen], event[chosen], mask_BT=seen)
            parts.append(_of_rows(fused, image.shape[1]))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _of_rows(fused: Fused, num_rows: int) -> dict[str, Tensor]:
    """Logit of the first rows of each bag, and weight and log-variance of each stream there, mean
    over the width; ``[B, T]`` each.
    """
    explained = {"logits": fused.logits[:, :num_rows]}
    with torch.no_grad():
        for m in MODALITIES:
            explained[f"{m}_weight"] = getattr(fused, f"{m}_weight").mean(dim=2)[:, :num_rows]
            explained[f"{m}_uncertainty"] = getattr(fused, f"{m}_logvar").mean(dim=2)[:, :num_rows]
    return explained


def _check(config: IefVadConfig) -> None:
    if config.width % config.num_heads:
        raise ConfigError(
            f"ief_vad: width={config.width} is no multiple of {config.num_heads} heads."
        )
    if config.nu <= 0 or config.epsilon < 0 or not 0 <= config.attention_dropout < 1:
        raise ConfigError(
            f"ief_vad: nu={config.nu}, epsilon={config.epsilon}, attention_dropout="
            f"{config.attention_dropout}: need nu > 0, epsilon >= 0, 0 <= dropout < 1."
        )
    if config.window < 2 or config.num_layers < 0 or config.refinement_steps < 0:
        raise ConfigError(
            f"ief_vad: window={config.window}, num_layers={config.num_layers}, refinement_steps="
            f"{config.refinement_steps}: need a window of 2 and no negative count."
        )
    if config.image_set == config.event_set:
        raise ConfigError(
            f"ief_vad: both streams read {config.image_set!r}; name two feature sets."
        )
    widths = {config.image_width, config.event_width, config.width}
    if config.compat is not None and (config.input_norm != "none" or len(widths) > 1):
        raise ConfigError(
            f"ief_vad: compat={config.compat!r} has no input scaling or projection; set "
            "input_norm='none' and all three widths equal."
        )
