"""The GV-VAD detector: streams with temporal context, fused features, and all loss terms."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from outspike.config import GvVadConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import (
    LossTerm,
    probabilities,
    require_draws,
    require_labels,
)
from outspike.detectors.draws import keyed_dropout
from outspike.detectors.gv_vad import losses
from outspike.detectors.gv_vad.fusion import (
    SALTS,
    Fusion,
    Head,
    KeyedDropout,
    dropped,
    fused_widths,
)
from outspike.detectors.gv_vad.prompts import (
    rank_triplets,
    read_bank,
    similarity,
    suspected,
    triplet_loss,
)
from outspike.detectors.gv_vad.temporal import TemporalBlock
from outspike.detectors.inputs import Streams
from outspike.errors import BagError, ConfigError

#: Of the published code, which takes a tenth of the segments.
_PUBLISHED_DIVISOR = 10


class GvVad(Streams):
    """Frames and captions, each with temporal context, fused and scored snippet by snippet.

    Captions have no crops, so their share of the work is done once and not once a crop. By default
    padding is masked everywhere, k follows the length of each bag, loss terms belong to single
    bags, pairs or triplets; thresholds, rankings and batch statistics are those of all ranks.
    ``compat="gv_vad_2025"`` keeps the published arithmetic: k of a fixed number of segments, SMOOTH
    and SPARSE that run over the borders of bags (of each rank by itself), the inverted caption
    loss, and the triplet weight applied twice.
    """

    config: GvVadConfig

    def __init__(self, config: GvVadConfig) -> None:
        _check(config)
        streams = {
            "visual": (config.visual_set, config.visual_width),
            "text": (config.text_set, config.text_width),
        }
        left_out = {"vis": "text", "text": "visual"}.get(config.feature_group)
        super().__init__(config, {s: read for s, read in streams.items() if s != left_out})
        plain = set() if config.text_aggregation else {"text"}
        self.context = nn.ModuleDict(
            {s: TemporalBlock(width) for s, width in self.widths.items() if s not in plain}
        )
        self.fusion = Fusion(config)
        self.head = Head(config)
        self.bank: Tensor
        self.register_buffer("bank", torch.zeros(0, config.text_width), persistent=False)

    @property
    def uses_bank(self) -> bool:
        """Whether the loss compares captions with anomaly prompts."""
        wanted = self.config.pal_weight > 0 or self.config.mpl_weight > 0
        return wanted and "text" in self.names

    def fit_inputs(self, batches: Iterable[Bags]) -> None:
        """Read the prompt bank, and fit the standardisation where the configuration asks for one.

        Raises:
            ConfigError: the prompt losses have no bank to work with.
            CheckpointError: the bank cannot be read or does not fit.
        """
        if self.uses_bank:
            self._read_bank()
        super().fit_inputs(batches)

    def forward(self, bags: Bags) -> Scores:
        """Score all snippets; extras hold feature magnitudes and, in training, what the loss reads.

        Raises:
            BagError: captions with crops or another number of rows; in the published form also
                training bags of unequal length.
        """
        dropout = None
        if self.training and self.config.dropout > 0:
            dropout = KeyedDropout(self.config.dropout, require_draws(bags))
        parts = self.features(bags, dropout)
        snippet = probabilities(self.head(parts, dropout)).mean(dim=1)
        magnitude = _magnitude(parts)
        mask = bags.mask
        extras = {"magnitude": magnitude * mask}
        if self.training:
            extras["ranking"] = self._ranking(magnitude, mask, bags)
            extras.update({f"part{i}": part for i, part in enumerate(parts)})
        return Scores(snippet=snippet * mask, extras=extras)

    def features(self, bags: Bags, dropout: KeyedDropout | None = None) -> tuple[Tensor, ...]:
        """Fused features as parts to be read side by side, ``[B, K or 1, S, W]`` each."""
        rows = {s: self.inputs(bags)[name] for s, name in self.names.items()}
        if "text" in rows and rows["text"].shape[1] != 1:
            raise BagError(
                f"{bags.bag_ids[0]}: {rows['text'].shape[1]} crops of {self.config.text_set!r}; "
                "captions describe whole frames, store them once."
            )
        if self.config.compat is not None and self.training and not bool(bags.mask.all()):
            raise BagError(
                f"{bags.bag_ids[0]}: bags of unequal length; compat={self.config.compat!r} knows "
                "no padding: use the window rule mean_segments."
            )
        streams = {stream: self._stream(stream, values, bags) for stream, values in rows.items()}
        if "visual" in streams and "text" in streams:
            streams["text"] = self._aligned(streams["visual"], streams["text"], bags)
        for stream in self.context:
            streams[stream] = dropped(streams[stream], stream, dropout)
        parts: tuple[Tensor, ...] = self.fusion(streams, dropout)
        return parts

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """The six terms of section 3.2, or those of them that have a weight and their input."""
        require_labels(bags)
        if "part0" not in scores.extras:
            raise BagError(f"{bags.bag_ids[0]}: the loss needs a forward in training mode.")
        parts = tuple(scores.extras[f"part{i}"] for i in range(len(fused_widths(self.config))))
        config, published = self.config, self.config.compat is not None
        k = self._k(bags)
        chosen = losses.top_snippets(scores.extras["ranking"], bags.mask, k).to(scores.snippet)
        video = (scores.snippet * chosen).sum(dim=1) / k
        terms = [losses.classification_term(video, bags, config)]
        if config.magnitude_weight > 0:
            mean = _joined([(chosen[:, None, None] @ part)[:, :, 0] for part in parts])
            terms.append(losses.magnitude_term(mean / k[:, None, None], bags, config))
        if config.smooth_weight > 0:
            smooth = losses.published_smooth_term if published else losses.smooth_term
            terms.append(smooth(scores.snippet, bags, config.smooth_weight))
        if config.sparse_weight > 0:
            sparse = losses.published_sparse_term if published else losses.sparse_term
            terms.append(sparse(scores.snippet, bags, config.sparse_weight))
        if self.uses_bank:
            terms.extend(self._prompt_terms(bags, scores.snippet, parts))
        return terms

    def _prompt_terms(
        self, bags: Bags, snippet: Tensor, parts: tuple[Tensor, ...]
    ) -> list[LossTerm]:
        bank = self._read_bank()
        captions = self.inputs(bags)[self.config.text_set][:, 0].to(bank.dtype)
        counted = self.stats_mask(bags)
        dubious = suspected(similarity(captions, bank), counted & (bags.labels == 1)[:, None])
        published = self.config.compat is not None
        terms = []
        if self.config.pal_weight > 0:
            terms.append(losses.suspicion_term(snippet, dubious, bags, self.config))
        if self.config.mpl_weight > 0:
            triplets = rank_triplets(
                snippet, dubious, counted, bags, len(bank), suspected_only=not published
            )
            distances = triplet_loss(triplets.features(parts), self.config.mpl_margin)
            weight = self.config.mpl_weight
            terms.append(
                LossTerm(
                    name="mpl",
                    values=distances[triplets.owned],
                    counts=torch.ones_like(distances[triplets.owned]),
                    bags=triplets.bags[triplets.owned],
                    weight=weight**2 if published else weight,
                    scope="world",
                )
            )
        return terms

    def _stream(self, stream: str, rows_BKSW: Tensor, bags: Bags) -> Tensor:
        """One stream with its temporal context, ``[B, K, S, W]``."""
        num_bags, num_crops = rows_BKSW.shape[:2]
        x = rows_BKSW.flatten(0, 1).to(self.head.last.weight.dtype)
        x = self.scaled(stream, x)
        if stream in self.context:
            mask = stats = None
            if self.config.compat is None or bags.num_bags > 1:
                counted = self.stats_mask(bags)
                # Without anything to leave out the plain (and lighter) forms serve.
                if not bool(counted.all()):
                    mask = bags.mask.repeat_interleave(num_crops, dim=0)
                    stats = counted.repeat_interleave(num_crops, dim=0)
            block = self.context[stream]
            assert isinstance(block, TemporalBlock)
            if stream == "text":
                block.count_copies(self._published_copies(bags))
            x = block(x, mask, stats)
        return x.view(num_bags, num_crops, *x.shape[1:])

    def _published_copies(self, bags: Bags) -> int:
        """How often the published code computes every caption: once a crop of the frames."""
        if self.config.compat is None or "visual" not in self.names:
            return 1
        return bags.features[self.config.visual_set].shape[1]

    def _aligned(self, visual: Tensor, text: Tensor, bags: Bags) -> Tensor:
        """Captions on the rows of the frames; only the published form has any to cut or repeat.

        Missing rows are filled with the last rows there are, as a block (section 2.2).
        """
        missing = visual.shape[2] - text.shape[2]
        if missing and (self.config.compat is None or bags.num_bags > 1):
            raise BagError(
                f"{bags.bag_ids[0]}: {text.shape[2]} rows of {self.config.text_set!r} for "
                f"{visual.shape[2]} of {self.config.visual_set!r}; extract both on one grid."
            )
        if missing > text.shape[2]:
            raise BagError(
                f"{bags.bag_ids[0]}: {text.shape[2]} rows of {self.config.text_set!r} cannot fill "
                f"{visual.shape[2]}; the published form repeats each at most once."
            )
        if missing > 0:
            text = torch.cat([text, text[:, :, -missing:]], dim=2)
        text = text[:, :, : visual.shape[2]]
        if self.config.compat is not None and self.training:
            text = text.expand(-1, visual.shape[1], -1, -1)  # every crop draws its own dropout
        return text

    def _k(self, bags: Bags) -> Tensor:
        """How many snippets stand for each bag, int64 ``[B]``."""
        if self.config.compat is None:
            return (bags.num_snippets // self.config.topk_divisor).clamp_min(1)
        k = self.config.published_segments // _PUBLISHED_DIVISOR
        shortest = int(bags.num_snippets.min())
        if k > shortest:
            raise BagError(
                f"{bags.bag_ids[int(bags.num_snippets.argmin())]}: {shortest} snippets; "
                f"compat={self.config.compat!r} takes the {k} largest of each bag."
            )
        return torch.full_like(bags.num_snippets, k)

    def _ranking(self, magnitude_BS: Tensor, mask_BS: Tensor, bags: Bags) -> Tensor:
        """What the snippets of a bag are chosen by: magnitude, some of them left out by dropout."""
        if self.config.dropout == 0:
            return magnitude_BS
        ones = torch.ones_like(magnitude_BS)
        keys = require_draws(bags)
        factor = keyed_dropout(ones, self.config.dropout, keys, SALTS["selection"])
        if self.config.compat is not None:
            return magnitude_BS * factor
        # Those left out come after the others, by magnitude again where too few are kept.
        behind = magnitude_BS - (magnitude_BS * mask_BS).amax(dim=1, keepdim=True) - 1.0
        return torch.where(factor > 0, magnitude_BS, behind)

    def _read_bank(self) -> Tensor:
        """The bank, read on first use: scoring needs none, so a bundle loads without the file."""
        if len(self.bank) == 0:
            if self.config.prompt_bank is None:
                raise ConfigError(
                    "gv_vad: the prompt losses compare captions with embedded anomaly phrases; set "
                    "prompt_bank to their file, or pal_weight=0 and mpl_weight=0."
                )
            bank = read_bank(self.config.prompt_bank, self.config.text_width)
            self.bank = bank.rows.to(self.head.last.weight)
        return self.bank


def _magnitude(parts: tuple[Tensor, ...]) -> Tensor:
    """Length of the features, mean over crops, ``[B, S]``; nothing is learnt through it."""
    with torch.no_grad():
        squares = [torch.linalg.vector_norm(part, dim=3).square() for part in parts]
        total = squares[0]
        for square in squares[1:]:
            total = total + square
        mean: Tensor = total.sqrt().mean(dim=1)
        return mean


def _joined(parts: list[Tensor]) -> Tensor:
    """Parts ``[B, K or 1, W]`` side by side, ``[B, K, sum of W]``."""
    num_crops = max(part.shape[1] for part in parts)
    return torch.cat([part.expand(-1, num_crops, -1) for part in parts], dim=2)


def _check(config: GvVadConfig) -> None:
    if min(config.visual_width, config.text_width, config.hidden, config.topk_divisor) < 1:
        raise ConfigError(
            f"gv_vad: visual_width={config.visual_width}, text_width={config.text_width}, "
            f"hidden={config.hidden}, topk_divisor={config.topk_divisor}: each at least 1."
        )
    if not 0 <= config.dropout < 1:
        raise ConfigError(f"gv_vad: dropout={config.dropout}: need 0 <= dropout < 1.")
    if config.feature_group == "both" and config.visual_set == config.text_set:
        raise ConfigError(
            f"gv_vad: both streams read {config.visual_set!r}; name two feature sets."
        )
    if config.feature_group != "both" and config.fusion != "concat":
        raise ConfigError(
            f"gv_vad: fusion={config.fusion!r} joins two streams; feature_group="
            f"{config.feature_group!r} has one, so set fusion='concat'."
        )
    weights = {
        name: getattr(config, name)
        for name in (
            "normal_weight",
            "anomalous_weight",
            "magnitude_weight",
            "smooth_weight",
            "sparse_weight",
            "pal_weight",
            "mpl_weight",
        )
    }
    if min(weights.values()) < 0:
        raise ConfigError(f"gv_vad: {weights}: a negative weight would reward errors.")
    if config.input_clip is not None and config.input_norm == "none":
        raise ConfigError(
            "gv_vad: input_clip is in deviations; set input_norm='standardise' with it."
        )
    if config.compat is not None and config.input_norm != "none":
        raise ConfigError(
            f"gv_vad: compat={config.compat!r} has no input scaling; set input_norm='none'."
        )
    if config.compat is not None and config.published_segments < _PUBLISHED_DIVISOR:
        raise ConfigError(
            f"gv_vad: published_segments={config.published_segments}: a tenth of it, at least one "
            "snippet, stands for a bag."
        )
