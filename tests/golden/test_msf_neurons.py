"""Neurons, TIM and the spiking graph against the published MSF layers."""

import numpy as np
import pytest
import torch

from outspike.detectors.msf.graph import SpikingGraph, distance_adjacency, similarity_adjacency
from outspike.detectors.msf.tim import TemporalInteraction
from outspike.detectors.neurons import Neuron, lif

GRADIENT = {"atol": 1e-5, "rtol": 1e-4}


def tensor(array):
    return torch.from_numpy(np.array(array))


def assert_close(found, expected, **tolerance):
    np.testing.assert_allclose(found.detach().numpy(), expected, **tolerance)


@pytest.mark.golden("msf/lif*.npz", cases=r"(multistep_[^/]+)/")
@pytest.mark.parametrize("backend", ["compiled", "spikingjelly", "torch"])
def test_neurons_carry_their_membrane_over_two_calls(golden, backend):
    """Spikes and membranes equal the reference exactly, gradients to rounding, across a cut."""
    case = golden.group(f"{golden.case}/")
    tau, threshold = golden.case.removeprefix("multistep_tau").split("_th")
    neuron = Neuron(tau=float(tau), threshold=float(threshold))
    x = tensor(case["in"]).requires_grad_()
    cut = int(case["first_call_len"])
    first, v = lif(x[:cut], None, neuron, backend=backend)
    np.testing.assert_array_equal(v.detach(), case["out_v"][cut - 1])
    second, v = lif(x[cut:], v, neuron, backend=backend)
    spikes = torch.cat([first, second])
    np.testing.assert_array_equal(spikes.detach(), case["out_spikes"])
    np.testing.assert_array_equal(v.detach(), case["out_v"][-1])
    (spikes * tensor(case["upstream"])).sum().backward()
    assert_close(x.grad, case["grad_in"], **GRADIENT)


@pytest.mark.golden("msf/lif*.npz", cases=r"(strict_[^/]+)/")
def test_strict_neurons_repeat_the_tim_nodes(golden):
    """The strict, quadratic neuron of TIM: same spikes, membranes and gradients."""
    case = golden.group(f"{golden.case}/")
    threshold = float(golden.case.removeprefix("strict_th"))
    neuron = Neuron(tau=1.6, threshold=threshold, kind="strict_quadratic", alpha=2.0)
    x = tensor(case["in"]).requires_grad_()
    spikes, v = lif(x, None, neuron)
    np.testing.assert_array_equal(spikes.detach(), case["out_spikes"])
    np.testing.assert_array_equal(v.detach(), case["out_v"][-1])
    (spikes * tensor(case["upstream"])).sum().backward()
    assert_close(x.grad, case["grad_in"], **GRADIENT)


@pytest.mark.golden("msf/lif*.npz")
def test_a_membrane_exactly_on_the_threshold_fires_only_where_published(golden):
    """At a tie the multi-step neuron fires and the strict one does not."""
    firing, _ = lif(tensor(golden["tie/multistep_in"])[:, None], None, Neuron(tau=2, threshold=1))
    np.testing.assert_array_equal(firing[:, 0], golden["tie/multistep_tau2_th1_out"])
    strict = Neuron(tau=2, threshold=0.5, kind="strict_quadratic", alpha=2.0)
    silent, _ = lif(tensor(golden["tie/strict_in"])[:, None], None, strict)
    np.testing.assert_array_equal(silent[:, 0], golden["tie/strict_tau2_th0.5_out"])


@pytest.mark.golden("msf/tim*.npz", cases=r"in/spikes_(\d+)")
def test_tim_repeats_the_published_layer(golden):
    """TIM over the batch axis: spikes exact, gradients of input and weight to tolerance."""
    c = tensor(golden[f"in/spikes_{golden.case}"]).requires_grad_()
    weight = tensor(golden["state/interactor.weight"])
    tim = TemporalInteraction(c.shape[2], tau=1.6, batch_mixing=True)
    tim.load_state_dict({**tim.state_dict(), "weight": weight})
    out, _ = tim(c)
    np.testing.assert_array_equal(out.detach(), golden[f"out/spikes_{golden.case}"])
    (out * tensor(golden[f"in/upstream_{golden.case}"])).sum().backward()
    assert_close(c.grad, golden[f"grad/in_spikes_{golden.case}"], **GRADIENT)
    first = golden[f"grad/interactor.weight_{golden.case}[:4]"]
    assert_close(tim.weight.grad[: len(first)], first, **GRADIENT)
    norm = golden[f"grad_norm/interactor.weight_{golden.case}"]
    assert_close(tim.weight.grad.norm(), norm, rtol=1e-4)


@pytest.mark.golden("msf/tim*.npz", cases=r"in/spikes_(\d+)")
def test_tim_per_bag_is_the_published_layer_for_a_batch_of_one(golden):
    """The default form gives each bag what the published layer gives that bag alone."""
    c = tensor(golden[f"in/spikes_{golden.case}"])
    weight = tensor(golden["state/interactor.weight"])
    default = TemporalInteraction(c.shape[2], tau=1.6, batch_mixing=False)
    published = TemporalInteraction(c.shape[2], tau=1.6, batch_mixing=True)
    for tim in (default, published):
        tim.load_state_dict({**tim.state_dict(), "weight": weight})
    with torch.no_grad():
        together, _ = default(c)
        alone = torch.cat([published(bag[None])[0] for bag in c])
    np.testing.assert_array_equal(together, alone)


OUR_GRAPH = {"gc1": "similar_in", "gc2": "similar_out", "gc3": "distant_in", "gc4": "distant_out"}


def our_name(key):
    head, _, rest = key.partition(".")
    return f"{OUR_GRAPH.get(head, head)}.{rest}"


@pytest.mark.golden("msf/spiking_gcn*.npz", cases=r"in/x_(\d+)")
def test_the_spiking_graph_repeats_the_published_one(golden):
    """Adjacencies, outputs and all gradients, with and without lengths."""
    z = tensor(golden[f"in/x_{golden.case}"]).transpose(1, 2).contiguous().requires_grad_()
    state = golden.group("state/")
    lengths_key = f"in/lengths_{golden.case}"
    lengths = tensor(golden[lengths_key]) if lengths_key in golden else None
    graph = SpikingGraph(z.shape[2], tau=1.6)
    graph.load_state_dict(
        {our_name(key): tensor(value) for key, value in state.items() if "disAdj" not in key}
    )
    similar = similarity_adjacency(z, lengths)
    assert_close(similar, golden[f"out/similarity_adj_{golden.case}"], atol=1e-6)
    distant = distance_adjacency(z.shape[1], z)
    assert_close(distant, golden[f"out/distance_adj_{golden.case}"], atol=1e-6)
    out, _ = graph(z, lengths, freeze_padding=False)
    assert_close(out.transpose(1, 2), golden[f"out/y_{golden.case}"], atol=1e-5, rtol=1e-5)
    (out.transpose(1, 2) * tensor(golden[f"in/upstream_{golden.case}"])).sum().backward()
    assert_close(z.grad.transpose(1, 2), golden[f"grad/x_{golden.case}"], **GRADIENT)
    for key in state:
        if "disAdj" not in key:
            found = graph.get_parameter(our_name(key)).grad
            assert_close(found, golden[f"grad/{key}_{golden.case}"], **GRADIENT)
