"""Training items of AED, draw for draw as published, with and without its misaligned retry."""

import random
import re

import numpy as np
import pytest

from outspike.detectors.aed.sampling import crop_index, crop_labels, item, padded
from outspike.detectors.windows import jittered_uniform, published_bag_draw


@pytest.mark.golden("lad2000/sampling*.npz", cases=r"out/(case\d+_seed\d+)_")
def test_crops_labels_and_jitter_repeat_the_published_draws(golden):
    """The generator is seeded before each call; short videos are filled with zeros."""
    number, seed = map(int, re.findall(r"\d+", golden.case))
    num_rows, length, step = golden["in/cases_len_length_step"][number].tolist()
    expected = golden.group(f"out/{golden.case}_")
    width = expected["feat"].shape[1]
    rows = np.arange(1, num_rows * width + 1).reshape(num_rows, width)
    index = crop_index(num_rows, length, np.random.RandomState(seed), step=step)
    assert index[0] == expected["r"]
    np.testing.assert_array_equal(padded(rows[index], length), expected["feat"])
    labels = crop_labels(golden[f"in/label_{number}"][0], int(index[0]), length)
    np.testing.assert_array_equal(labels, expected["label"][0])
    if num_rows > length:
        jittered = jittered_uniform(num_rows, length, np.random.RandomState(seed))
        np.testing.assert_array_equal(jittered, expected["perturb"])


@pytest.mark.golden("lad2000/sampling*.npz")
def test_a_score_alarms_from_the_threshold_on(golden):
    """What reaches the threshold is positive, as in our false-alarm rate."""
    scores = golden["in/scores"]
    for key, expected in golden.group("out/scorebinary_").items():
        np.testing.assert_array_equal(scores >= float(key), expected)


def drawn(golden, seed, retry):
    """Names, rows, labels, starts and classes of one item, anomalous recordings first.

    Crops are drawn for an anomalous and a normal recording in turn.
    """
    rows = golden.group("in/feat/")
    labels = {name: found[0] for name, found in golden.group("in/frame_label/").items()}
    anomalous = [name for name in rows if labels[name].any()]
    normal = [name for name in rows if not labels[name].any()]
    size, length = golden.number("in/sample_size"), golden.number("in/max_seqlen")
    picked = published_bag_draw(random.Random(seed), len(anomalous), len(normal), size)
    names = [anomalous[i] for i in picked[0]] + [normal[i] for i in picked[1]]
    rng = np.random.RandomState(seed)
    parts = {}
    for name in (one for pair in zip(names[:size], names[size:], strict=True) for one in pair):
        found = item(
            rows[name], labels[name], length, rng, anomalous=name in anomalous, retry=retry
        )
        parts[name] = found
    classes = [golden.number(f"in/video_label/{name}") for name in names]
    return names, *zip(*(parts[name] for name in names), strict=True), classes


@pytest.mark.golden("lad2000/dataset_getitem*.npz", cases=r"out/seed(\d+)/")
def test_an_item_is_the_published_one_misaligned_retries_included(golden):
    """Recordings, crops, labels and classes of a balanced item."""
    names, rows, labels, starts, classes = drawn(golden, int(golden.case), "reference")
    expected = golden.group(f"out/seed{golden.case}/")
    assert names == expected["names"].tolist()
    np.testing.assert_array_equal(starts, expected["start"])
    lengths = [len(golden[f"in/feat/{name}"]) for name in names]
    np.testing.assert_array_equal(lengths, expected["len"])
    found = {"features": np.stack(rows), "frame_labels": np.stack(labels)[:, None]}
    found["video_labels"] = np.array(classes)[:, None]
    half = len(names) // 2
    for part, values in found.items():
        for kind, some in (("anomaly", values[:half]), ("normal", values[half:])):
            np.testing.assert_array_equal(some, expected[f"{kind}_{part}"], err_msg=part)


@pytest.mark.golden("lad2000/dataset_getitem*.npz", cases=r"out/seed(\d+)/")
def test_an_aligned_retry_gives_rows_and_labels_of_the_same_frames(golden):
    """Every crop's rows and labels begin at the start it reports."""
    names, rows, labels, starts, _ = drawn(golden, int(golden.case), "aligned")
    length = golden.number("in/max_seqlen")
    for name, crop, known, start in zip(names, rows, labels, starts, strict=True):
        whole = golden[f"in/feat/{name}"]
        np.testing.assert_array_equal(crop, padded(whole[start : start + length], length))
        truth = golden[f"in/frame_label/{name}"][0]
        np.testing.assert_array_equal(known, crop_labels(truth, start, length))
        assert known.any() or not truth.any()
