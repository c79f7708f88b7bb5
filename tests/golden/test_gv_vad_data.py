"""Training rows and list entries of GV-VAD against the published data code."""

import numpy as np
import pytest

from outspike.config import WindowConfig
from outspike.datasets.gv_vad_lists import read_list
from outspike.detectors.windows import Window, cut

SNIPPET = 16


def segments(rows_KSD, length):
    """What the training window rule of the recipes makes of stored rows."""
    start = np.arange(rows_KSD.shape[1], dtype=np.int64) * SNIPPET
    whole = Window(features={"f": rows_KSD}, start=start, stop=start + SNIPPET)
    config = WindowConfig(rule="mean_segments", length=length)
    return cut(whole, config, label=1, rng=np.random.RandomState(0)).features["f"]


@pytest.mark.golden("gv_vad/data_cases*.npz", cases=r"out/process_feat/(n\d+_len\d+)")
def test_rows_are_averaged_or_repeated_as_published(golden):
    """Any number of rows becomes any number of segments."""
    name, length = golden.case.split("_len")
    found = segments(golden[f"in/process_feat/{name}"][None], int(length))
    np.testing.assert_allclose(found[0], golden[f"out/process_feat/{golden.case}"], atol=1e-6)


@pytest.mark.golden("gv_vad/data_cases*.npz", cases=r"in/(item\d+)/visual")
def test_training_items_are_the_published_ones(golden):
    """Frames by crop and captions once, label by position, and whether the clip was generated."""
    case = golden.case
    entry = read_list([str(golden[f"in/{case}/feature_path"])], num_anomalous=1)[0]
    assert entry.label == golden.number(f"out/{case}/label")
    assert entry.synthetic == bool(golden.number(f"out/{case}/source"))
    assert entry.text_name == str(golden[f"in/{case}/text_file"])
    visual, text = golden[f"in/{case}/visual"], golden[f"in/{case}/text"]
    for rows, key in ((visual, "train_visual"), (text[None], "train_text_crop0")):
        expected = golden[f"out/{case}/{key}"]
        found = segments(rows, expected.shape[-2])
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-6)


@pytest.mark.golden("gv_vad/data_cases*.npz", cases=r"in/(item\d+)/visual")
def test_test_items_are_the_published_ones(golden):
    """All rows, whatever their number; the published axes are (row, crop, column)."""
    case = golden.case
    entry = read_list([str(golden[f"in/{case}/feature_path"])], num_anomalous=0)[0]
    assert entry.stem == str(golden[f"out/{case}/test_name"])
    visual, text = golden[f"in/{case}/visual"], golden[f"in/{case}/text"]
    assert visual.transpose(1, 0, 2).shape == tuple(golden[f"out/{case}/test_visual_shape"])
    repeated = np.broadcast_to(text[:, None], (len(text), len(visual), text.shape[1]))
    assert repeated.shape == tuple(golden[f"out/{case}/test_text_shape"])
