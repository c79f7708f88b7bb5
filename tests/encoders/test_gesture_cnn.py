"""Real spiking weights through the spiking encoder path, on real event recordings."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from outspike.config import EncoderConfig
from outspike.encoders import build
from outspike.encoders.gesture_cnn import GestureCnn
from outspike.encoders.spiking_neurons import IntegratingNeuron, LeakyNeuron
from outspike.encoders.weights import load_state
from outspike.errors import CheckpointError
from outspike.events.columns import Events
from outspike.events.reader import open_events
from outspike.recording import Recording
from outspike.scoring.encode import encode_recording

WEIGHTS = "weights/dvs_gesture_snn.npz"
SPARKS = "events/evt2_gen3_vga.raw"
SIZE = (640, 480)
STEP_US = 5000


def test_integrating_neurons_spike_once_for_every_threshold():
    """Charge is kept over steps and calls, several thresholds give several spikes."""
    neuron = IntegratingNeuron()
    first = neuron(torch.tensor([[0.6], [0.6], [2.5]]))
    assert first.flatten().tolist() == [0.0, 1.0, 2.0]
    assert neuron(torch.tensor([[0.35]])).item() == 1.0  # on top of what was left: 0.7
    assert neuron(torch.tensor([[-9.0], [1.9], [0.2]])).flatten().tolist() == [0.0, 0.0, 1.0]
    neuron.reset()
    assert neuron(torch.tensor([[0.9]])).item() == 0.0


def test_leaky_neurons_fire_at_the_threshold_itself():
    """0.75 / 1.5 is exactly one half, and counts."""
    neuron = LeakyNeuron(threshold=0.5)
    assert neuron(torch.tensor([[0.75], [0.7]])).flatten().tolist() == [1.0, 0.0]


def test_other_files_are_not_the_gesture_network(tmp_path):
    """What is missing, unknown or of another shape is listed."""
    np.savez(tmp_path / "w.npz", **{"0.weight": np.zeros((16, 2, 3, 3)), "1.weight": np.zeros(1)})
    with pytest.raises(CheckpointError) as caught:
        GestureCnn(load_state(str(tmp_path / "w.npz"), "gesture-cnn"))
    message = str(caught.value)
    assert "missing 24.weight" in message
    assert "unknown 1.weight" in message
    assert "0.weight is (16, 2, 3, 3), expected (16, 2, 2, 2)" in message
    np.savez(tmp_path / "o.npz", **{"0.weight": np.array([{}], dtype=object)})
    with pytest.raises(CheckpointError, match="plain arrays"):
        load_state(str(tmp_path / "o.npz"), "gesture-cnn")
    (tmp_path / "t.npz").write_text("text")
    with pytest.raises(CheckpointError, match="plain arrays"):
        load_state(str(tmp_path / "t.npz"), "gesture-cnn")


def sparks(media):
    """Events of 96 ms of flying sparks, times from 0."""
    chunks = list(open_events(str(media / SPARKS), size=SIZE).chunks())
    t, x, y, p = (np.concatenate([getattr(c, name) for c in chunks]) for name in "txyp")
    return Events(t - t[0], x, y, p)


def frames_of(events, encoder):
    """Input of the network: 5 ms a step, counted and resized by the encoder's own code."""
    steps = events.t // STEP_US
    counts = np.zeros((int(steps[-1]) + 1, 2, SIZE[1], SIZE[0]), dtype=np.int64)
    np.add.at(counts, (steps, (events.p != 0).astype(int), events.y, events.x), 1)
    return torch.stack([encoder.resized(step) for step in counts])[:, None]


@pytest.fixture
def encoder(media):
    return build(EncoderConfig(kind="gesture-cnn", weights=str(media / WEIGHTS)))


@pytest.mark.media
def test_real_weights_spike_sensibly_on_a_real_recording(media, encoder):
    """Every layer of the trained network is alive and none runs wild; silence stays silent; the
    same weights in disorder do neither.
    """
    frames = frames_of(sparks(media), encoder)
    network = encoder.network
    rates = rates_of(network, frames)
    assert all(0.005 < rate < 0.5 for rate in rates), rates
    assert rates_of(network, torch.zeros_like(frames)) == [0.0] * len(rates)
    generator = torch.Generator().manual_seed(0)
    for weight in network.buffers():
        order = torch.randperm(weight.numel(), generator=generator)
        weight.copy_(weight.flatten()[order].reshape(weight.shape))
    disordered = rates_of(network, frames)
    assert not all(0.005 < rate < 0.5 for rate in disordered), disordered


def rates_of(network, frames):
    """Mean spikes a step of each layer, from rest."""
    network.reset()
    with torch.inference_mode():
        return [float(spikes.mean()) for spikes in network.layers(frames)]


@pytest.mark.media
def test_real_weights_make_features_of_a_real_recording(media, encoder):
    """Through the same function as extraction: every snippet differs, silence gives zeros."""
    encoder.grid = dataclasses.replace(encoder.grid, snippet_frames=4, stride=4)
    encoder.steps = 4
    recording = Recording(
        dataset="real",
        video_id="sparks",
        url=str(media / SPARKS),
        modality="events",
        fps=Fraction(1_000_000, STEP_US),
        size=SIZE,
    )
    rows = []
    facts = encode_recording(
        recording, [encoder], emit=lambda name, part, start, stop: rows.append(part)
    )
    found = np.concatenate(rows)[:, 0].astype(np.float32)
    assert found.shape == (facts.num_rows["gesture-cnn"], 128)
    assert len(np.unique(found, axis=0)) == len(found)
    active = (found > 0).mean(axis=1)
    assert ((active > 0.05) & (active < 0.95)).all(), active
