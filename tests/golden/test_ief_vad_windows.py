"""Bags of IEF-VAD against the published padding, resampling, splitting and labelling."""

import numpy as np
import pytest

from outspike.detectors.ief_vad.labels import XD_CODES, is_anomalous, label_vector
from outspike.detectors.windows import bin_edges, mean_bins, split_windows


def training_rows(rows, length):
    """What a training bag holds once it is padded in its batch."""
    binned = mean_bins(rows[None], bin_edges(len(rows), length))[0]
    padded = np.zeros((length, rows.shape[1]), dtype=binned.dtype)
    padded[: len(binned)] = binned
    return padded, len(binned)


@pytest.mark.golden("ief_vad/process_feat_split*.npz", cases=r"in/feat_(\d+)")
def test_training_bags_are_padded_or_averaged_as_published(golden):
    """Short bags keep their rows, long ones become bin means; values exact."""
    rows = golden[f"in/feat_{golden.case}"]
    expected = golden[f"out/process_feat_{golden.case}"]
    found, length = training_rows(rows, len(expected))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert length == golden.number(f"out/process_feat_len_{golden.case}")


@pytest.mark.golden("ief_vad/process_feat_split*.npz", cases=r"in/feat16_(\d+)")
def test_half_precision_bags_keep_the_published_types(golden):
    """float16 rows are averaged into float32 and merely padded ones stay float16."""
    expected = golden[f"out/process_feat16_{golden.case}"]
    found, _ = training_rows(golden[f"in/feat16_{golden.case}"], len(expected))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.golden("ief_vad/process_feat_split*.npz", cases=r"in/feat_(\d+)")
def test_test_bags_are_split_as_published(golden):
    """Windows side by side, with one too many for an exact multiple."""
    expected = golden[f"out/process_split_{golden.case}"]
    found = split_windows(golden[f"in/feat_{golden.case}"], expected.shape[-2])
    np.testing.assert_array_equal(found, expected.reshape(-1, *expected.shape[-2:]))


def map_names(dataset, prompts):
    """Keys of the label map, from its values: the published ones differ in the first letter."""
    if dataset == "xd":
        return XD_CODES
    return prompts if dataset == "shang" else [p[0].upper() + p[1:] for p in prompts]


@pytest.mark.golden("ief_vad/batch_labels*.npz", cases=r"in/([^_]+)_texts")
def test_label_texts_become_the_published_vectors(golden):
    """Vectors of all four label maps, and the target the loss takes from them."""
    names = map_names(golden.case, golden[f"in/{golden.case}_prompt_text"].tolist())
    texts = golden[f"in/{golden.case}_texts"].tolist()
    vectors = [label_vector(text, names) for text in texts]
    np.testing.assert_array_equal(np.stack(vectors), golden[f"out/{golden.case}"])
    flags = [is_anomalous(vector) for vector in vectors]
    np.testing.assert_array_equal(flags, golden[f"out/{golden.case}_is_abnormal"])
