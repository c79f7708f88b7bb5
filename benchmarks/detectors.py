"""Detectors: time and memory of training and scoring, ours against the plain form of each.

    OMP_NUM_THREADS=1 python benchmarks/detectors.py [--rounds 5] [--only lif msf] [--device cpu]

Parts: ``lif`` (neurons over time against spikingjelly's loop), ``msf`` (a training step, and one
long video), ``ief`` (time of a training step), ``ief-memory`` (its peak memory, in processes of
their own), ``others`` (SAA and AED, for information; GV-VAD has ``benchmarks/gv_vad.py``). Plain
forms are those of ``naive_detectors.py``; each is checked against ours in the same run before it is
timed. Forms take turns, times are medians of processor time, which other work on the machine
changes little. On a GPU there are rows for ``torch.compile`` and bfloat16 as well.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from naive_detectors import NaiveIefVad, NaiveMsf, plain_lif
from step_memory import held_and_resident
from torch import Tensor, nn

from outspike.config import AedConfig, DetectorConfig, IefVadConfig, MsfConfig, SaaConfig
from outspike.detectors.bags import Bags
from outspike.detectors.base import Detector
from outspike.detectors.build import build
from outspike.detectors.ief_vad import published as ief_published
from outspike.detectors.msf import published as msf_published
from outspike.detectors.neurons import Neuron, lif
from outspike.detectors.reduce import reduce_terms

Work = Callable[[], object]
FRAMES = 16
PARTS = ("lif", "msf", "ief", "ief-memory", "others")


# ------------------------------------------------------------------------------------ measuring


def medians(works: Mapping[str, Work], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each piece of work, the pieces taking turns; the first round is dropped."""
    cuda = device.startswith("cuda")
    clock = time.perf_counter if cuda else time.process_time
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            if cuda:
                torch.cuda.synchronize()
            began = clock()
            work()
            if cuda:
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, seconds: Mapping[str, float], reach: float | None) -> None:
    """Rows of a markdown table; ratios are against the first of the works."""
    base = next(iter(seconds.values()))
    for number, (name, value) in enumerate(seconds.items()):
        ratio, met = ("", "") if number == 0 else (f"x{base / value:.2f}", "")
        if number == 1 and reach is not None:
            met = f"x{reach:g} {'yes' if base / value >= reach else 'NO'}"
        print(f"| {title} | {name} | {1e3 * value:.1f} ms | {ratio} | {met} |", flush=True)


def make_bags(config: DetectorConfig, num: int, length: int, device: str) -> Bags:
    """Random bags for a detector, normal ones first, with frame labels where it reads them."""
    detector = build(config)
    generator = torch.Generator().manual_seed(0)
    starts = torch.arange(length)[:, None] * FRAMES + torch.tensor([0, FRAMES])
    labels = torch.arange(num).ge(num // 2)
    frames = labels[:, None, None].expand(num, length, FRAMES).to(torch.int8)
    return Bags(
        features={
            name: torch.randn(num, 1, length, width, generator=generator).abs() * 0.3
            for name, width in detector.feature_sets.items()
        },
        num_snippets=torch.full((num,), length),
        labels=labels.float(),
        class_ids=torch.full((num,), -1),
        synthetic=torch.zeros(num, dtype=torch.bool),
        frame_ranges=starts.expand(num, length, 2).contiguous(),
        bag_ids=tuple(f"bench/{i}" for i in range(num)),
        draw_keys=torch.arange(num) * 7919,
        step=0,
        frame_labels=frames if detector.needs_frame_labels else None,
    ).to(device)


def made(config: DetectorConfig, device: str) -> Detector:
    """A detector with weights of a fixed seed, in training mode."""
    torch.manual_seed(0)
    return build(config).to(device).train()


def our_cost(model: Detector, bags: Bags) -> Tensor:
    """Cost of a batch through the terms and the reducer."""
    return reduce_terms(model.loss(bags, model(bags)), torch.ones_like(bags.labels))[0]


def stepper(
    model: nn.Module, cost: Callable[[Bags], Tensor], *, bf16: bool = False
) -> Callable[[Bags], None]:
    """One optimisation step on a batch: forward, loss, backward, Adam."""
    device = next(model.parameters()).device.type
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4)

    def step(bags: Bags) -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = cost(bags)
        loss.backward()
        optimiser.step()

    return step


def gpu_rows(model: Detector, bags: Bags, device: str) -> dict[str, Work]:
    """Steps of ours with ``torch.compile`` and in bfloat16, on a GPU only."""
    if not device.startswith("cuda"):
        return {}

    def cost(bags: Bags) -> Tensor:
        return our_cost(model, bags)

    steps = {
        "outspike, torch.compile": stepper(model, torch.compile(cost)),
        "outspike, bf16": stepper(model, cost, bf16=True),
    }
    return {name: partial(step, bags) for name, step in steps.items()}


# ----------------------------------------------------------------------------------------- LIF


