"""The MSF detector: three dilated branches and a graph branch of spikes, mixed over time."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import MsfConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import (
    LossTerm,
    own_bags,
    probabilities,
    require_draws,
    require_labels,
)
from outspike.detectors.batch_stats import MaskedBatchNorm1d
from outspike.detectors.draws import keyed_dropout, subkeys
from outspike.detectors.inputs import OneInput
from outspike.detectors.msf.graph import SpikingGraph
from outspike.detectors.msf.tim import TemporalInteraction, TimState
from outspike.detectors.neurons import Neuron, lif
from outspike.detectors.overlap import Overlap
from outspike.detectors.topk import topk_rows
from outspike.errors import ConfigError

DILATIONS = (1, 2, 4)


@dataclass(frozen=True)
class MsfState:
    """Membranes after a sequence: what a stream passes on to its next piece."""

    branches: Tensor
    graph: Tensor
    tim: TimState


class Branch(nn.Module):
    """A dilated convolution over time and its batch normalisation, ``[B, C, T] -> [B, C', T]``."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3, dilation=dilation, padding=dilation)
        self.norm = MaskedBatchNorm1d(outputs)

    def forward(self, u_BCT: Tensor, stats_BT: Tensor | None) -> Tensor:
        """Normalised convolution; ``stats_BT`` selects the rows that make batch statistics."""
        normal: Tensor = self.norm(self.conv(u_BCT), stats_BT)
        return normal


class Fusion(nn.Module):
    """The MSF block (section 5.2): features in, features plus their spiking context out.

    One neuron layer is used five times; each use starts from the membrane that the one before it
    left, as in the published model.
    """

    def __init__(self, config: MsfConfig) -> None:
        super().__init__()
        width = 4 * config.hidden
        self.rate = config.dropout
        self.branches = nn.ModuleList(Branch(width, config.hidden, d) for d in DILATIONS)
        self.gate = nn.Conv1d(width, config.hidden, 1, bias=False)
        self.graph = SpikingGraph(config.hidden, tau=config.tau)
        self.tim = TemporalInteraction(
            width, tau=config.tau, batch_mixing=config.compat == "msf_2025"
        )
        self.neuron = Neuron(tau=config.tau, threshold=1.0)

    def forward(
        self,
        x_BTF: Tensor,
        *,
        lengths_B: Tensor | None,
        stats_BT: Tensor | None,
        keys_B: Tensor | None,
        state: MsfState | None = None,
    ) -> tuple[Tensor, MsfState]:
        """Fused features ``[B, T, F]`` and the membranes they leave.

        ``lengths_B`` None lets padding take part like any row; ``keys_B`` None turns dropout off.
        """
        u = x_BTF.transpose(1, 2)
        v = state.branches if state else None
        spikes = []
        for salt, branch in enumerate(self.branches):
            fired, v = self._fire(branch(u, stats_BT), v, lengths_B)
            spikes.append(self._drop(fired, keys_B, salt))
        fired, v = self._fire(self.gate(u), v, lengths_B)
        mixed, v_graph = self.graph(
            self._drop(fired, keys_B, len(DILATIONS)), lengths_B, state.graph if state else None
        )
        fired, v = self._fire(mixed.transpose(1, 2), v, lengths_B)
        context, tim = self.tim(torch.cat([*spikes, fired], dim=2), state.tim if state else None)
        return context + x_BTF, MsfState(v, v_graph, tim)

    def _fire(
        self, x_BCT: Tensor, v: Tensor | None, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Spikes ``[B, T, C]``, silent at padding, and the membrane after the last snippet."""
        spikes, v = lif(x_BCT.permute(2, 0, 1), v, self.neuron, lengths_B=lengths_B)
        return spikes.transpose(0, 1), v

    def _drop(self, spikes_BTC: Tensor, keys_B: Tensor | None, salt: int) -> Tensor:
        if keys_B is None:
            return spikes_BTC
        return keyed_dropout(spikes_BTC, self.rate, keys_B, salt)


class Msf(OneInput):
    """Multi-scale spiking fusion over one feature set.

    By default a bag's scores depend on nothing but its own snippets: padding is masked everywhere,
    membranes start at rest, and TIM does not look at other bags. ``compat="msf_2025"`` is the
    published arithmetic, in which padding takes part and TIM mixes neighbours in the batch.
    Crops are scored like bags of their own and their probabilities averaged. With ``window``, bags
    longer than that are scored in windows: what was trained on short clips has learnt from short
    contexts only. A stream (:meth:`score`) is never cut.
    """

    config: MsfConfig

    def __init__(self, config: MsfConfig) -> None:
        _check(config)
        super().__init__(config)
        inner = 4 * config.hidden
        self.project = nn.Linear(config.width, inner) if config.width != inner else None
        self.fusion = Fusion(config)
        self.classifier = nn.Linear(inner, 1)

    @property
    def spiking_layers(self) -> tuple[str, ...]:
        """Three branches and the gate, the graph's four layers, what leaves it, and the mixing."""
        branches = tuple(f"dilation_{dilation}" for dilation in DILATIONS)
        graph = ("similar_in", "distant_in", "similar_out", "distant_out")
        return (*branches, "gate", *(f"graph_{name}" for name in graph), "graph", "mixing")

    def forward(self, bags: Bags) -> Scores:
        """Score all snippets of all bags, ``[B, S]``."""
        rows = self.inputs(bags)[self.config.feature_set]
        num_crops = rows.shape[1]
        mask = bags.mask.repeat_interleave(num_crops, dim=0)
        rows_BTF = rows.flatten(0, 1).to(self.classifier.weight.dtype)
        window = self.config.window
        if window is not None and not self.training and rows_BTF.shape[1] > window:
            overlap = Overlap.of(mask, window)
            probability, _ = self.score(overlap.cut(rows_BTF), mask=overlap.inside)
            probability = overlap.blend(probability)
        else:
            drops = self.training and self.config.dropout > 0
            probability, _ = self.score(
                rows_BTF,
                mask=mask,
                stats=self.stats_mask(bags).repeat_interleave(num_crops, dim=0),
                keys=subkeys(require_draws(bags), num_crops) if drops else None,
            )
        mean = probability.view(bags.num_bags, num_crops, -1).mean(dim=1)
        return Scores(snippet=mean * bags.mask, extras={"unmasked": mean})

    def score(
        self,
        x_BTF: Tensor,
        *,
        mask: Tensor,
        stats: Tensor | None = None,
        keys: Tensor | None = None,
        state: MsfState | None = None,
    ) -> tuple[Tensor, MsfState]:
        """Probabilities ``[B, T]`` (padding included) of plain sequences, and the membranes left.

        Passing a state on lets a stream be scored piece by piece; the pieces must not be padded.
        """
        features, state = self.features(x_BTF, mask=mask, stats=stats, keys=keys, state=state)
        if keys is not None:
            features = keyed_dropout(features, self.config.dropout, keys, len(DILATIONS) + 1)
        return probabilities(self.classifier(features)[..., 0]), state

    def features(
        self,
        x_BTF: Tensor,
        *,
        mask: Tensor,
        stats: Tensor | None = None,
        keys: Tensor | None = None,
        state: MsfState | None = None,
    ) -> tuple[Tensor, MsfState]:
        """What the classifier reads, ``[B, T, 4 * hidden]``."""
        x_BTF = self.scaled(x_BTF)
        if self.project is not None:
            x_BTF = self.project(x_BTF)
        published = self.config.compat is not None
        if not published:
            x_BTF = x_BTF * mask[..., None]  # scaling and projection have biases
        fused: tuple[Tensor, MsfState] = self.fusion(
            x_BTF,
            lengths_B=None if published else mask.sum(dim=1),
            stats_BT=None if published else (mask if stats is None else stats),
            keys_B=keys,
            state=state,
        )
        return fused

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """Top-k cross-entropy and the variance of normal bags (section 7.2)."""
        require_labels(bags)
        k = -(-bags.num_snippets // self.config.mil_divisor)
        published = self.config.compat is not None
        columns = scores.extras["unmasked"] if published else scores.snippet
        terms = [mil_term(scores.snippet, bags, k, by_bag=self.config.mil_unit == "bag")]
        whole = torch.ones_like(bags.mask) if published else bags.mask
        terms.append(smooth_term(columns, whole, bags, self.config.smooth_weight))
        return terms


def mil_term(snippet_BS: Tensor, bags: Bags, k_B: Tensor, *, by_bag: bool = False) -> LossTerm:
    """Cross-entropy of the k highest scores of each bag with its label.

    Every score counts once, or with ``by_bag`` every bag, through the mean over its scores.
    """
    highest, chosen = topk_rows(snippet_BS, bags.mask, k_B)
    target = bags.labels[:, None].expand_as(highest).to(highest.dtype)
    entropy = F.binary_cross_entropy(highest, target, reduction="none") * chosen
    values, counts = entropy.sum(dim=1), chosen.sum(dim=1).to(highest.dtype)
    if by_bag:
        values, counts = values / counts, torch.ones_like(counts)
    return LossTerm(name="mil", values=values, counts=counts, bags=own_bags(bags))


def smooth_term(snippet_BS: Tensor, mask_BS: Tensor, bags: Bags, weight: float) -> LossTerm:
    """Unbiased variance of the scores of each normal bag; 0 for a bag of one snippet."""
    normal = (bags.labels == 0).nonzero()[:, 0]
    mask = mask_BS[normal].to(snippet_BS.dtype)
    values, number = snippet_BS[normal], mask.sum(dim=1)
    mean = (values * mask).sum(dim=1) / number
    squares = ((values - mean[:, None]).square() * mask).sum(dim=1)
    return LossTerm(
        name="smooth",
        values=squares / (number - 1.0).clamp_min(1.0),
        counts=torch.ones_like(number),
        bags=normal[:, None],
        weight=weight,
    )


def _check(config: MsfConfig) -> None:
    if config.hidden < 2 or config.hidden % 2 or config.width < 1:
        raise ConfigError(
            f"msf: hidden={config.hidden}, width={config.width}: hidden must be even and at least "
            "2, width at least 1."
        )
    if (config.input_clip is not None) and config.input_norm == "none":
        raise ConfigError("msf: input_clip is in deviations; set input_norm='standardise' with it.")
    if not 0 <= config.dropout < 1 or config.tau <= 1 or config.mil_divisor < 1:
        raise ConfigError(
            f"msf: dropout={config.dropout}, tau={config.tau}, mil_divisor={config.mil_divisor}: "
            "need 0 <= dropout < 1, tau > 1, mil_divisor >= 1."
        )
    if config.window is not None and config.window < 2:
        raise ConfigError(f"msf: window={config.window}: at least 2 snippets, or None for all.")
    if config.compat is not None and (
        config.window is not None
        or config.input_norm != "none"
        or config.mil_unit != "snippet"
        or config.width != 4 * config.hidden
    ):
        raise ConfigError(
            f"msf: compat={config.compat!r} has no input scaling, no projection, no window and "
            "counts snippets; set input_norm='none', window=None, mil_unit='snippet' and "
            f"hidden={config.width // 4} for width={config.width}."
        )
