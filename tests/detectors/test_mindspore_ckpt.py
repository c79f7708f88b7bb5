"""MindSpore checkpoints: real files read without MindSpore, damaged ones named."""

import contextlib
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outspike.config import SaaConfig
from outspike.detectors import build, import_checkpoint
from outspike.detectors.mindspore_ckpt import read_mindspore
from outspike.detectors.saa import published
from outspike.errors import CheckpointError

#: Written by mindspore.save_checkpoint of MindSpore 2.10: half precision, and a single integer.
WRITTEN_BY_MINDSPORE = bytes.fromhex(
    "0a1c0a016812170802080212"
    "07466c6f617431361a08003c003c003c003c0a12"
    "0a017312"
    "0d1205496e7433321a0403000000"
)
SMALL = SaaConfig(width=16, attention_width=8, classifier_widths=(8, 4), bias=False)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(name, array, content=None, packed=False):
    """One value message, its shape in either of the two forms that protocol buffers allow."""
    dims = b"".join(varint(size) for size in array.shape)
    shape = block(1, dims) if packed else b"".join(b"\x08" + varint(n) for n in array.shape)
    kind = {"float32": b"Float32", "float16": b"Float16", "int64": b"Int64"}[array.dtype.name]
    content = array.tobytes() if content is None else content
    return block(1, block(1, name.encode()) + block(2, shape + block(2, kind) + block(3, content)))


def with_checksum(data):
    return data + b"crc_num" + zlib.crc32(data).to_bytes(10, "big")


@pytest.fixture
def saved(tmp_path):
    """Write bytes as a checkpoint."""

    def save(data):
        path = tmp_path / "come605.ckpt"
        path.write_bytes(data)
        return path

    return save


@pytest.mark.parametrize("wrap", [bytes, with_checksum])
def test_a_file_of_mindspore_itself_is_read(saved, wrap):
    """Names, shapes, types and values; a checksum, where there is one, is compared."""
    state = read_mindspore(saved(wrap(WRITTEN_BY_MINDSPORE)))
    assert torch.equal(state["h"], torch.ones(2, 2, dtype=torch.float16))
    assert state["s"].dtype == torch.int32
    assert state["s"].item() == 3


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    kind=st.sampled_from(["float32", "float16", "int64"]),
    packed=st.booleans(),
    cut=st.integers(0, 50),
)
def test_any_tensor_comes_back_whole_or_in_slices(tmp_path_factory, shape, kind, packed, cut):
    """Large parameters are stored as several values of one name."""
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    content = array.tobytes()
    cut = min(cut, len(content))
    parts = [content[:cut], content[cut:]]
    data = b"".join(value("w.gamma", array, part, packed) for part in parts)
    path = tmp_path_factory.mktemp("ckpt") / "a.ckpt"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_mindspore(path)["w.gamma"], array)


@given(end=st.integers(0, len(WRITTEN_BY_MINDSPORE) - 1))
def test_a_file_cut_short_is_refused_or_lacks_whole_tensors(tmp_path_factory, end):
    """Never a tensor with other values than those written."""
    path = tmp_path_factory.mktemp("ckpt") / "a.ckpt"
    path.write_bytes(WRITTEN_BY_MINDSPORE[:end])
    state = {}
    with contextlib.suppress(CheckpointError):
        state = read_mindspore(path)
    assert list(state) in ([], ["h"])
    for tensor in state.values():
        assert torch.equal(tensor, torch.ones(2, 2, dtype=torch.float16))


@given(position=st.integers(0, len(WRITTEN_BY_MINDSPORE) - 1), change=st.integers(1, 255))
def test_a_changed_byte_fails_the_checksum(tmp_path_factory, position, change):
    """Files with a checksum cannot be damaged in silence."""
    data = bytearray(with_checksum(WRITTEN_BY_MINDSPORE))
    data[position] ^= change
    path = tmp_path_factory.mktemp("ckpt") / "a.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_mindspore(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"PK\x03\x04not this", "not a MindSpore checkpoint"),
        (value("w", np.zeros(3, np.float32), b"\0" * 8), r"8 bytes for shape \(3,\).*expected 12"),
        (value("w", np.zeros(3, np.float32)).replace(b"Float32", b"Float12"), "'Float12'"),
        (
            value("w", np.zeros(3, np.float32)) + value("w", np.zeros(4, np.float32)),
            "different shapes",
        ),
    ],
    ids=["empty", "zip", "short", "type", "shapes"],
)
def test_other_files_are_one_clear_line(saved, data, told):
    """The path, and what is wrong with it."""
    with pytest.raises(CheckpointError, match=told) as caught:
        read_mindspore(saved(data))
    assert "come605.ckpt" in str(caught.value)


def mindspore_state(model):
    """A model's entries under MindSpore's names, kernels with an axis of one row."""
    renames = {
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
        "weight": "gamma",
        "bias": "beta",
    }
    state = {}
    for key, entry in published.NAMES.export(model).items():
        if published.is_optional(key):
            continue
        stem, _, last = key.rpartition(".")
        is_norm = f"{stem}.running_mean" in published.NAMES.export(model)
        name = f"{stem}.{renames[last]}" if is_norm else key
        state[name] = (entry[:, :, None] if entry.dim() == 3 else entry).numpy()
    return state


def test_an_saa_checkpoint_of_mindspore_gives_the_model_that_was_saved(saved):
    """Names and kernels are mapped, the width and the missing biases told from the file."""
    torch.manual_seed(0)
    model = build(SMALL)
    state = mindspore_state(model)
    state["moment1.attn.attention.0.weight"] = np.zeros(3, np.float32)
    state["global_step"] = np.array(5, dtype=np.int64)
    data = b"".join(value(name, array) for name, array in state.items())
    found = import_checkpoint("saa", saved(with_checksum(data)))
    assert (found.config.width, found.config.bias) == (16, False)
    for key, entry in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], entry), key
    del state["attn.attention.5.weight"]
    state["attn.attention.6.weight"] = np.zeros(1, np.float32)
    data = b"".join(value(name, array) for name, array in state.items())
    with pytest.raises(CheckpointError, match=r"missing: attn.*5\.weight; unknown: attn.*6"):
        import_checkpoint("saa", saved(data))
