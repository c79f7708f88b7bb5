"""``outspike demo``: the whole mission on generated recordings, each step as the job it stands for.

Every step is the same function that its job calls and every one does only what is missing, so a
second demo finds everything done.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from outspike.app import DONE, FAILED, table
from outspike.cluster import ray_session
from outspike.config import DataConfig, EvaluateConfig, PredictConfig, StoreConfig, TrainConfig
from outspike.extract.run import ExtractResult, extract
from outspike.predict.run import PredictResult, predict
from outspike.recipes import extract_miniature, msf_miniature
from outspike.registry.evaluation import Evaluation, evaluate_model
from outspike.registry.promote import promote
from outspike.synth.miniature import generate
from outspike.train.job import TrainResult, train

R = TypeVar("R")


@dataclass
class _Steps:
    """Prints each step's command, runs it, and remembers how long it took."""

    seconds: dict[str, float] = field(default_factory=dict)

    def take(self, name: str, command: str, function: Callable[[], R]) -> R:
        print(f"\n== {name}\n$ {command}", flush=True)
        began = time.monotonic()
        result = function()
        self.seconds[name] = time.monotonic() - began
        return result


def run(folder: Path, report: Path) -> int:
    """Generate, extract, train, evaluate, promote and predict; returns the exit code.

    Args:
        folder: data, store and runs.
        report: the HTML report and the predictions.
    """
    steps = _Steps()
    root = folder / "miniature"
    made = steps.take("generate", f"outspike demo --folder {folder}", lambda: generate(root))
    print(
        f"{made.num_videos} videos and {made.num_event_recordings} event recordings in {root}"
        + (" (already there)" if made.already_complete else "")
    )
    config = _train_config(folder, root)
    with ray_session():
        extracted = steps.take("extract", "jobs/extract.py", lambda: _extract(config))
        print(extracted.table())
        trained = steps.take("train", "jobs/train.py", lambda: train(config))
        print(trained.table())
    model = trained.version or ""
    evaluated = steps.take(
        "evaluate",
        f"jobs/evaluate.py --model {model} --out {report}",
        lambda: evaluate_model(EvaluateConfig(model=model, out=str(report))),
    )
    print(table(evaluated.rows()))
    promotion = steps.take(
        "promote", f"jobs/promote.py {model}", lambda: promote(config.tracking_uri, model)
    )
    print(promotion.table())
    if not promotion.passed:
        return FAILED
    predicted = steps.take(
        "predict",
        f"jobs/predict.py --input {root / 'unseen'} --out {report / 'predictions'}",
        lambda: predict(
            PredictConfig(
                model=f"models:/{config.name}@champion",
                input=str(root / "unseen"),
                out=str(report / "predictions"),
            )
        ),
    )
    print(predicted.table())
    print(_summary(steps, extracted, trained, evaluated, predicted))
    return DONE


def _train_config(folder: Path, root: Path) -> TrainConfig:
    return dataclasses.replace(
        msf_miniature(),
        data=DataConfig(dataset="miniature", root=str(root)),
        store=StoreConfig(url=str(folder / "store")),
        storage=str(folder / "runs"),
    )


def _extract(config: TrainConfig) -> ExtractResult:
    return extract(dataclasses.replace(extract_miniature(), data=config.data, store=config.store))


def _summary(
    steps: _Steps,
    extracted: ExtractResult,
    trained: TrainResult,
    evaluated: Evaluation,
    predicted: PredictResult,
) -> str:
    took = "   ".join(f"{name} {seconds:.0f} s" for name, seconds in steps.seconds.items())
    nothing_new = extracted.new == 0 and not trained.is_new
    lines = [
        "\n== summary" + (": everything was done already" if nothing_new else ""),
        f"  {took}   in all {sum(steps.seconds.values()):.0f} s",
        f"  {_headline(evaluated)}",
        f"  {len(predicted.predictions)} unseen recordings scored, files in {predicted.out}",
        f"  report {Path(evaluated.report_url).absolute().as_uri()}",
    ]
    return "\n".join(lines)


def _headline(evaluated: Evaluation) -> str:
    found = evaluated.results.primary
    name = evaluated.results.protocol["primary"]
    text = f"test {name} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    floor = evaluated.results.floor
    if floor is not None:
        text += f", motion floor {floor.metrics[name].value:.3f}"
    return text
