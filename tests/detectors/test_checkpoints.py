"""Published weights: strict, plain tensors only, and every fault listed."""

import dataclasses
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from outspike.config import IefVadConfig, MsfConfig
from outspike.detectors import build, import_checkpoint
from outspike.detectors.ief_vad import published as ief_vad
from outspike.detectors.msf import published as msf
from outspike.errors import CheckpointError, ConfigError

MSF = MsfConfig(width=16, hidden=4)
IEF = IefVadConfig(
    image_width=8, event_width=8, width=8, num_layers=1, num_heads=2, refinement_steps=1
)


@pytest.fixture
def msf_state():
    """A published-shaped MSF state dict."""
    torch.manual_seed(0)
    return msf.export_published(build(MSF))


def saved(state, folder, name="weights.pkl"):
    path = folder / name
    torch.save(state, path)
    return path


def test_the_published_layout_has_47_entries(msf_state):
    """Used and unused ones, under the published names."""
    assert len(msf_state) == 47
    assert sum(map(msf.is_unused, msf_state)) == 8


def test_weights_come_back_in_the_default_form_and_in_eval_mode(msf_state, tmp_path):
    """Import infers the width, and the exported file equals what was imported."""
    model = import_checkpoint("msf", saved(msf_state, tmp_path))
    assert not model.training
    assert dataclasses.replace(model.config, dropout=MSF.dropout) == MSF
    again = msf.export_published(model)
    assert all(torch.equal(again[k], v) for k, v in msf_state.items() if not msf.is_unused(k))


@pytest.mark.parametrize("setting", [{"input_norm": "standardise"}, {"hidden": 2}], ids=str)
def test_no_layer_is_left_at_random_beside_imported_ones(setting, msf_state, tmp_path):
    """Settings that add a scaling or a projection are refused: no file has entries for them."""
    with pytest.raises(
        CheckpointError, match=r"(standardise|project)\S+: the published MSF layout"
    ):
        import_checkpoint("msf", saved(msf_state, tmp_path), dataclasses.replace(MSF, **setting))


def test_safetensors_are_read_too(msf_state, tmp_path):
    """The same entries from the other plain format."""
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in msf_state.items()}, path)
    assert import_checkpoint("msf", path).config == MSF


def test_missing_and_unknown_entries_and_shapes_are_all_listed(msf_state, tmp_path):
    """One message names every fault, so that nobody fixes them one by one."""
    del msf_state["MSF.conv_2.1.running_var"]
    msf_state["MSF.conv_9.weight"] = torch.zeros(1)
    msf_state["classifier.weight"] = torch.zeros(1, 5)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint("msf", saved(msf_state, tmp_path))
    message = str(caught.value)
    assert "missing: MSF.conv_2.1.running_var" in message
    assert "unknown: MSF.conv_9.weight" in message
    assert "wrong shape: classifier.weight (1, 5) for (1, 16)" in message


def test_thresholds_come_from_the_file_or_from_the_publication(msf_state, tmp_path):
    """A file without the frozen constants gets the published ones; others are honoured."""
    msf_state["MSF.tim.in_lif.threshold"] = torch.tensor(0.25)
    model = import_checkpoint("msf", saved(msf_state, tmp_path))
    assert model.fusion.tim.neurons()[0].threshold == 0.25
    for key in msf.OPTIONAL:
        del msf_state[key]
    model = import_checkpoint("msf", saved(msf_state, tmp_path))
    assert model.fusion.tim.neurons()[1].threshold == 0.5


def test_weights_that_are_not_finite_are_refused(msf_state, tmp_path):
    """A diverged run is not a model."""
    msf_state["classifier.bias"] = torch.tensor([torch.nan])
    with pytest.raises(CheckpointError, match=r"not finite: classifier\.bias"):
        import_checkpoint("msf", saved(msf_state, tmp_path))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    """Weights-only loading: the trap never springs."""
    trap = tmp_path / "sprung"
    path = saved({"classifier.weight": Trap(trap)}, tmp_path)
    with pytest.raises(CheckpointError, match="never run"):
        import_checkpoint("msf", path)
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps(Trap(trap), protocol=2))
    with pytest.raises(CheckpointError, match="never run"):
        import_checkpoint("msf", plain)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken"])
def test_files_that_are_no_weights_are_named(tmp_path, content):
    """Empty, text and broken archives give our error with the path in it."""
    path = tmp_path / "junk.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"junk\.pth"):
        import_checkpoint("msf", path)


def test_tables_of_other_things_are_refused(tmp_path):
    """A dict of numbers is not a state dict; neither is a list."""
    for state in ({"lr": 0.1}, [torch.zeros(1)]):
        with pytest.raises(CheckpointError, match="names and tensors"):
            import_checkpoint("msf", saved(state, tmp_path))


def test_an_absent_file_and_an_unknown_name_are_named(tmp_path):
    """Both say what was looked for."""
    with pytest.raises(CheckpointError, match="no such file"):
        import_checkpoint("msf", tmp_path / "absent.pkl")
    path = saved({"w": torch.zeros(1)}, tmp_path)
    with pytest.raises(ConfigError, match="motion_floor"):
        import_checkpoint("motion_floor", path)


@pytest.mark.parametrize("layout", ["plain", "running"])
def test_both_ief_vad_layouts_need_the_settings_they_do_not_hold(tmp_path, layout):
    """Heads, nu, rate and noise model are never guessed."""
    model = build(IEF)
    state = ief_vad.NAMES.export(model)
    assert all(key.startswith("temporal.") for key in state)
    if layout == "running":
        state = {"epoch": 1, "model_state_dict": state, "optimizer_state_dict": {}, "ap": 0.1}
    path = saved(state, tmp_path, "ucf.pth")
    with pytest.raises(ConfigError, match="num_heads"):
        import_checkpoint("ief_vad", path)
    loaded = import_checkpoint("ief_vad", path, IEF)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    with pytest.raises(CheckpointError, match=r"missing: temporal\.refinement_blocks\.1"):
        import_checkpoint("ief_vad", path, dataclasses.replace(IEF, refinement_steps=2))


def test_an_ief_vad_of_the_published_size_has_the_published_number_of_parameters():
    """78 tensors, 23,633,665 values at width 768 with two layers and ten steps."""
    with torch.device("meta"):
        model = build(IefVadConfig())
    assert len(ief_vad.NAMES.key_map(model)) == 78
    assert sum(p.numel() for p in model.parameters()) == 23_633_665
