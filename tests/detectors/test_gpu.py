"""Every detector on a CUDA device: the scores, losses and gradients of the CPU, within rounding."""

import pytest
import torch

from outspike.config import AedConfig, GvVadConfig, IefVadConfig, MsfConfig, SaaConfig
from outspike.detectors.build import build
from outspike.detectors.neurons import Neuron, lif
from outspike.detectors.reduce import reduce_terms

DEVICE = "cuda"
CONFIGS = {
    "ief_vad": IefVadConfig(
        image_width=8, event_width=8, width=8, num_layers=1, num_heads=2, refinement_steps=1
    ),
    "gv_vad": GvVadConfig(
        visual_width=10, text_width=7, hidden=8, dropout=0.3, pal_weight=0, mpl_weight=0
    ),
    "saa": SaaConfig(width=12, attention_width=8, classifier_widths=(8, 4), dropout=0.3),
    "aed": AedConfig(kind="aed", width=20, window=3, hidden=4, down=8, head=6),
    "aed_t": AedConfig(width=20, window=3, hidden=4, down=8, head=6),
}


def cost_and_gradients(detector, bags, *, half=False):
    detector.zero_grad()
    with torch.autocast(bags.labels.device.type, torch.bfloat16, enabled=half):
        terms = detector.loss(bags, detector(bags))
        cost, _ = reduce_terms(terms, torch.ones_like(bags.labels))
    cost.backward()
    return cost.float(), [p.grad for p in detector.parameters() if p.grad is not None]


@pytest.mark.gpu
@pytest.mark.parametrize("name", CONFIGS)
def test_scores_costs_and_gradients_are_those_of_the_cpu(batch, name):
    """Dropout included: it is drawn from keys, so both devices leave out the same."""
    torch.manual_seed(0)
    here = build(CONFIGS[name])
    there = build(CONFIGS[name])
    there.load_state_dict(here.state_dict())
    there.to(DEVICE)
    bags = batch([9, 2, 14, 6], here.feature_sets, supervised=here.needs_frame_labels)
    moved = bags.to(DEVICE)
    with torch.no_grad():
        scores = here.eval()(bags).snippet, there.eval()(moved).snippet
    torch.testing.assert_close(scores[1].cpu(), scores[0], atol=1e-4, rtol=0)
    expected, found = (
        cost_and_gradients(here.train(), bags),
        cost_and_gradients(there.train(), moved),
    )
    torch.testing.assert_close(found[0].cpu(), expected[0], atol=1e-4, rtol=1e-3)
    for theirs, ours in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, atol=1e-4, rtol=1e-2)


@pytest.mark.gpu
def test_neurons_fire_as_on_the_cpu():
    """On the 1/256 grid with a time constant of 2 every sum is exact, so spikes are equal."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 513, (6, 3, 5), generator=generator) / 256
    lengths = torch.tensor([6, 2, 4])
    neuron = Neuron(tau=2.0, threshold=1.0)
    results = []
    for device in ("cpu", DEVICE):
        inputs = x.to(device, copy=True).requires_grad_()
        spikes, v = lif(inputs, None, neuron, lengths_B=lengths.to(device))
        (spikes * (1 + x.to(device))).sum().backward()
        results.append((spikes.cpu(), v.cpu(), inputs.grad.cpu()))
    assert results[0][0].any()
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][2], results[1][2], atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_the_spiking_detector_scores_as_on_the_cpu(batch):
    """Rounding may move a membrane over its threshold, and then a few scores; most are equal."""
    torch.manual_seed(0)
    detector = build(MsfConfig(width=16, hidden=4)).eval()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.constant_(module.bias, 0.8)
    bags = batch([9, 2, 14, 6], detector.feature_sets)
    with torch.no_grad():
        here = detector(bags).snippet
        there = detector.to(DEVICE)(bags.to(DEVICE)).snippet.cpu()
    assert ((here - there).abs() < 1e-4).float().mean() > 0.9


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*CONFIGS, "msf"])
def test_training_in_bfloat16_stays_finite_and_near(batch, name):
    """Costs within a few percent of single precision, gradients finite."""
    torch.manual_seed(0)
    config = {**CONFIGS, "msf": MsfConfig(width=16, hidden=4)}[name]
    detector = build(config).to(DEVICE).train()
    supervised = detector.needs_frame_labels
    bags = batch([9, 2, 14, 6], detector.feature_sets, supervised=supervised).to(DEVICE)
    exact, _ = cost_and_gradients(detector, bags)
    cost, gradients = cost_and_gradients(detector, bags, half=True)
    torch.testing.assert_close(cost, exact, rtol=0.1, atol=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients)
