"""Every command of docs/importing.md runs, in order, on made-up files in the published layouts."""

import pickle
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from outspike import cli
from outspike.config import IefVadConfig, MsfConfig
from outspike.datasets.tables import read_rows
from outspike.detectors import build
from outspike.detectors.ief_vad import published as ief_vad
from outspike.detectors.msf import published as msf
from outspike.store.bags import BagReader
from outspike.store.store import FeatureStore
from outspike.timebase import frame_labels

pytestmark = pytest.mark.slow

#: What the page leaves at published values, small enough for a test.
_SMALL = {
    "train": "--steps 3 --bags-per-batch 4 --checkpoint-every 3 --num-workers 0 "
    "--selection.split last --tracking-uri sqlite:///mlflow.db --storage runs",
    "evaluate": "--num-resamples 0 --no-key-frames",
}


def _commands(repository: Path) -> list[list[str]]:
    text = (repository / "docs" / "importing.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def _chosen() -> list:
    """A few recordings of UCF-Crime: both labels, both splits."""
    rows = read_rows("ucf_crime")
    return [
        row
        for split in ("train", "test")
        for label in (0, 1)
        for row in [r for r in rows if (r.split, r.label) == (split, label)][:3]
    ]


def _rows_of(row) -> int:
    return 20 if row.num_frames is None else row.num_frames // 16


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def _ucf(root: Path, rng: np.random.Generator) -> None:
    chosen = _chosen()
    for row in chosen:
        num_rows = _rows_of(row)
        spikes = rng.random((num_rows, 256), dtype=np.float32)
        _save(root / "feature_hardvs" / f"{row.video_id}.npy", spikes)
        for k in range(10):
            crop = rng.random((num_rows, 12), dtype=np.float32)
            _save(root / "rgb" / row.class_name / f"{row.video_id}__{k}.npy", crop)
            events = crop.astype(np.float16)
            events[3] = np.nan
            _save(root / "event_thr_10" / row.class_name / f"{row.video_id}__{k}.npy", events)
    tests = [row for row in chosen if row.split == "test"]
    labels = {r.video_id: frame_labels(r.intervals, r.num_frames) for r in tests}
    (root / "gt-ucf-dic.pickle").write_bytes(pickle.dumps({k: list(v) for k, v in labels.items()}))
    np.save(root / "gt-ucf.npy", np.concatenate(list(labels.values())).astype(float))
    lines = [f"{name},{len(values)}" for name, values in labels.items()]
    (root / "order.csv").write_text("\n".join(["video_id,num_frames", *lines]))
    for name in ("Abuse001_x264", "2"):  # a real video and a generated one
        _save(root / "gv_vad" / f"{name}_clip.npy", rng.random((10, 9, 12), dtype=np.float32))
        _save(root / "gv_vad" / f"{name}_emb.npy", rng.random((7, 8), dtype=np.float32))


def _lad(root: Path, rng: np.random.Generator) -> None:
    videos = {"train": ["v_Fire_n_s1_01", "v_Fire_a_s1_02"], "test": ["v_Crash_a_s2_03"]}
    frames, classes = {}, {}
    for part, names in videos.items():
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{part}_split.txt").write_text("\n".join(names))
        for name in names:
            _save(root / "i3d" / name / "feature.npy", rng.random((6, 16), dtype=np.float32))
            frames[name] = np.zeros((1, 100), dtype=np.uint8)
            frames[name][0, 20:40] = "_a_" in name
            classes[name] = 0 if "Crash" in name else 7
    (root / "GT").mkdir()
    (root / "GT" / "frame_label_IET.pickle").write_bytes(pickle.dumps(frames))
    (root / "GT" / "video_label_IET.pickle").write_bytes(pickle.dumps(classes))


def _others(root: Path, rng: np.random.Generator) -> None:
    masks = np.empty((1, 3), dtype=object)
    for i in range(3):
        masks[0, i] = np.full((4, 4), i == 1, dtype=np.uint8)
    (root / "testing_label_mask").mkdir()
    savemat(root / "testing_label_mask" / "1_label.mat", {"volLabel": masks})
    frames = root / "duration_533328" / "test" / "0"
    frames.mkdir(parents=True)
    np.savez(frames / "Abuse028_x264.npz", frames=rng.integers(0, 3, (4, 2, 9, 16)).astype(float))
    np.save(root / "ucf_bank.npy", rng.random((26, 768), dtype=np.float32))
    torch.manual_seed(0)
    torch.save(msf.export_published(build(MsfConfig())), root / "iter_5000.pkl")
    with torch.device("meta"):
        state = ief_vad.NAMES.export(build(IefVadConfig()))
    torch.save({name: torch.zeros(v.shape) for name, v in state.items()}, root / "ucf.pth")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``published/`` in it."""
    folder = tmp_path_factory.mktemp("importing")
    rng = np.random.default_rng(0)
    _ucf(folder / "published", rng)
    _lad(folder / "published" / "lad", rng)
    _others(folder / "published", rng)
    return folder


def test_every_command_of_the_page_runs(
    repository: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In order, in one folder, with exit code 0; the last ones train and judge on the imports."""
    monkeypatch.chdir(workplace)
    ran, said = [], {}
    for words in _commands(repository):
        if match := re.fullmatch(r"jobs/(\w+)\.py", words[0]):
            words = ["outspike", match[1], *words[1:], *shlex.split(_SMALL[match[1]])]
        assert words[0] == "outspike"
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        assert not end.value.code, (words, captured.err[-2000:])
        ran.append(words[1])
        said[" ".join(words[1:])] = captured.out
    assert {"store", "datasets", "train", "import-checkpoint", "evaluate"} <= set(ran)
    store = FeatureStore.open("outspike-data/published")
    names = {spec.name for spec in store.feature_sets().values()}
    assert names == {"spikingformer", "rgb", "event", "gv", "gv-text", "i3d-combine"}
    bag = BagReader(store, ["gv", "gv-text"]).read(("gv_vad", "gen_2"))
    assert bag.synthetic
    assert (bag.features["gv"].shape, bag.features["gv-text"].shape) == ((10, 9, 12), (1, 9, 8))
    fire = store.recording("lad2000", "v_Fire_a_s1_02")
    assert (fire.split, fire.label, fire.intervals) == ("train", 1, ((20, 40),))
    exported = {p.name: p.read_bytes() for p in Path("exported").glob("*.npy")}
    originals = {p.name: p.read_bytes() for p in Path("published/feature_hardvs").glob("*.npy")}
    assert exported == originals
    trained = next(text for command, text in said.items() if command.startswith("train"))
    assert "test/auc" in trained
