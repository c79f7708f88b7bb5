"""One rank of a run in which rank 1 falls asleep: ``stalling.py CONFIG FOLDER RANK SIZE``.

Signs of life go to ``FOLDER/beat-<rank>``; whoever sees the standstill makes ``FOLDER/wake``.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from outspike import urls
from outspike.config import TrainConfig, from_json
from outspike.train import loop
from outspike.train.data import TrainingBags
from outspike.train.plan import make_plan
from outspike.train.watchdog import Beat, Heart

SLEEPS_AT = 5


class SleepyBags(TrainingBags):
    """Bags of a rank that does not go on before it is woken."""

    wake: Path

    def batch(self, step, world):
        while step == SLEEPS_AT and world.rank == 1 and not self.wake.exists():
            time.sleep(0.05)
        return super().batch(step, world)


def main(config: str, folder: str, rank: str, size: str) -> None:
    """Train as this rank."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=int(rank),
        world_size=int(size),
        timeout=timedelta(seconds=200),
    )
    SleepyBags.wake = Path(folder, "wake")
    loop.TrainingBags = SleepyBags

    def publish(beat: Beat) -> None:
        urls.write_bytes(f"{folder}/beat-{rank}", beat.to_bytes())

    def keep(name: str, text: str) -> str:
        urls.write_bytes(f"{folder}/stacks/{name}", text.encode())
        return f"{folder}/stacks/{name}"

    plan = make_plan(from_json(TrainConfig, json.loads(Path(config).read_text())))
    heart = Heart(int(rank), publish, stall_after_s=1.0, keep_stack=keep, every_s=0.1)
    with heart:
        loop.run(plan, f"{folder}/run", note=heart.at)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
