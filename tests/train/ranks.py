"""One rank of a training run in plain torch, as a program: ``ranks.py CASES OUT [RANK SIZE MEET]``.

``CASES`` is a JSON list of ``{"name", "config", "dtype"}``; ``OUT`` gets ``<name>.safetensors``
(weights, buffers and last gradients) and ``<name>.json`` (losses of every step) from rank 0.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from outspike.config import TrainConfig, from_json
from outspike.train.data import TrainingBags
from outspike.train.plan import make_plan
from outspike.train.step import Learner, World


def train(config: TrainConfig, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], Any]:
    """Losses of every step, and everything the run has changed."""
    plan = make_plan(config)
    learner = Learner(plan.config, world=World.current(), dtype=dtype)
    source = TrainingBags(plan)
    learner.prepare(source)
    losses = dict(learner.steps(source, start=0, stop=config.steps))
    tensors = {f"state/{name}": value for name, value in learner.objective.state_dict().items()}
    for name, parameter in learner.objective.named_parameters():
        if parameter.grad is not None:
            tensors[f"gradient/{name}"] = parameter.grad
    return {name: value.detach().clone() for name, value in tensors.items()}, losses


def main(cases: str, out: str, rank: str = "0", size: str = "1", meet: str = "") -> None:
    """Train every case as this rank."""
    torch.set_num_threads(1)
    if int(size) > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meet}",
            rank=int(rank),
            world_size=int(size),
            timeout=timedelta(seconds=60),
        )
    for case in json.loads(Path(cases).read_text()):
        tensors, losses = train(
            from_json(TrainConfig, case["config"]), getattr(torch, case["dtype"])
        )
        if rank == "0":
            save_file(tensors, f"{out}/{case['name']}.safetensors")
            Path(f"{out}/{case['name']}.json").write_text(json.dumps(losses))
    if int(size) > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
