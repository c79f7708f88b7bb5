"""MSF and IEF-VAD as their specifications write them: what ``detectors.py`` measures against.

Plain modules under their published names, so that our exported weights load as they are: a Python
loop over time for every neuron, whole adjacency matrices, attention weights kept, losses in loops
over bags. Neurons are spikingjelly's.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from outspike.config import IefVadConfig, MsfConfig

# ------------------------------------------------------------------------------------- neurons


def plain_lif(tau: float, threshold: float = 1.0) -> neuron.LIFNode:
    """spikingjelly's multi-step node as MSF uses it."""
    return neuron.LIFNode(
        tau=tau,
        v_threshold=threshold,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
        detach_reset=True,
        step_mode="m",
    )


class _Above(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grads[0] * (2.0 - 4.0 * u.abs()).clamp_min(0.0)


class _StrictQuadratic(nn.Module):
    """Fires above the threshold only."""

    def forward(self, u: Tensor) -> Tensor:
        fired: Tensor = _Above.apply(u)  # type: ignore[no-untyped-call]
        return fired


def _strict_lif(tau: float, threshold: float) -> neuron.LIFNode:
    return neuron.LIFNode(
        tau=tau,
        v_threshold=threshold,
        v_reset=0.0,
        surrogate_function=_StrictQuadratic(),
        detach_reset=True,
        step_mode="s",
    )


# ----------------------------------------------------------------------------------------- MSF


class _GraphConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        if inputs != outputs:
            self.residual = nn.Conv1d(inputs, outputs, 5, padding=2)
        self.projects = inputs != outputs

    def forward(self, z: Tensor, adjacency: Tensor) -> Tensor:
        residual = self.residual(z.transpose(1, 2)).transpose(1, 2) if self.projects else z
        mixed: Tensor = adjacency @ (z @ self.weight) + residual
        return mixed


class _SpikingGraph(nn.Module):
    def __init__(self, width: int, tau: float) -> None:
        super().__init__()
        half = width // 2
        self.gc1, self.gc3 = _GraphConvolution(width, half), _GraphConvolution(width, half)
        self.gc2, self.gc4 = _GraphConvolution(half, half), _GraphConvolution(half, half)
        self.linear = nn.Linear(width, width)
        self.lif = plain_lif(tau)

    def forward(self, x: Tensor) -> Tensor:
        z = x.transpose(1, 2)
        norm = z.norm(dim=2, keepdim=True)
        cosine = z @ z.transpose(1, 2) / (norm @ norm.transpose(1, 2) + 1e-20)
        similar = torch.where(cosine > 0.7, cosine, torch.zeros_like(cosine)).softmax(dim=2)
        step = torch.arange(z.shape[1], dtype=z.dtype, device=z.device)
        distant = torch.exp(-(step[:, None] - step).abs() / math.e)
        h1 = self._fire(self.gc1(z, similar))
        h2 = self._fire(self.gc3(z, distant))
        y1 = self._fire(self.gc2(h1, similar))
        y2 = self._fire(self.gc4(h2, distant))
        out: Tensor = self.linear(torch.cat([y1, y2], dim=2))
        return out.transpose(1, 2)

    def _fire(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.lif(x.transpose(0, 1))
        return spikes.transpose(0, 1)


class _Tim(nn.Module):
    def __init__(self, width: int, tau: float) -> None:
        super().__init__()
        self.interactor = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.in_lif, self.out_lif = _strict_lif(tau, 0.3), _strict_lif(tau, 0.5)

    def forward(self, c: Tensor) -> Tensor:
        steps = c.permute(1, 2, 0)
        out, r = [steps[0]], steps[0]
        for t in range(1, len(steps)):
            heard = self.in_lif(self.interactor(r[None])[0])
            r = self.out_lif(0.6 * heard + (1 - 0.6) * steps[t])
            out.append(r)
        return torch.stack(out).permute(2, 0, 1)


class _Fusion(nn.Module):
    def __init__(self, config: MsfConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden

        def branch(d: int) -> nn.Sequential:
            conv = nn.Conv1d(width, hidden, 3, dilation=d, padding=d)
            return nn.Sequential(conv, nn.BatchNorm1d(hidden))

        self.conv_1, self.conv_2, self.conv_3 = branch(1), branch(2), branch(4)
        self.conv_4 = nn.Sequential(nn.Conv1d(width, hidden, 1, bias=False))
        self.SpikingGCN = _SpikingGraph(hidden, config.tau)
        self.tim = _Tim(width, config.tau)
        self.lif = plain_lif(config.tau)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        u = x.transpose(1, 2)
        branches = (self.conv_1, self.conv_2, self.conv_3, self.conv_4)
        parts = [self.drop(self._fire(branch(u))) for branch in branches]
        parts[3] = self._fire(self.SpikingGCN(parts[3]))
        context: Tensor = self.tim(torch.cat(parts, dim=1).transpose(1, 2))
        return context + x

    def _fire(self, z: Tensor) -> Tensor:
        spikes: Tensor = self.lif(z.permute(2, 0, 1))
        return spikes.permute(1, 2, 0)


class NaiveMsf(nn.Module):
    """``ucf_crime_dvs_msf.md`` section 5 and its losses (7.2)."""

    def __init__(self, config: MsfConfig) -> None:
        super().__init__()
        self.MSF = _Fusion(config)
        self.classifier = nn.Linear(config.width, 1)
        self.drop = nn.Dropout(config.dropout)
        self.divisor, self.smooth = config.mil_divisor, config.smooth_weight

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Scores ``[B, T]``; membranes start at rest."""
        functional.reset_net(self)
        scores: Tensor = torch.sigmoid(self.classifier(self.drop(self.MSF(x_BTF))))
        return scores[..., 0]

    def cost(self, scores: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Top-k cross-entropy of all bags and the variance of normal ones."""
        chosen, targets, variances = [], [], []
        for p, n, y in zip(scores, lengths.tolist(), labels, strict=True):
            k = math.ceil(n / self.divisor)
            chosen.append(p[:n].topk(k).values)
            targets.append(y.expand(k))
            if y == 0:
                variances.append(p.var())
        mil = F.binary_cross_entropy(torch.cat(chosen), torch.cat(targets))
        return mil + self.smooth * torch.stack(variances).mean()


# ------------------------------------------------------------------------------------- IEF-VAD


class _Temporal(nn.Module):
    def __init__(self, config: IefVadConfig) -> None:
        super().__init__()
        d, heads, rate = config.width, config.num_heads, config.attention_dropout
        self.config = config
        for m in ("image", "event"):
            layers = [
                nn.MultiheadAttention(d, heads, dropout=rate, batch_first=True)
                for _ in range(config.num_layers)
            ]
            self.add_module(f"{m}_attn_layers", nn.ModuleList(layers))
            norms = [nn.LayerNorm(d) for _ in range(config.num_layers)]
            self.add_module(f"{m}_norms", nn.ModuleList(norms))
            self.add_module(f"whiten_{m}", nn.LayerNorm(d))
            self.add_module(f"{m}_mu", nn.Linear(d, d))
            self.add_module(f"{m}_logvar", nn.Linear(d, d))
        self.refinement_blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
            for _ in range(config.refinement_steps)
        )
        self.classifier = nn.Linear(d, 1)

    def forward(self, image: Tensor, event: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for m, x in (("image", image), ("event", event)):
            pairs = zip(getattr(self, f"{m}_attn_layers"), getattr(self, f"{m}_norms"), strict=True)
            for attention, norm in pairs:
                heard, _ = attention(x, x, x)  # with the weights, averaged over heads
                x = norm(x + heard)
            white = getattr(self, f"whiten_{m}")(x)
            out[f"{m}_mu"] = getattr(self, f"{m}_mu")(white)
            out[f"{m}_logvar"] = getattr(self, f"{m}_logvar")(white)
        nu = self.config.nu
        w_i = (nu + 1) / nu * torch.exp(-out["image_logvar"])
        w_e = (nu + 1) / nu * torch.exp(-out["event_logvar"])
        total = w_i + w_e + self.config.epsilon
        out["w_i"], out["w_e"] = w_i / total, w_e / total
        f = out["w_i"] * out["image_mu"] + out["w_e"] * out["event_mu"]
        for block in self.refinement_blocks:
            f = f - self.config.refinement_rate * block(f)
        out["fused"], out["logits"] = f, self.classifier(f)
        return out


class NaiveIefVad(nn.Module):
    """``ief_vad.md`` section 3 and its losses (section 5), Student-T form."""

    def __init__(self, config: IefVadConfig) -> None:
        super().__init__()
        self.config = config
        self.temporal = _Temporal(config)

    def forward(self, image_BTD: Tensor, event_BTD: Tensor) -> dict[str, Tensor]:
        """Everything that the published network returns."""
        out: dict[str, Tensor] = self.temporal(image_BTD, event_BTD)
        return out

    def cost(self, out: dict[str, Tensor], lengths: Tensor, labels: Tensor) -> Tensor:
        """Classification, agreement of the streams and KL."""
        p = torch.sigmoid(out["logits"][..., 0])
        pairs = zip(p, lengths.tolist(), strict=True)
        means = torch.stack([row[:n].topk(n // 16 + 1).values.mean() for row, n in pairs])
        cost = F.binary_cross_entropy(means, labels)
        mu_i, mu_e = out["image_mu"], out["event_mu"]
        reg = (1 - F.cosine_similarity(mu_i, mu_e, dim=2)).mean()
        reg = reg + (mu_i.norm(dim=2) - mu_e.norm(dim=2)).abs().mean()
        cost = cost + self.config.reg_weight * reg
        for m in ("image", "event"):
            v = out[f"{m}_logvar"] + math.log(self.config.nu / (self.config.nu + 1))
            kl = -0.5 * torch.mean(1 + v - out[f"{m}_mu"] ** 2 - v.exp())
            cost = cost + self.config.kl_weight * kl
        return cost
