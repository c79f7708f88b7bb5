"""Anomaly prompts: the bank, the snippets whose captions resemble it, and the triplets they make.

Sections 1.5, 3.1 and 3.4 of ``gv_vad_ssls.md``. The threshold and the rankings are those of the
whole half batch, over all ranks.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from outspike.detectors.bags import Bags
from outspike.detectors.draws import draw_key
from outspike.detectors.reduce import Group, all_reduced, differentiable_all_reduce, gathered
from outspike.errors import CheckpointError

_ENTRY = "bank"
_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class PromptBank:
    """Embedded anomaly phrases, not normalised."""

    rows: Tensor
    """float32 ``[N, E]``."""
    phrases: tuple[str, ...] = ()
    """The phrases; empty for a published array, which comes without them."""
    encoder: str = ""
    """Name and version of what embedded them."""


def read_bank(path: str, width: int) -> PromptBank:
    """Read a bank written by :func:`write_bank`, or a published ``.npy`` array ``[N, E]``.

    Raises:
        CheckpointError: no such file, not such an array, of another width, empty, not finite, or
            with a row of zeros, whose angle to a caption is not defined.
    """
    bank = _read_array(path) if path.endswith(".npy") else _read_tensors(path)
    shape = tuple(bank.rows.shape)
    if bank.rows.dim() != 2 or shape[0] == 0 or shape[1] != width:
        raise CheckpointError(
            f"{path}: a prompt bank of shape {shape}; expected [N, {width}] with at least one row, "
            "as wide as the captions."
        )
    faulty = ~bank.rows.isfinite().all(dim=1) | (bank.rows == 0).all(dim=1)
    if faulty.any():
        raise CheckpointError(
            f"{path}: row {int(faulty.nonzero()[0, 0])} of the prompt bank is zero or not finite; "
            "embed that phrase again."
        )
    return bank


def write_bank(path: str, bank: PromptBank) -> None:
    """Write a bank with its phrases and the name of the encoder, as safetensors.

    Raises:
        CheckpointError: there are phrases, but not one for each row.
    """
    if bank.phrases and len(bank.phrases) != len(bank.rows):
        raise CheckpointError(f"{len(bank.phrases)} phrases for {len(bank.rows)} rows of a bank.")
    told = {"phrases": json.dumps(bank.phrases), "encoder": bank.encoder}
    content = save({_ENTRY: bank.rows.float().numpy()}, metadata=told)
    with open(path, "wb") as file:
        file.write(content)


def _read_array(path: str) -> PromptBank:
    try:
        with open(path, "rb") as file:
            rows = np.load(io.BytesIO(file.read()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: no plain array can be read there ({error}).") from error
    if rows.dtype.kind != "f":
        raise CheckpointError(f"{path}: a prompt bank of type {rows.dtype}; expected floats.")
    return PromptBank(rows=torch.from_numpy(rows.astype(np.float32)))


def _read_tensors(path: str) -> PromptBank:
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            rows = file.get_tensor(_ENTRY)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: no prompt bank can be read there ({error}); expected safetensors with an "
            f"entry {_ENTRY!r}, or a .npy array."
        ) from error
    phrases = tuple(json.loads(told.get("phrases", "[]")))
    return PromptBank(rows=rows.float(), phrases=phrases, encoder=told.get("encoder", ""))


def similarity(text_BSE: Tensor, bank_NE: Tensor) -> Tensor:
    """Largest cosine of each caption with any phrase, ``[B, S]``, without gradient."""
    with torch.no_grad():
        cosines = F.normalize(text_BSE, dim=2) @ F.normalize(bank_NE, dim=1).T
        largest: Tensor = cosines.amax(dim=2)
        return largest


def suspected(similarity_BS: Tensor, counted_BS: Tensor, group: Group = None) -> Tensor:
    """Snippets more than a standard deviation above the mean similarity, bool ``[B, S]``.

    Mean and (unbiased) deviation are those of the rows in ``counted_BS`` on all ranks; with fewer
    than two of them nothing is suspected.
    """
    rows = similarity_BS[counted_BS].double()
    one = torch.ones((), dtype=rows.dtype, device=rows.device)
    number, total = all_reduced(torch.stack([one * len(rows), rows.sum()]), group)
    if number < 2:
        return torch.zeros_like(counted_BS)
    mean = total / number
    squares = all_reduced((rows - mean).square().sum(), group)
    threshold = mean + (squares / (number - 1)).sqrt()
    above: Tensor = similarity_BS > threshold.to(similarity_BS.dtype)
    return above


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Snippets of all ranks in triplets (anchor, positive, negative), paired by rank of score.

    ``bags`` counts the bags of all ranks one after the other; features are those of the snippets
    wherever they lie, with gradients that reach every rank.
    """

    bags: Tensor
    """int64 ``[n, 3]``."""
    snippets: Tensor
    """int64 ``[n, 3]``."""
    first_bag: int
    """Where this rank's bags begin."""
    num_bags: int
    """How many of them there are."""

    def features(self, parts: tuple[Tensor, ...], group: Group = None) -> Tensor:
        """Features of the snippets with their crops one after the other, ``[n, 3, K * W]``."""
        local = self.bags - self.first_bag
        if len(local) == 0:  # on all ranks alike
            return parts[0].new_zeros((0, 3, 1))
        mine = ((local >= 0) & (local < self.num_bags)).flatten().nonzero()[:, 0]
        bag, snippet = local.flatten()[mine], self.snippets.flatten()[mine]
        num_crops = max(part.shape[1] for part in parts)
        picked = [part[bag, :, snippet].expand(-1, num_crops, -1) for part in parts]
        rows = torch.cat(picked, dim=2).flatten(1)
        places = torch.zeros(self.bags.numel(), rows.shape[1], dtype=rows.dtype, device=rows.device)
        everyone = differentiable_all_reduce(places.index_put((mine,), rows), group)
        return everyone.view(*self.bags.shape, -1)

    @property
    def owned(self) -> Tensor:
        """Triplets that count for this rank: those whose anchor it holds, int64 ``[m]``."""
        local = self.bags[:, 0] - self.first_bag
        return ((local >= 0) & (local < self.num_bags)).nonzero()[:, 0]


