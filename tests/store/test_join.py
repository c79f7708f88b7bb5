"""Promises of joining feature sets on different grids by frame range."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError, StoreError
from outspike.store.bags import BagReader
from outspike.store.join import JoinedReader, JoinRule, covered_share, resample
from outspike.timebase import SnippetGrid


def write(store, kit, spec, name, num_frames, grid=None, fps=Fraction(25), seed=0):
    """One recording of ``spec`` on a grid of its own; returns what was written, ``[S, K, D]``."""
    start, stop = (grid or SnippetGrid()).ranges(num_frames)
    rng = np.random.default_rng([seed, len(name), *spec.name.encode()])
    rows = rng.standard_normal((len(start), spec.num_crops, spec.width)).astype(np.float16)
    video = kit.video(name, num_frames, spec)
    with store.segment_writer(spec) as writer:
        writer.begin(video.recording, stat=video.stat)
        writer.append(rows, start, stop)
        writer.end(num_frames, fps)
    store.commit(writer.drain())
    return rows, start, stop


grids = st.builds(
    SnippetGrid,
    snippet_frames=st.integers(8, 40),
    stride=st.integers(1, 8),
    tail=st.sampled_from(["keep", "drop"]),
)


@settings(max_examples=60)
@given(
    mine=grids,
    theirs=grids,
    frames=st.tuples(st.integers(60, 200), st.integers(60, 200)),
    rule=st.builds(
        JoinRule, rows=st.sampled_from(["mean", "nearest"]), gaps=st.sampled_from(["zeros", "hold"])
    ),
)
def test_rows_meet_by_the_frames_they_share(mine, theirs, frames, rule):
    """Against frames counted one by one, for any two grids and lengths."""
    target, source = mine.ranges(frames[0]), theirs.ranges(frames[1])
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, len(source[0]), 3)).astype(np.float32)
    found, share = resample(features, source, target, rule), covered_share(target, source)
    sets = [set(range(a, b)) for a, b in zip(*source, strict=True)]
    for row, (a, b) in enumerate(zip(*target, strict=True)):
        wanted = set(range(a, b))
        shared = np.array([len(wanted & other) for other in sets])
        assert share[row] == pytest.approx(len(wanted & set().union(*sets)) / (b - a))
        if shared.sum() and rule.rows == "mean":
            expected = (features * shared[:, None]).sum(axis=1) / shared.sum()
        elif shared.sum():
            expected = features[:, shared.argmax()]
        elif rule.gaps == "zeros":
            expected = np.zeros((2, 3))
        else:
            distance = [
                min(abs(a - (y - 1)), abs(x - (b - 1))) for x, y in zip(*source, strict=True)
            ]
            expected = features[:, int(np.argmin(distance))]
        assert np.allclose(found[:, row], expected, atol=1e-5)


def test_one_grid_joins_bit_for_bit(store, kit):
    """Where frame ranges are the same, the join is what BagReader gives."""
    one, two = kit.spec("one"), kit.spec("two", width=3)
    for name, frames in (("a", 160), ("b", 77)):
        write(store, kit, one, name, frames)
        write(store, kit, two, name, frames)
    joined = JoinedReader(store, "one", {"two": JoinRule()})
    plain = BagReader(store, ["one", "two"])
    assert joined.keys() == plain.keys()
    for found in joined:
        expected = plain.read((found.bag.dataset, found.bag.video_id))
        for name in ("one", "two"):
            assert np.array_equal(found.bag.features[name], expected.features[name])
        assert found.covered["two"].tolist() == [1.0] * expected.num_snippets
    assert "0 filled" in joined.report()


def test_strides_crops_and_missing_videos_are_joined_and_counted(store, kit):
    """Stride 16 with two crops, stride 8 with one crop, one video short, one missing."""
    base, other = kit.spec("base"), kit.spec("other", num_crops=1, width=4)
    dense = SnippetGrid(snippet_frames=16, stride=8, tail="drop")
    write(store, kit, base, "a", 160)
    rows, start, stop = write(store, kit, other, "a", 160, dense)
    write(store, kit, base, "short", 160)
    write(store, kit, other, "short", 88, dense)
    write(store, kit, base, "lacking", 48)
    rule = JoinRule(gaps="zeros", missing="zeros", crops="repeat")
    joined = JoinedReader(store, "base", {"other": rule})
    assert joined.keys() == [("ds", "a"), ("ds", "lacking"), ("ds", "short")]
    bags = {found.bag.video_id: found for found in joined}
    features = bags["a"].bag.features["other"]
    assert features.shape == (2, 10, 4)
    assert np.array_equal(features[0], features[1]), "one crop, repeated"
    overlap = np.minimum(stop, 32) - np.maximum(start, 16)
    weights = np.maximum(overlap, 0)[:, None]
    expected = (rows[:, 0].astype(np.float32) * weights).sum(axis=0) / weights.sum()
    assert np.allclose(features[0, 1], expected, atol=2e-3)
    share = bags["short"].covered["other"].tolist()
    assert share == [1.0] * 5 + [0.5] + [0.0] * 4
    assert not bags["short"].bag.features["other"][:, 6:].any()
    assert not bags["lacking"].bag.features["other"].any()
    assert bags["lacking"].covered["other"].tolist() == [0.0] * 3
    report = joined.coverage["other"]
    assert (report.rows, report.whole, report.partly, report.filled) == (23, 15, 1, 7)
    assert report.missing == ["ds/lacking"]
    assert "15 covered whole, 1 in part, 7 filled; 1 recordings missing" in joined.report()
    held = JoinedReader(
        store, "base", {"other": JoinRule(gaps="hold", missing="skip", crops="mean")}
    )
    assert held.keys() == [("ds", "a"), ("ds", "short")]
    kept = held.read(("ds", "short")).bag.features["other"]
    last = BagReader(store, ["other"]).read(("ds", "short")).features["other"][0, -1]
    assert np.array_equal(kept[0, 9], last)


def test_nothing_is_made_up_unless_it_is_asked_for(store, kit):
    """Missing videos, gaps, crops and frame rates are refused with what to choose."""
    base, other = kit.spec("base"), kit.spec("other", num_crops=1, width=4)
    write(store, kit, base, "a", 160)
    with pytest.raises(StoreError, match="no feature set 'other'"):
        JoinedReader(store, "base", {"other": JoinRule()})
    write(store, kit, other, "a", 100)
    with pytest.raises(AlignmentError, match=r"other has 1 crops, base 2; choose crops='repeat'"):
        JoinedReader(store, "base", {"other": JoinRule()})
    joined = JoinedReader(store, "base", {"other": JoinRule(crops="repeat")})
    with pytest.raises(AlignmentError, match=r"nothing for 3 of 10 rows.*\[112, 128\)"):
        joined.read(("ds", "a"))
    write(store, kit, base, "b", 32)
    joined = JoinedReader(store, "base", {"other": JoinRule(crops="repeat")})
    with pytest.raises(StoreError, match=r"other lacks 1 of 2 recordings.*ds/b"):
        joined.keys()
    write(store, kit, other, "b", 32, fps=Fraction(30))
    with pytest.raises(AlignmentError, match="25 frames a second, other 30"):
        JoinedReader(store, "base", {"other": JoinRule(crops="repeat")}).read(("ds", "b"))
    with pytest.raises(ConfigError, match="at least one other"):
        JoinedReader(store, "base", {})
