"""Published feature files in and out of a store: every layout, exact values, honest identity."""

import dataclasses
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError, DatasetError
from outspike.recording import Recording
from outspike.store.bags import BagReader
from outspike.store.importing import (
    FeatureFiles,
    ImportSettings,
    export_features,
    frame_ranges,
    import_features,
)
from outspike.store.npy_layouts import LAYOUTS, load_array, save_array
from outspike.store.store import FeatureStore

ONE_CROP = {"rows", "lad", "emb"}
SETTINGS = ImportSettings(name="rows", origin="a made-up network", layout="rows")


def recording_of(name, url="x.npy"):
    return Recording(dataset="ds", video_id=name, url=url, split="train", label=0, intervals=())


def item(folder, name, features_SKD, layout="rows", num_frames=None):
    """Write the files of one recording in a layout, and describe them."""
    files = []
    for ending, array in LAYOUTS[layout].write(features_SKD).items():
        files.append(f"{folder}/{name}{ending}")
        save_array(files[-1], array)
    return FeatureFiles(
        recording=recording_of(name, files[0]), files=tuple(files), num_frames=num_frames
    )


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@settings(max_examples=12)
@given(
    num_snippets=st.integers(1, 40),
    num_crops=st.sampled_from([1, 5, 10]),
    width=st.integers(1, 8),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_a_layout_writes_it_reads(
    layout, num_snippets, num_crops, width, half, seed, tmp_path_factory
):
    """Every layout keeps every bit, and finds its own files among others."""
    if layout in ONE_CROP:
        num_crops = 1
    dtype = np.float16 if half else np.float32
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num_snippets, num_crops, width)).astype(dtype)
    root = tmp_path_factory.mktemp("layout")
    written = item(root, "class/v__a.b_x264", features, layout)
    paths = [os.path.relpath(path, root) for path in written.files]
    groups = LAYOUTS[layout].group([*reversed(paths), "labels.csv", "other/readme.txt"])
    assert groups == {"class/v__a.b_x264": tuple(paths)}
    found = LAYOUTS[layout].read(written.files)
    assert found.dtype == dtype
    assert found.tobytes() == features.tobytes()


@pytest.mark.parametrize("layout", ["rows", "crop-files", "snippets-first", "clip", "lad"])
def test_import_then_export_gives_the_same_files(layout, store, tmp_path):
    """Through the store and out again, byte for byte."""
    rng = np.random.default_rng(0)
    num_crops = 1 if layout in ONE_CROP else 10
    items = [
        item(tmp_path / "in", f"v{i}", rng.random((3 + i, num_crops, 4), dtype=np.float32), layout)
        for i in range(3)
    ]
    chosen = dataclasses.replace(SETTINGS, layout=layout)
    result = import_features(store, items, chosen)
    assert (result.num_new, result.bad) == (3, {})
    for (_, video_id), files in export_features(store, "rows", str(tmp_path / "out"), layout):
        originals = next(i.files for i in items if i.recording.video_id == video_id)
        for original, copy in zip(originals, files, strict=True):
            assert load_array(copy).tobytes() == load_array(original).tobytes()


def test_the_identity_says_what_is_known_and_no_more(store, tmp_path):
    """Origin and layout make the fingerprint; it is stated that nothing here made the features."""
    items = [item(tmp_path, "v", np.ones((2, 1, 4), dtype=np.float16))]
    first = import_features(store, items, SETTINGS)
    other = dataclasses.replace(SETTINGS, origin="another network")
    second = import_features(store, items, other)
    assert first.address != second.address
    spec = store.feature_sets()[first.address]
    assert spec.document["encoder"] == "imported"
    assert spec.document["origin"] == "a made-up network"
    assert (spec.dtype, spec.num_crops, spec.width) == ("float16", 1, 4)


def test_a_second_import_takes_only_what_is_new_or_changed(store, tmp_path):
    """By the identity of the files, as extraction does."""
    rng = np.random.default_rng(0)
    items = [item(tmp_path, f"v{i}", rng.random((4, 1, 3), dtype=np.float32)) for i in range(3)]
    assert import_features(store, items[:2], SETTINGS).num_new == 2
    changed = item(tmp_path, "v0", rng.random((5, 1, 3), dtype=np.float32))
    again = import_features(store, [changed, *items[1:]], SETTINGS)
    assert (again.num_new, again.num_skipped) == (2, 1)
    reader = BagReader(FeatureStore.open(store.url), ["rows"])
    assert reader.num_snippets(("ds", "v0")) == 5


