"""Neurons: three engines, one arithmetic; padding freezes them; gradients are the surrogate's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.detectors.msf.tim import TemporalInteraction
from outspike.detectors.neurons import Neuron, lif

SIGMOID = Neuron(tau=1.6, threshold=1.0)
STRICT = Neuron(tau=1.6, threshold=0.5, kind="strict_quadratic", alpha=2.0)


class Step(torch.autograd.Function):
    """One spike with a surrogate gradient, written as plainly as possible."""

    @staticmethod
    def forward(ctx, h, neuron):
        ctx.save_for_backward(h)
        ctx.neuron = neuron
        return neuron.fires(h).to(h.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.neuron.surrogate(ctx.saved_tensors[0]), None


def plain(x, v, neuron):
    """The equations, step by step through autograd."""
    spikes = []
    for step in x:
        h = v + (step - v) / neuron.tau
        s = Step.apply(h, neuron)
        v = h * (1 - s.detach())
        spikes.append(s)
    return torch.stack(spikes), v


def sequence(seed, steps=12, bags=3, channels=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, bags, channels, generator=generator, dtype=dtype) * 2
    v = torch.randn(bags, channels, generator=generator, dtype=dtype) * 0.3
    return x.requires_grad_(), v.requires_grad_()


def grads(outputs, inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    loss = sum(
        (o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs
    )
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("backend", ["compiled", "torch", "spikingjelly"])
@pytest.mark.parametrize("neuron", [SIGMOID, STRICT], ids=["sigmoid", "strict"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_engine_follows_the_equations(backend, neuron, dtype):
    """Spikes and membranes bit for bit, gradients to rounding, also through the first membrane."""
    if backend == "spikingjelly" and neuron is STRICT:
        pytest.skip("spikingjelly has no strict comparison")
    for seed in range(5):
        x, v = sequence(seed, dtype=dtype)
        found, expected = lif(x, v, neuron, backend=backend), plain(x, v, neuron)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
        for a, b in zip(grads(found, (x, v)), grads(expected, (x, v)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    backend=st.sampled_from(["compiled", "torch", "spikingjelly"]),
)
def test_padding_freezes_the_membrane_and_makes_no_spike(seed, lengths, backend):
    """A padded row equals the same row cut to its length: spikes, last membrane, gradients."""
    x, v = sequence(seed)
    spikes, last = lif(x, v, SIGMOID, lengths_B=torch.tensor(lengths), backend=backend)
    (grad_x,) = grads((spikes, last), (x,))
    for b, n in enumerate(lengths):
        x_b, v_b = x[:n, b : b + 1].detach(), v[b : b + 1].detach()
        x_b.requires_grad_(), v_b.requires_grad_()
        alone, alone_last = lif(x_b, v_b, SIGMOID, backend=backend)
        assert torch.equal(spikes[:n, b], alone[:, 0])
        assert not spikes[n:, b].any()
        assert torch.equal(last[b], alone_last[0])
        assert not grad_x[n:, b].any()


def test_padded_gradients_are_those_of_the_cut_sequence():
    """Every engine sends the last membrane's gradient to the last true step."""
    lengths = torch.tensor([4, 12, 1])
    for backend in ("compiled", "torch", "spikingjelly"):
        x, v = sequence(3, dtype=torch.float64)
        _, last = lif(x, v, SIGMOID, lengths_B=lengths, backend=backend)
        (grad,) = torch.autograd.grad(last.sum(), x)
        for b, n in enumerate(lengths.tolist()):
            cut = x[:n, b : b + 1].detach().requires_grad_()
            _, end = lif(cut, v[b : b + 1].detach(), SIGMOID, backend=backend)
            (expected,) = torch.autograd.grad(end.sum(), cut)
            torch.testing.assert_close(grad[:n, b], expected[:, 0])
            assert not grad[n:, b].any()


def test_a_sequence_in_two_calls_is_the_sequence_in_one():
    """The membrane handed over carries everything there is to know."""
    x, v = sequence(7)
    whole, last = lif(x, v, SIGMOID)
    first, between = lif(x[:5], v, SIGMOID)
    second, end = lif(x[5:], between, SIGMOID)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end, last)


def test_no_input_is_changed():
    """Engines work on copies of the membrane and of the current."""
    x, v = sequence(1)
    kept = x.detach().clone(), v.detach().clone()
    lif(x, v, SIGMOID)[0].sum().backward()
    assert torch.equal(x, kept[0])
    assert torch.equal(v, kept[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_engines_of_tim_agree(dtype):
    """Compiled and plain recurrence: equal spikes, membranes and gradients."""
    torch.manual_seed(0)
    tim = TemporalInteraction(16, tau=1.6, batch_mixing=False).to(dtype)
    with torch.no_grad():
        tim.weight.normal_(0.2, 0.5)
    c = (torch.rand(3, 20, 16) < 0.4).to(dtype).requires_grad_()
    results = {}
    for backend in ("compiled", "torch"):
        out, state = tim(c, backend=backend)
        gradients = torch.autograd.grad((out * torch.arange(16)).sum(), (c, tim.weight))
        results[backend] = (out, state.inner, state.outer, *gradients)
    assert 0.05 < results["torch"][0][:, 1:].mean() < 0.95
    for a, b in zip(results["compiled"], results["torch"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_only_the_mixing_form_of_tim_hears_other_bags():
    """By default a bag's output is the same with any neighbours; published mixing is not."""
    torch.manual_seed(0)
    c = (torch.rand(4, 10, 8) < 0.5).float()
    for mixing in (False, True):
        tim = TemporalInteraction(8, tau=1.6, batch_mixing=mixing)
        with torch.no_grad():
            tim.weight.normal_(0.2, 0.5)
            same = torch.equal(tim(c)[0][:1], tim(c[:1])[0])
        assert same is not mixing