def run_lif(arguments: argparse.Namespace) -> None:
    """Neurons forward and backward over short and long sequences."""
    neuron = Neuron(tau=1.6, threshold=1.0)
    for shape in ((16, 60, 64), (256, 60, 64), (4096, 1, 64), (100, 8, 4096)):
        generator = torch.Generator().manual_seed(1)
        x = (torch.randn(shape, generator=generator) + 0.8).to(arguments.device)
        weight = torch.randn(shape, generator=generator).to(arguments.device)
        node = plain_lif(neuron.tau)

        def theirs(x: Tensor = x, node: nn.Module = node) -> Tensor:
            node.reset()
            spikes: Tensor = node(x)
            return spikes

        def ours(x: Tensor = x) -> Tensor:
            return lif(x, None, neuron)[0]

        def both(run: Callable[[], Tensor], x: Tensor = x, w: Tensor = weight) -> Tensor:
            x.grad = None
            x.requires_grad_(True)
            spikes = run()
            (spikes * w).sum().backward()
            return spikes.detach()

        spikes = [both(ours), both(theirs)]
        gradients = []
        for run in (ours, theirs):
            both(run)
            assert x.grad is not None
            gradients.append(x.grad.clone())
        assert torch.equal(spikes[0], spikes[1]), "spikes differ"
        assert bool(spikes[0].any()), "no neuron fired, which proves nothing"
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-5)
        works: dict[str, Work] = {
            "spikingjelly, torch": lambda run=theirs, both=both: both(run),
            "outspike": lambda run=ours, both=both: both(run),
        }
        title = f"LIF forward + backward, {shape}"
        report(title, medians(works, arguments.rounds, arguments.device), 2.0)


# ----------------------------------------------------------------------------------------- MSF


def naive_msf(model: Detector, config: MsfConfig, device: str) -> NaiveMsf:
    """The plain form with the weights of ours."""
    naive = NaiveMsf(config)
    missing = naive.load_state_dict(msf_published.export_published(model), strict=False)
    assert not missing.missing_keys, missing.missing_keys
    return naive.to(device).train()


def msf_cost(naive: NaiveMsf, bags: Bags) -> Tensor:
    """Cost of a batch in the plain form."""
    scores = naive(bags.features[MsfConfig().feature_set][:, 0])
    return naive.cost(scores, bags.num_snippets, bags.labels)


def check_msf(device: str) -> None:
    """Same scores, cost and gradients as published, without dropout."""
    config = MsfConfig(dropout=0.0, compat="msf_2025")
    ours = made(config, device)
    naive = naive_msf(ours, config, device)
    bags = make_bags(config, 6, 12, device)
    scores = naive(bags.features[config.feature_set][:, 0])
    torch.testing.assert_close(ours(bags).snippet, scores, rtol=0, atol=1e-5)
    costs = our_cost(ours, bags), naive.cost(scores, bags.num_snippets, bags.labels)
    torch.testing.assert_close(costs[0], costs[1], rtol=1e-4, atol=0)
    for cost in costs:
        cost.backward()
    pairs = (
        (ours.fusion.tim.weight, naive.MSF.tim.interactor.weight),
        (ours.fusion.branches[0].conv.weight, naive.MSF.conv_1[0].weight),
    )
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)


def run_msf(arguments: argparse.Namespace) -> None:
    """A training step at the published shape, and one long video."""
    device = arguments.device
    check_msf(device)
    config = MsfConfig()
    ours = made(config, device)
    naive = naive_msf(made(config, device), config, device)
    bags = make_bags(config, 60, 16, device)
    same = made(MsfConfig(compat="msf_2025"), device)
    works: dict[str, Work] = {
        "plain": partial(stepper(naive, lambda b: msf_cost(naive, b)), bags),
        "outspike": partial(stepper(ours, lambda b: our_cost(ours, b)), bags),
        "outspike, published": partial(stepper(same, lambda b: our_cost(same, b)), bags),
        **gpu_rows(ours, bags, device),
    }
    seconds = medians(works, 4 * arguments.rounds, device)
    report("MSF training step, 60 x 16 x 256", seconds, 1.5)
    ours = made(config, device).eval()
    naive = naive_msf(ours, config, device).eval()
    video = make_bags(config, 1, arguments.snippets, device)
    rows = video.features[config.feature_set][:, 0]
    with torch.inference_mode():
        torch.testing.assert_close(ours(video).snippet, naive(rows), rtol=0, atol=1e-5)
        works = {"plain": lambda: naive(rows), "outspike": lambda: ours(video)}
        seconds = medians(works, arguments.rounds, device)
    report(f"MSF scores one video of {arguments.snippets} snippets", seconds, 10.0)


# ------------------------------------------------------------------------------------- IEF-VAD


def check_ief(device: str) -> None:
    """Same logits, cost and gradients as published, without dropout."""
    sizes = {"width": 48, "image_width": 48, "event_width": 48, "window": 24}
    config = IefVadConfig(attention_dropout=0.0, compat="ief_vad_2025", **sizes)
    ours = made(config, device)
    naive = NaiveIefVad(config).to(device).train()
    naive.load_state_dict(ief_published.NAMES.export(ours), strict=True)
    bags = make_bags(config, 4, 24, device)
    costs = our_cost(ours, bags), ief_cost(naive, bags)
    torch.testing.assert_close(costs[0], costs[1], rtol=1e-5, atol=0)
    for cost in costs:
        cost.backward()
    parameters = dict(naive.named_parameters())
    for key, value in ours.named_parameters():
        other = parameters[ief_published.NAMES.of(key)].grad
        torch.testing.assert_close(value.grad, other, rtol=1e-3, atol=1e-6)


