"""Several recipes, each trained, judged under its own protocol beside the floor: one table.

Runs that are finished are found, not repeated, so a recipe more costs only its own training.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outspike import urls
from outspike.config import TrainConfig
from outspike.errors import DatasetError
from outspike.evaluate.bootstrap import Difference
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.results import Estimate, Results
from outspike.evaluate.stored import floor_scores, score_bundle
from outspike.evaluate.words import figure, signed
from outspike.scoring.bundle import Bundle
from outspike.scoring.scores import VideoScores
from outspike.train.job import train

logger = logging.getLogger(__name__)

_HEADER = (
    "recipe",
    "detector",
    "learns from",
    "protocol",
    "seed",
    "figure, 95 % interval",
    "against the floor",
    "parameters",
    "steps",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recipe under one seed."""

    recipe: str
    detector: str
    learns_from: str
    protocol: str
    seed: int
    results: Results
    num_parameters: int
    steps: int

    @property
    def _metric(self) -> str:
        return str(self.results.protocol["primary"])

    def cells(self) -> tuple[str, ...]:
        """What the table shows of it, in the order of its header."""
        estimate = self.results.metrics[self._metric]
        return (
            f"`{self.recipe}`",
            self.detector,
            self.learns_from,
            f"`{self.protocol}`",
            str(self.seed),
            f"{self._metric} {figure(self._metric, estimate.value)}{self._range(estimate, figure)}",
            self._difference(),
            f"{self.num_parameters:,}",
            str(self.steps),
        )

    def _difference(self) -> str:
        floor = self.results.floor
        if floor is None:
            return ""
        change = floor.differences[self._metric]
        if change.value is None:
            return f"undefined: {change.reason}"
        value = signed(self._metric, change.value)
        return f"{value}{self._range(change, signed)}, {floor.verdict(self._metric)}"

    def _range(self, found: Estimate | Difference, told: Callable[[str, float | None], str]) -> str:
        if found.low is None or found.high is None:
            return ""
        return f" [{told(self._metric, found.low)}, {told(self._metric, found.high)}]"


def compare(recipes: Sequence[tuple[str, TrainConfig]], seeds: Sequence[int]) -> list[Row]:
    """Train every recipe under every seed, in this process, and judge it beside the floor.

    Args:
        recipes: names and configs.
        seeds: each recipe is trained once with each.

    Raises:
        OutspikeError: a recipe cannot be trained as it is.
        DatasetError: a recipe gives no bundle, or its protocol has no test recordings in its store.
    """
    rows: list[Row] = []
    floors: dict[tuple[object, ...], list[VideoScores]] = {}
    for name, config in recipes:
        for seed in seeds:
            logger.info("recipe=%s seed=%d", name, seed)
            rows.append(_row(name, dataclasses.replace(config, seed=seed, num_workers=0), floors))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table, ready for a page of documentation."""
    lines = [_HEADER, tuple("---" for _ in _HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _row(
    name: str, config: TrainConfig, floors: dict[tuple[object, ...], list[VideoScores]]
) -> Row:
    trained = train(config, register_model=False)
    if trained.bundle is None:
        raise DatasetError(
            f"recipe {name!r} leaves no bundle to judge: its encoders do not make what its "
            "detector reads."
        )
    bundle = Bundle.load(urls.local_path(trained.bundle))
    told = bundle.provenance
    key = (told["store"], told["catalog_version"], told["recordings_version"], bundle.protocol)
    is_floor = bundle.detector_config.kind == "motion_floor"
    if not is_floor and key not in floors:
        floors[key] = floor_scores(bundle)
    results = evaluate(
        score_bundle(bundle),
        get_protocol(bundle.protocol),
        floor=None if is_floor else floors[key],
        floor_name="motion_floor",
    )
    return Row(
        recipe=name,
        detector=bundle.detector_config.kind,
        learns_from="frame labels" if told["trained_on"]["learns_frames"] else "recording labels",
        protocol=bundle.protocol,
        seed=config.seed,
        results=results,
        num_parameters=sum(p.numel() for p in bundle.detector.parameters()),
        steps=trained.step,
    )
