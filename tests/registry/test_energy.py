"""Operations are counted on real recordings, and what they would cost is told on the card."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from outspike.config import MotionFloorConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import Detector, LossTerm
from outspike.registry.card import model_card
from outspike.registry.energy import ADD_PJ, MAC_PJ, cost_of, count
from outspike.scoring.bundle import Bundle
from outspike.store.bags import Bag


class Toy(Detector):
    """Five inputs, three neurons that fire above zero, one output; and a square of the input."""

    config = MotionFloorConfig()

    def __init__(self, *, fires: bool) -> None:
        super().__init__()
        self.first = nn.Linear(5, 3)
        self.second = nn.Linear(3, 1)
        self.fires = fires

    @property
    def feature_sets(self) -> dict[str, int]:
        return {"toy": 5}

    def forward(self, bags: Bags) -> Scores:
        rows = self.inputs(bags)["toy"][:, 0]
        hidden = self.first(rows)
        if self.fires:
            hidden = (hidden > 0).to(rows.dtype)
        return Scores(snippet=torch.sigmoid(self.second(hidden)[..., 0]))

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        raise NotImplementedError


def bag_of(num_snippets: int) -> Bag:
    start = np.arange(num_snippets, dtype=np.int64) * 16
    rows = np.random.default_rng(num_snippets).standard_normal((1, num_snippets, 5))
    return Bag(
        dataset="toy",
        video_id=f"v{num_snippets}",
        features={"toy": rows.astype(np.float32)},
        start=start,
        stop=start + 16,
        num_frames=16 * num_snippets,
        fps=Fraction(25),
        label=0,
        class_name=None,
        synthetic=False,
        intervals=None,
        group=None,
        split="test",
    )


def test_spikes_are_added_and_everything_else_is_multiplied() -> None:
    """Against a count by hand, and against the same layers without spikes."""
    torch.manual_seed(0)
    toy = Toy(fires=True)
    bags = [bag_of(7), bag_of(13)]
    cost = count(toy, bags)
    rows = torch.cat([torch.from_numpy(bag.features["toy"][0]) for bag in bags])
    spikes = float((toy.first(rows) > 0).sum()) / 20
    assert 0 < spikes < 3
    assert cost.num_snippets == 20
    assert cost.dense_macs == 5 * 3 + 3 * 1
    assert cost.spiking_macs == 3 * 1
    assert cost.spikes == pytest.approx(spikes)
    assert cost.synaptic_operations == pytest.approx(spikes * 1)
    assert cost.dense_pj == pytest.approx(18 * MAC_PJ)
    assert cost.spiking_pj == pytest.approx(15 * MAC_PJ + spikes * ADD_PJ)

    dense = count(Toy(fires=False), bags)
    assert dense.dense_macs == cost.dense_macs
    assert dense.spiking_macs == dense.synaptic_operations == dense.spikes == 0
    assert dense.spiking_pj == dense.dense_pj


def test_counting_leaves_the_detector_as_it_was() -> None:
    """No hook stays behind, and the training mode is not changed."""
    toy = Toy(fires=True).train()
    count(toy, [bag_of(3)])
    assert toy.training
    assert not any(layer._forward_hooks for layer in toy.modules())


def test_the_card_tells_what_a_score_and_the_training_cost(
    saved: Callable[..., Path],
) -> None:
    """With the constants and their source; what could not be counted is said to be so."""
    told = {"num_workers": 4, "cpus_per_worker": 2.0, "gpus_per_worker": 0.5}
    bundle = Bundle.load(saved("event-pyramid", config=told))
    cost = count(Toy(fires=True), [bag_of(9)])
    card = model_card("m", bundle, cost=cost, training_s=3600.0)
    assert "18 multiply-accumulates" in card
    assert "4.6 pJ a multiply-accumulate and 0.9 pJ an addition" in card
    assert "Horowitz, ISSCC 2014" in card
    assert "3,600 s from start to registration, at most 8 core-hours and 2 GPU-hours" in card
    assert "not counted" in model_card("m", bundle)
    assert cost_of(bundle).num_snippets > 0