@given(num_frames=st.integers(1, 2000), tail=st.sampled_from(["keep", "drop", "one fewer"]))
def test_rows_of_every_tail_rule_in_use_fit_their_recording(num_frames, tail):
    """ceil, floor, and floor less one: ranges stay inside, in order, whole but for the last."""
    rows = {"keep": -(-num_frames // 16), "drop": num_frames // 16}.get(tail, num_frames // 16 - 1)
    if rows < 1:
        return
    start, stop, total = frame_ranges("ds/v", rows, num_frames, 16)
    assert total == num_frames
    assert (stop > start).all()
    assert (stop <= num_frames).all()
    assert (np.diff(start) == 16).all()
    assert (stop[:-1] - start[:-1] == 16).all()


@pytest.mark.parametrize("rows", [3, 9])
def test_rows_that_cannot_be_of_the_recording_are_refused(rows):
    """100 frames are 5 to 7 rows; both numbers are in the message."""
    with pytest.raises(AlignmentError, match=rf"{rows} rows of 16 frames.*100"):
        frame_ranges("ds/v", rows, 100, 16)


def test_bad_files_are_refused_by_name_and_the_rest_goes_on(store, tmp_path):
    """NaN, other widths and types, objects, text, no rows: counted, not imported, not hidden."""
    good = np.ones((4, 1, 3), dtype=np.float32)
    items = [item(tmp_path, "good", good)]
    items.append(item(tmp_path, "nan", np.full_like(good, np.nan)))
    items.append(item(tmp_path, "wide", np.ones((4, 1, 5), dtype=np.float32)))
    items.append(item(tmp_path, "none", np.ones((0, 1, 3), dtype=np.float32)))
    items.append(item(tmp_path, "short", good, num_frames=500))
    items += [
        FeatureFiles(recording=recording_of(name), files=(f"{tmp_path}/{name}.npy",))
        for name in ("object", "text", "ints", "absent")
    ]
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("not an array")
    np.save(tmp_path / "ints.npy", np.ones((4, 3), dtype=np.int64))
    result = import_features(store, items, SETTINGS)
    assert result.num_new == 1
    reasons = {key.removeprefix("ds/"): reason for key, reason in result.bad.items()}
    assert "NaN" in reasons["nan"]
    assert "(4, 1, 5)" in reasons["wide"]
    assert "no snippets" in reasons["none"]
    assert "4 rows" in reasons["short"]
    assert "plain numbers" in reasons["object"]
    assert "plain numbers" in reasons["text"]
    assert "int64" in reasons["ints"]
    assert "no such file" in reasons["absent"]
    assert BagReader(store, ["rows"]).keys() == [("ds", "good")]


def test_nan_becomes_zero_only_when_asked_and_is_counted(store, tmp_path):
    """Static buffers of published event features hold NaN; the identity says what was done."""
    rows = np.ones((4, 1, 3), dtype=np.float32)
    rows[2] = np.nan
    items = [item(tmp_path, "v", rows)]
    with pytest.raises(DatasetError, match="None of 1 recordings"):
        import_features(store, items, SETTINGS)
    result = import_features(store, items, dataclasses.replace(SETTINGS, replace_nan=True))
    assert result.num_nan == 3
    bag = BagReader(store, ["rows"]).read(("ds", "v"))
    assert bag.features["rows"][0, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("rows", "expected"), [(3, [0, 1, 2, 2, 2]), (7, [0, 1, 2, 3, 4])])
def test_a_partner_of_another_length_is_fitted_only_within_the_slack(
    rows, expected, store, tmp_path
):
    """Cut or repeated, and counted; without slack it is refused with both numbers."""
    features = np.arange(rows, dtype=np.float32)[:, None, None]
    items = [item(tmp_path, "v", features)]
    with pytest.raises(DatasetError, match=f"{rows} rows beside 5"):
        import_features(store, items, SETTINGS, num_rows={"ds/v": 5})
    slack = dataclasses.replace(SETTINGS, row_slack=2)
    result = import_features(store, items, slack, num_rows={"ds/v": 5})
    assert result.refitted == {"ds/v": 5 - rows}
    bag = BagReader(store, ["rows"]).read(("ds", "v"))
    assert bag.features["rows"][0, :, 0].tolist() == expected


def test_half_and_single_precision_do_not_mix_in_silence(store, tmp_path):
    """A float32 file in a float16 set is refused; asking for float32 takes both."""
    rows = np.full((2, 1, 2), 0.1)
    items = [item(tmp_path, "a", rows.astype(np.float16)), item(tmp_path, "b", rows.astype("f4"))]
    assert "dtype=float32" in import_features(store, items, SETTINGS).bad["ds/b"]
    wide = import_features(store, items, dataclasses.replace(SETTINGS, dtype="float32"))
    assert (wide.num_new, wide.bad) == (2, {})


def test_a_recording_that_was_extracted_keeps_the_address_of_its_video(store, tmp_path):
    """Imported features join it; labels come along."""
    known = dataclasses.replace(recording_of("v", "s3://bucket/v.mp4"), fps=Fraction(25))
    store.put_recordings([known])
    import_features(store, [item(tmp_path, "v", np.ones((2, 1, 2), dtype="f4"))], SETTINGS)
    kept = store.recording("ds", "v")
    assert (kept.url, kept.fps) == ("s3://bucket/v.mp4", Fraction(25))


def test_labels_told_now_replace_older_ones_and_silence_keeps_them(store, tmp_path):
    """A second import under another split moves recordings; what it does not know stays."""
    files = item(tmp_path, "v", np.ones((2, 1, 2), dtype="f4"))
    ranges = dataclasses.replace(files.recording, label=1, intervals=((3, 9),), split="test")
    import_features(store, [dataclasses.replace(files, recording=ranges)], SETTINGS)
    moved = dataclasses.replace(ranges, split="train", intervals=None)
    again = import_features(store, [dataclasses.replace(files, recording=moved)], SETTINGS)
    assert (again.num_new, again.num_skipped) == (0, 1)
    assert store.recording("ds", "v") == dataclasses.replace(moved, intervals=((3, 9),))
    unknown = dataclasses.replace(ranges, label=None, intervals=None, split="predict")
    import_features(store, [dataclasses.replace(files, recording=unknown)], SETTINGS)
    assert (store.recording("ds", "v").label, store.recording("ds", "v").split) == (1, "train")


def test_crops_that_are_left_out_or_twice_are_named():
    """A download that broke off is not ten crops."""
    layout = LAYOUTS["crop-files"]
    with pytest.raises(DatasetError, match=r"v: crop files \[0, 2\]"):
        layout.group(["v__0.npy", "v__2.npy"])
    with pytest.raises(DatasetError, match="crop 0 of v is also"):
        layout.group(["v.npy", "v__0.npy"])


def test_axes_that_cannot_be_crops_are_questioned(tmp_path):
    """[322, 10, 4] read as crops-first would be 322 crops."""
    save_array(f"{tmp_path}/v.npy", np.zeros((322, 10, 4), dtype="f4"))
    with pytest.raises(DatasetError, match="322 crops"):
        LAYOUTS["crops-first"].read([f"{tmp_path}/v.npy"])
    save_array(f"{tmp_path}/w.npy", np.zeros((3, 4), dtype="f4"))
    with pytest.raises(DatasetError, match="K, S, D"):
        LAYOUTS["crops-first"].read([f"{tmp_path}/w.npy"])
    with pytest.raises(DatasetError, match="10 crops do not fit"):
        LAYOUTS["rows"].write(np.zeros((4, 10, 2), dtype="f4"))


def test_settings_that_say_nothing_are_refused():
    """No origin, no identity."""
    with pytest.raises(ConfigError, match="where the features come from"):
        ImportSettings(name="x", origin=" ", layout="rows")
    with pytest.raises(ConfigError, match="there are rows"):
        ImportSettings(name="x", origin="y", layout="columns")
