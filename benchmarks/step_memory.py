"""Memory of one training step, in two ways: what PyTorch holds at most, and what the process does.

The first is exact and the same on any machine. The second has the C library's share in it as well:
pieces below 32 MiB that were freed stay with the process, and glibc gives larger ones back at once.
"""

import resource
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def held_and_resident(step: Callable[[], object], device: str) -> tuple[int, int]:
    """Bytes above what is there before the step: most held by PyTorch, rise of resident memory.

    On a GPU both are what PyTorch holds there. Resident memory is a maximum over the life of the
    process, so measure it in a process that did nothing larger before.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        held = torch.cuda.max_memory_allocated() - before
        return held, held
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes, initial=0)), peak - pages * resource.getpagesize()
