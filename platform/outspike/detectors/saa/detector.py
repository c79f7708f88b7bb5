"""The SAA detector: scores weighted by an attention that learns from them, and they from it."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import SaaConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import (
    LossTerm,
    probabilities,
    require_draws,
    require_labels,
)
from outspike.detectors.draws import subkeys
from outspike.detectors.inputs import Streams
from outspike.detectors.saa.losses import loss_terms
from outspike.detectors.saa.model import Attention, Classifier, TemporalContext, masked
from outspike.errors import BagError, ConfigError

_WIDTH_UNIT = 8


class Saa(Streams):
    """Snippet anomalous attention over one visual feature set, optionally with audio.

    A snippet's score is ``attention * score`` (equation 4). Crops are scored like bags of their
    own, each of them a sample of its bag's label in training, and their scores averaged.

    By default padding takes no part in convolutions, context, batch statistics, top-k or means
    over time. ``compat="saa_2024"`` takes it for snippets, as the published networks do, which only
    ever see bags of one length; ``bias=False`` is the convolutions of the authors' MindSpore graph,
    whose non-local normalisation starts at 1.

    No public code holds the training step. Chosen by us, where nothing public settles it
    (``snippet_anomalous_attention.md`` sections 1 to 4): the score of a bag is the mean of its
    ``snippets // 16 + 1`` highest, and classification is its cross-entropy; norm and sparsity are
    means over time, smoothness a sum, each averaged over bags; gradients flow through the scores
    that attention is pulled to; biases, dropout of 0.7, Xavier weights and a non-local
    normalisation that starts at 0; audio joins through a convolution over three snippets and a
    rectifier (``audio_fusion="temporal_conv"``). ``classification`` and ``reduction`` offer the
    other readings.
    """

    config: SaaConfig

    def __init__(self, config: SaaConfig) -> None:
        _check(config)
        sets = {config.feature_set: config.width}
        if config.audio_set is not None:
            sets[config.audio_set] = config.audio_width
        super().__init__(config, {_module_name(n): (n, width) for n, width in sets.items()})
        convolved = config.audio_set is not None and config.audio_fusion == "temporal_conv"
        audio = config.audio_width
        self.audio = nn.Conv1d(audio, audio, 3, padding=1) if convolved else None
        joined = sum(self.feature_sets.values())
        width = -(-joined // _WIDTH_UNIT) * _WIDTH_UNIT
        self.project = nn.Linear(joined, width) if width != joined else None
        self.temporal = TemporalContext(width, bias=config.bias)
        self.attention = Attention(
            width, config.attention_width, bias=config.bias, dropout=config.dropout
        )
        self.classifier = Classifier(width, config.classifier_widths, dropout=config.dropout)

    def forward(self, bags: Bags) -> Scores:
        """Score all snippets; extras hold ``scores`` and ``attention`` of every crop,
        ``[B * K, S]``, and the ``features`` they were made from, ``[B * K, C, S]``.
        """
        rows = self._joined(bags)
        num_crops = len(rows) // bags.num_bags
        published = self.config.compat is not None
        mask = None if published else bags.mask.repeat_interleave(num_crops, dim=0)
        stats = None
        if not published:
            stats = self.stats_mask(bags).repeat_interleave(num_crops, dim=0)
        drops = self.training and self.config.dropout > 0
        keys = subkeys(require_draws(bags), num_crops) if drops else None
        features = self.temporal(rows, mask, stats)
        scores = probabilities(self.classifier(features, keys))
        attention = probabilities(self.attention(features, mask, keys))
        mean = (scores * attention).view(bags.num_bags, num_crops, -1).mean(dim=1)
        return Scores(
            snippet=mean * bags.mask,
            extras={"scores": scores, "attention": attention, "features": features},
        )

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """Classification of four branches, guidance, norm, smoothness and sparsity."""
        require_labels(bags)
        if bags.step is None:
            raise BagError(
                f"{bags.bag_ids[0]}: what guides the attention changes with training; collate "
                "with step=."
            )
        owners = torch.arange(bags.num_bags, device=bags.labels.device)
        owners = owners.repeat_interleave(len(scores.extras["scores"]) // bags.num_bags)
        mask = torch.ones_like(bags.mask) if self.config.compat is not None else bags.mask
        return loss_terms(
            scores.extras["scores"],
            scores.extras["attention"],
            mask_NT=mask[owners],
            labels_N=bags.labels[owners],
            owners=owners[:, None],
            step=bags.step,
            config=self.config,
        )

    def _joined(self, bags: Bags) -> Tensor:
        """Inputs of every crop side by side, zero at padding, ``[B * K, C, S]``."""
        parts = []
        rows = self.inputs(bags)
        num_crops = rows[self.config.feature_set].shape[1]
        mask = bags.mask.repeat_interleave(num_crops, dim=0)
        for name, x in rows.items():
            if x.shape[1] not in (1, num_crops):
                raise BagError(
                    f"{bags.bag_ids[0]}: {num_crops} crops of {self.config.feature_set!r} but "
                    f"{x.shape[1]} of {name!r}."
                )
            part = x.expand(-1, num_crops, -1, -1).flatten(0, 1)
            part = part.to(self.temporal.gate.weight.dtype)
            if _module_name(name) in self.standardise:
                part = masked(self.scaled(_module_name(name), part).mT, mask).mT
            if name == self.config.audio_set and self.audio is not None:
                part = F.relu(self.audio(part.mT)).mT
            parts.append(part)
        joined = torch.cat(parts, dim=2)
        if self.project is not None:
            joined = self.project(joined)
        return masked(joined.mT, mask)


def _module_name(feature_set: str) -> str:
    """Names of modules hold no dots."""
    return feature_set.replace(".", "_")


def _check(config: SaaConfig) -> None:
    sizes = {
        "width": config.width,
        "audio_width": config.audio_width,
        "attention_width": config.attention_width,
        "classifier_widths": min(config.classifier_widths),
    }
    if min(sizes.values()) < 1:
        raise ConfigError(f"saa: {sizes}: each must be at least 1.")
    if not 0 <= config.dropout < 1 or not 0 <= config.epsilon <= 1 or not 0 <= config.alpha <= 1:
        raise ConfigError(
            f"saa: dropout={config.dropout}, epsilon={config.epsilon}, alpha={config.alpha}: need "
            "0 <= dropout < 1 and the other two in [0, 1]."
        )
    if min(config.norm_weight, config.smooth_weight, config.guide_steps) < 0:
        raise ConfigError(
            f"saa: norm_weight={config.norm_weight}, smooth_weight={config.smooth_weight}, "
            f"guide_steps={config.guide_steps}: not negative."
        )
    if config.audio_set == config.feature_set:
        raise ConfigError(f"saa: both inputs read {config.feature_set!r}; name two feature sets.")
    if config.input_clip is not None and config.input_norm == "none":
        raise ConfigError("saa: input_clip is in deviations; set input_norm='standardise' with it.")
    width = config.width + (0 if config.audio_set is None else config.audio_width)
    if config.compat is not None and (config.input_norm != "none" or width % _WIDTH_UNIT):
        raise ConfigError(
            f"saa: compat={config.compat!r} has no input scaling or projection; set "
            f"input_norm='none' and a width that is a multiple of {_WIDTH_UNIT}, not {width}."
        )
