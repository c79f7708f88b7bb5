"""Several detectors of one kind, trained side by side, whose scores are averaged."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from outspike.config import IefVadConfig, MsfConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import Detector, LossTerm
from outspike.detectors.draws import subkeys
from outspike.errors import ConfigError

#: Configs that have ``members``.
Joinable = MsfConfig | IefVadConfig


class Ensemble(Detector):
    """``config.members`` detectors with initial weights and dropout of their own.

    They read the same bags in the same order. Each has its own loss terms, and the terms are added
    up, so each takes the steps that it would take alone; with few training bags the mean of several
    is steadier than any of them.

    Args:
        config: of each member, but for ``members``.
        kind: class of the members.
    """

    config: Joinable

    def __init__(self, config: Joinable, kind: type[Detector]) -> None:
        super().__init__()
        if config.members < 1:
            raise ConfigError(f"{config.kind}: members={config.members}: at least one.")
        if config.compat is not None:
            raise ConfigError(
                f"{config.kind}: compat={config.compat!r} is one published network; set members=1."
            )
        self.config = config
        one: type = kind
        single = replace(config, members=1)
        self.members = nn.ModuleList(one(single) for _ in range(config.members))

    @property
    def feature_sets(self) -> dict[str, int]:
        """Those of any member."""
        return self._all[0].feature_sets

    @property
    def spiking_layers(self) -> tuple[str, ...]:
        """Those of any member; members run one after the other."""
        return self._all[0].spiking_layers

    def fit_inputs(self, batches: Iterable[Bags]) -> None:
        """Fit the input scaling, which is the same for all."""
        first, *others = self._all
        first.fit_inputs(batches)
        scaling = {
            name: value for name, value in first.state_dict().items() if "standardise" in name
        }
        for member in others:
            member.load_state_dict(scaling, strict=False)

    def reset(self) -> None:
        """Forget spiking state."""
        for member in self._all:
            member.reset()

    def forward(self, bags: Bags) -> Scores:
        """The mean of the members' scores; extras hold what each of them said, by its number."""
        said = [member(self._own(bags, number)) for number, member in enumerate(self._all)]
        extras = {
            f"{number}/{name}": value
            for number, scores in enumerate(said)
            for name, value in {"snippet": scores.snippet, **scores.extras}.items()
        }
        return Scores(
            snippet=torch.stack([scores.snippet for scores in said]).mean(dim=0), extras=extras
        )

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """The terms of every member, each under its name and number."""
        terms = []
        for number, member in enumerate(self._all):
            prefix = f"{number}/"
            own = {
                name.removeprefix(prefix): value
                for name, value in scores.extras.items()
                if name.startswith(prefix)
            }
            alone = Scores(snippet=own.pop("snippet"), extras=own)
            terms += [
                replace(term, name=f"{term.name}/{number}") for term in member.loss(bags, alone)
            ]
        return terms

    @property
    def _all(self) -> list[Detector]:
        return [member for member in self.members if isinstance(member, Detector)]

    def _own(self, bags: Bags, number: int) -> Bags:
        """The same bags with dropout keys of a member's own."""
        if bags.draw_keys is None:
            return bags
        keys = subkeys(bags.draw_keys, len(self.members)).view(bags.num_bags, -1)
        return replace(bags, draw_keys=keys[:, number].contiguous())
