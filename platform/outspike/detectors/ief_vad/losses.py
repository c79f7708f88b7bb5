"""Loss terms of IEF-VAD and of its ancestor (``ief_vad.md`` section 5)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from outspike.detectors.base import LossTerm
from outspike.detectors.topk import topk_rows

_ROWS_A_SNIPPET = 16


def topk_size(num_snippets_B: Tensor) -> Tensor:
    """How many snippets stand for their bag: ``floor(n / 16) + 1``."""
    return num_snippets_B // _ROWS_A_SNIPPET + 1


def classification_term(
    probability_BS: Tensor, mask_BS: Tensor, labels_B: Tensor, owners: Tensor
) -> LossTerm:
    """Cross-entropy of the mean of each bag's highest probabilities."""
    highest, chosen = topk_rows(probability_BS, mask_BS, topk_size(mask_BS.sum(dim=1)))
    mean = (highest * chosen).sum(dim=1) / chosen.sum(dim=1)
    entropy = F.binary_cross_entropy(mean, labels_B.to(mean.dtype), reduction="none")
    return LossTerm(
        name="classification", values=entropy, counts=torch.ones_like(entropy), bags=owners
    )


def multiclass_term(
    logits_BSC: Tensor, mask_BS: Tensor, labels_BC: Tensor, owners: Tensor
) -> LossTerm:
    """Softmax cross-entropy of each class's top-k mean logit with label vectors scaled to sum 1."""
    num_bags, num_rows, num_classes = logits_BSC.shape
    by_class = logits_BSC.transpose(1, 2).reshape(-1, num_rows)
    mask = mask_BS.repeat_interleave(num_classes, dim=0)
    highest, chosen = topk_rows(by_class, mask, topk_size(mask.sum(dim=1)))
    mean = ((highest * chosen).sum(dim=1) / chosen.sum(dim=1)).view(num_bags, num_classes)
    target = labels_BC / labels_BC.sum(dim=1, keepdim=True)
    entropy = -(target * F.log_softmax(mean, dim=1)).sum(dim=1)
    return LossTerm(name="classes", values=entropy, counts=torch.ones_like(entropy), bags=owners)


def disagreement(image_BTD: Tensor, event_BTD: Tensor) -> Tensor:
    """Angle and difference of length between two streams' means, ``[B, T]``."""
    angle = 1.0 - F.cosine_similarity(image_BTD, event_BTD, dim=2)
    image_length: Tensor = torch.linalg.vector_norm(image_BTD, dim=2)
    event_length: Tensor = torch.linalg.vector_norm(event_BTD, dim=2)
    return angle + (image_length - event_length).abs()


def divergence(mu_BTD: Tensor, logvar_BTD: Tensor, shift: float = 0.0) -> Tensor:
    """KL from the standard normal, mean over the width, ``[B, T]``.

    ``shift`` is added to the log-variance: that of the Student-t form is ``ln(nu / (nu + 1))``.
    """
    logvar = logvar_BTD + shift
    kl: Tensor = -0.5 * (1.0 + logvar - mu_BTD.square() - logvar.exp()).mean(dim=2)
    return kl
