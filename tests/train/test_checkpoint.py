"""Checkpoints are whole or not there, locally and on S3."""

import itertools
import json
import threading

import pytest
import torch

from outspike import urls
from outspike.errors import CheckpointError
from outspike.train import checkpoint as checkpoints
from outspike.train.checkpoint import MARKER, Checkpoint


def small(step: int = 7, **more) -> Checkpoint:
    shared = torch.arange(6.0)
    return Checkpoint(
        step=step,
        config_hash="abc",
        model={"a": shared, "b": shared[:3], "count": torch.tensor(3)},
        optimiser={"a/exp_avg": torch.ones(6, dtype=torch.float64)},
        metrics={"auc": 0.5},
        best_step=5,
        best_metric=0.75,
        **more,
    )


@pytest.fixture(params=["local", "s3"])
def run_url(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    return request.getfixturevalue("s3_bucket") + "/run"


def test_what_was_saved_is_what_is_loaded(run_url):
    """Tensors of every type, tied ones too, and all numbers come back exactly."""
    saved = small()
    loaded = checkpoints.load(checkpoints.save(run_url, saved))
    for one, other in ((saved.model, loaded.model), (saved.optimiser, loaded.optimiser)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name], other[name])
    assert (loaded.step, loaded.config_hash, loaded.metrics) == (7, "abc", {"auc": 0.5})
    assert (loaded.best_step, loaded.best_metric) == (5, 0.75)


def test_only_complete_checkpoints_count(run_url):
    """A folder without its marker does not exist for readers, and saving again mends it."""
    for step in (10, 2, 30):
        checkpoints.save(run_url, small(step))
    broken = urls.join(checkpoints.folder_of(run_url, 30), MARKER)
    urls.filesystem(broken).rm(urls.path_in(broken))
    assert checkpoints.complete_steps(run_url) == [2, 10]
    with pytest.raises(CheckpointError, match="not finished"):
        checkpoints.load(checkpoints.folder_of(run_url, 30))
    checkpoints.save(run_url, small(30))
    checkpoints.prune(run_url, keep={30})
    assert checkpoints.complete_steps(run_url) == [30]
    assert checkpoints.complete_steps(urls.join(run_url, "nobody")) == []


def test_a_checkpoint_is_replaced_whole(run_url):
    """Saving the same step again leaves one complete checkpoint and nothing beside it."""
    checkpoints.save(run_url, small())
    url = checkpoints.save(run_url, small())
    names = {found.rsplit("/", 1)[1] for found in urls.list_files(url)}
    assert names == {MARKER, "model.safetensors", "optimiser.safetensors"}
    assert len(urls.list_files(run_url)) == 3


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_bytes_are_found(tmp_path, damage):
    """A checkpoint that was cut or altered is refused by name, never loaded."""
    url = checkpoints.save(str(tmp_path), small())
    path = tmp_path / "checkpoints" / "step-00000007" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*damaged"):
        checkpoints.load(url)


def test_another_format_is_refused(tmp_path):
    """A later format is one clear line."""
    url = checkpoints.save(str(tmp_path), small())
    marker = tmp_path / "checkpoints" / "step-00000007" / MARKER
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoints.load(url)


def test_a_write_that_fails_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    """A disk that fills up in the middle costs the new checkpoint only, and no debris stays."""
    checkpoints.save(str(tmp_path), small(1))

    def fail(self, data):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(str(tmp_path), small(2))
    assert checkpoints.complete_steps(str(tmp_path)) == [1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_listing_while_checkpoints_come_and_go_never_fails(tmp_path):
    """Whoever looks while rank 0 writes and prunes sees complete steps, and no error."""
    stop = threading.Event()

    def churn() -> None:
        for step in itertools.count(1):
            checkpoints.save(str(tmp_path), small(step))
            checkpoints.prune(str(tmp_path), keep={step})
            if stop.is_set():
                return

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        seen: list[list[int]] = []
        while len(seen) < 300 or not any(seen):  # a busy machine may let the writer wait
            seen.append(checkpoints.complete_steps(str(tmp_path)))
    finally:
        stop.set()
        writer.join()
    assert all(len(steps) <= 2 for steps in seen)
