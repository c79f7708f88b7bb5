"""Training windows of MSF against the published sampling code."""

import random

import numpy as np
import pytest

from outspike.config import WindowConfig
from outspike.detectors.windows import contiguous, published_bag_draw, row_index


def padded(rows, length):
    out = np.zeros((length, rows.shape[1]), dtype=rows.dtype)
    out[: len(rows)] = rows
    return out


@pytest.mark.golden("msf/sampling*.npz", cases=r"(case\d+)/")
def test_windows_repeat_the_published_draws(golden):
    """The same seeds pick the same rows, in both classes, for short and long videos."""
    case = golden.group(f"{golden.case}/")
    length, seed = int(case["length"]), int(case["numpy_seed"])
    config = WindowConfig(rule="msf_2025", length=length)
    num_rows = len(case["feat"])
    for label, name in ((1, "anomaly"), (0, "normal")):
        index = row_index(config, num_rows, label=label, rng=np.random.RandomState(seed))
        np.testing.assert_array_equal(padded(case["feat"][index], length), case[f"{name}_out"])
        if num_rows > length:
            expected = case["anomaly_index"] if label else case["normal_start"]
            np.testing.assert_array_equal(index if label else index[0], expected)


@pytest.mark.golden("msf/sampling*.npz", cases=r"(step)/step(?:\d+)_out")
def test_a_step_skips_rows_as_published(golden):
    """Normal windows with a step take every step-th row of a run and pad the rest."""
    case = golden.group("step/")
    for key in [key for key in case if key.endswith("_out")]:
        step = int(key.removeprefix("step").removesuffix("_out"))
        rng = np.random.RandomState(int(case["numpy_seed"]))
        index = contiguous(len(case["feat"]), len(case[key]), rng, step=step)
        assert index[0] == case[key.replace("_out", "_start")]
        np.testing.assert_array_equal(padded(case["feat"][index], len(case[key])), case[key])


@pytest.mark.golden("msf/sampling*.npz")
def test_bags_are_drawn_as_published(golden):
    """Python's seeded sample: anomalous bags first, then normal ones, from one generator."""
    totals = {}
    for key, expected in golden.group("bags/").items():
        if "_of_" in key:
            kind, total = key.split("_of_")
            totals[kind] = (int(total), expected)
    rng = random.Random(golden.number("bags/python_seed"))
    size = len(totals["anomaly"][1])
    anomalous, normal = published_bag_draw(rng, totals["anomaly"][0], totals["normal"][0], size)
    np.testing.assert_array_equal(anomalous, totals["anomaly"][1])
    np.testing.assert_array_equal(normal, totals["normal"][1])