def ief_cost(naive: NaiveIefVad, bags: Bags) -> Tensor:
    """Cost of a batch in the plain form."""
    image, event = (
        bags.features[name][:, 0] for name in (naive.config.image_set, naive.config.event_set)
    )
    return naive.cost(naive(image, event), bags.num_snippets, bags.labels)


def ief_step(form: str, device: str) -> Callable[[Bags], None]:
    """A training step of one form at the published sizes."""
    config = IefVadConfig()
    ours = made(config, device)
    if form == "ours":
        return stepper(ours, lambda bags: our_cost(ours, bags))
    naive = NaiveIefVad(config).to(device).train()
    naive.load_state_dict(ief_published.NAMES.export(ours), strict=True)
    return stepper(naive, lambda bags: ief_cost(naive, bags))


def ief_bags(num: int, device: str) -> Bags:
    """Bags of the published length and widths."""
    return make_bags(IefVadConfig(), num, 256, device)


def step_memory(form: str, num_bags: int, device: str) -> tuple[int, int]:
    """Most bytes held by PyTorch and rise of resident memory in one step, above weights, their
    moments and the batch.
    """
    step = ief_step(form, device)
    step(ief_bags(1, device))  # compiles kernels, touches libraries, and makes the moments
    return held_and_resident(partial(step, ief_bags(num_bags, device)), device)


def run_ief(arguments: argparse.Namespace) -> None:
    """Time of a step on some bags."""
    device = arguments.device
    check_ief(device)
    num = 2 * arguments.ief_half
    bags = ief_bags(num, device)
    forms = {"plain": "plain", "outspike": "ours"}
    works: dict[str, Work] = {n: partial(ief_step(form, device), bags) for n, form in forms.items()}
    works.update(gpu_rows(made(IefVadConfig(), device), bags, device))
    seconds = medians(works, arguments.rounds, device)
    report(f"IEF-VAD training step, {num} x 256 x 768", seconds, None)


def run_ief_memory(arguments: argparse.Namespace) -> None:
    """Peak memory of a step on the published 64 + 64 bags, each form in a process of its own."""
    peaks = {}
    for form in ("plain", "ours"):
        command = [sys.executable, __file__, "--child", form, "--device", arguments.device]
        command += ["--memory-half", str(arguments.memory_half)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        peaks[form] = [int(number) for number in printed.split()]
    for index, what in enumerate(("held by PyTorch", "resident")):
        plain, ours = peaks["plain"][index], peaks["ours"][index]
        title = f"IEF-VAD memory of a step, {2 * arguments.memory_half} x 256 x 768, {what}"
        met = "yes" if ours <= 0.5 * plain else "NO"
        print(f"| {title} | plain | {plain / 2**20:.0f} MiB | | |")
        print(f"| {title} | outspike | {ours / 2**20:.0f} MiB | {ours / plain:.2f} | 0.5 {met} |")


# -------------------------------------------------------------------------------------- others


def run_others(arguments: argparse.Namespace) -> None:
    """Training steps of SAA and AED; absolute, there is no other form to compare with."""
    shapes: dict[str, tuple[DetectorConfig, int, int]] = {
        "SAA training step, 16 x 320 x 1024": (SaaConfig(), 16, 320),
        "AED training step, 60 x 5 x 2048": (AedConfig(kind="aed", width=2048), 60, 5),
        "AED-T training step, 60 x 5 x 2048": (AedConfig(kind="aed_t", width=2048), 60, 5),
    }
    for title, (config, num, length) in shapes.items():
        model = made(config, arguments.device)
        bags = make_bags(config, num, length, arguments.device)
        step = stepper(model, lambda b, model=model: our_cost(model, b))
        works: dict[str, Work] = {
            "outspike": partial(step, bags),
            **gpu_rows(model, bags, arguments.device),
        }
        report(title, medians(works, arguments.rounds, arguments.device), None)


def main() -> None:
    """Run the parts asked for and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--snippets", type=int, default=4096)
    parser.add_argument("--ief-half", type=int, default=4)
    parser.add_argument("--memory-half", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=("plain", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        print(*step_memory(arguments.child, 2 * arguments.memory_half, arguments.device))
        return
    if not torch.cuda.is_available():
        print("No CUDA device: rows for torch.compile and bf16 are left out.\n")
    print("| task | form | median | ours is | reach |\n| --- | --- | --- | --- | --- |")
    runs = {
        "lif": run_lif,
        "msf": run_msf,
        "ief": run_ief,
        "ief-memory": run_ief_memory,
        "others": run_others,
    }
    for part in arguments.only:
        runs[part](arguments)


if __name__ == "__main__":
    main()