def rank_triplets(
    scores_BS: Tensor,
    suspected_BS: Tensor,
    counted_BS: Tensor,
    bags: Bags,
    num: int,
    *,
    group: Group = None,
    suspected_only: bool = True,
) -> Triplets:
    """Lowest normal, lowest anomalous and highest suspected anomalous snippets of the batch.

    Equal scores are put in an order that depends on the names of the bags alone, not on their
    places. There are ``num`` triplets or as many as every kind has snippets.

    Args:
        scores_BS: probabilities.
        suspected_BS: which anomalous snippets have suspicious captions.
        counted_BS: which snippets may be chosen.
        bags: labels and names.
        num: rows of the bank.
        suspected_only: False also takes snippets that are not suspected, below all others, as the
            published code does where there are too few.
    """
    bag, snippet = counted_BS.nonzero(as_tuple=True)
    names = [draw_key(0, 0, name) >> 12 for name in bags.bag_ids]  # 52 bits: exact in float64
    order = torch.tensor(names, dtype=torch.float64, device=scores_BS.device)
    columns = [
        scores_BS[bag, snippet],
        suspected_BS[bag, snippet],
        bags.labels[bag],
        order[bag],
        snippet,
        bag,
    ]
    _, first_bag = gathered(bags.labels, group)
    columns[-1] = bag + first_bag
    table = torch.stack([column.detach().double() for column in columns], dim=1)
    score, dubious, label, _, row, owner = _by_name(gathered(table, group)[0]).unbind(dim=1)
    normal, anomalous = label == 0, label == 1
    lowest = [_ranked(score, normal), _ranked(score, anomalous)]
    chosen = anomalous & (dubious > 0) if suspected_only else anomalous
    highest = _ranked(-score * dubious, chosen)
    size = min(num, *(len(ranking) for ranking in (*lowest, highest)))
    index = torch.stack([ranking[:size] for ranking in (*lowest, highest)], dim=1)
    return Triplets(
        bags=owner[index].long(),
        snippets=row[index].long(),
        first_bag=first_bag,
        num_bags=bags.num_bags,
    )


def triplet_loss(features: Tensor, margin: float) -> Tensor:
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``, ``[n, 3, W] -> [n]``."""
    anchor, positive, negative = features.unbind(dim=1)
    near = torch.linalg.vector_norm(anchor - positive + _EPSILON, dim=1)
    far = torch.linalg.vector_norm(anchor - negative + _EPSILON, dim=1)
    loss: Tensor = F.relu(near - far + margin)
    return loss


def _by_name(table: Tensor) -> Tensor:
    """Rows in the order of (name of the bag, snippet)."""
    for column in (4, 3):
        table = table[table[:, column].argsort(stable=True)]
    return table


def _ranked(value: Tensor, chosen: Tensor) -> Tensor:
    """Rows that are chosen, the smallest value first."""
    rows = chosen.nonzero()[:, 0]
    return rows[value[rows].argsort(stable=True)]
