"""What can be seen of a run: pace, memory, spikes, curves and timelines."""

import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outspike.config import SelectionConfig
from outspike.registry.tracking import connect
from outspike.train import job
from outspike.train.figures import draw
from outspike.train.history import NAME, History
from outspike.train.logging import Progress
from outspike.train.loop import run
from outspike.train.plan import make_plan

LAYERS = {
    *(f"spikes/dilation_{dilation}" for dilation in (1, 2, 4)),
    *(f"spikes/graph_{name}" for name in ("similar_in", "distant_in")),
    *(f"spikes/graph_{name}" for name in ("similar_out", "distant_out")),
    *("spikes/gate", "spikes/graph", "spikes/mixing"),
}


@pytest.fixture
def seen(config_of, tmp_path):
    """A short run that selects on held-out recordings, and what it told."""
    selection = SelectionConfig(split="holdout", share=0.4, every_steps=4)
    config = config_of(steps=12, log_every=4, selection=selection, checkpoint_every=100)
    told: dict[int, dict[str, float]] = {}
    run(make_plan(config), str(tmp_path / "run"), tell=lambda s, m: told.update({s: dict(m)}))
    return config, told, str(tmp_path / "run")


def test_every_line_tells_pace_memory_and_how_much_neurons_fire(seen):
    """Of all ten layers of MSF, as shares."""
    _, told, _ = seen
    assert list(told) == [4, 8, 12]
    for metrics in told.values():
        assert metrics["pace/bags_per_s"] == pytest.approx(8 * metrics["pace/steps_per_s"])
        assert 0 <= metrics["pace/waiting_share"] < 1
        assert metrics["memory/host_peak_mb"] > 10
        rates = {name: value for name, value in metrics.items() if name.startswith("spikes/")}
        assert set(rates) == LAYERS
        assert all(0 <= value <= 1 for value in rates.values())
        assert any(value > 0 for value in rates.values())


@pytest.mark.parametrize("detector", ["ief_vad", "saa"])
def test_a_detector_without_spikes_tells_of_none(config_of, tmp_path, detector):
    told: list[str] = []
    plan = make_plan(config_of(detector, steps=2, log_every=1))
    run(plan, str(tmp_path), tell=lambda _, metrics: told.extend(metrics))
    assert told
    assert not any(name.startswith("spikes/") for name in told)


def test_the_history_is_what_was_told_and_goes_on_after_a_resume(seen, tmp_path):
    """Curves hold each step once; of timelines the first evaluation and the last are kept."""
    _, told, url = seen
    history = History.load(url)
    assert [step for step, _ in history.metrics["total"]] == [4, 8, 12]
    assert dict(history.metrics["held_out/video_auc"]) == {
        step: metrics["held_out/video_auc"] for step, metrics in told.items()
    }
    labels = [timeline["label"] for timeline in history.timelines.values()]
    assert sorted(labels) == [0, 1, 1, 1]
    assert all(set(t["scores"]) == {"4", "12"} for t in history.timelines.values())
    early = History.load(url, up_to=9)
    assert [step for step, _ in early.metrics["total"]] == [4, 8]
    assert all(set(t["scores"]) == {"4"} for t in early.timelines.values())
    assert not History.load(str(tmp_path / "nowhere")).metrics


def test_pictures_show_something(seen):
    """Both are images with more than one colour; of nothing, none is drawn."""
    drawn = draw(History.load(seen[2]))
    assert set(drawn) == {"learning-curves.png", "timelines.png"}
    for image in drawn.values():
        pixels = np.asarray(Image.open(BytesIO(image)).convert("RGB"))
        assert min(pixels.shape[:2]) > 100
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert draw(History()) == {}


def test_a_job_keeps_its_pictures_beside_the_run_and_in_the_record(pyramid_config):
    """Under ``figures``; the numbers behind them too."""
    selection = SelectionConfig(split="holdout", share=0.25, every_steps=2)
    config = pyramid_config(steps=2, selection=selection)
    result = job.train(config, register_model=False)
    expected = {"learning-curves.png", "timelines.png"}
    assert {path.name for path in (Path(result.url) / "figures").iterdir()} == expected
    logged = connect(config.tracking_uri).list_artifacts(result.run_id, "figures")
    assert {artifact.path.rpartition("/")[2] for artifact in logged} == expected
    assert (Path(result.url) / NAME).is_file()


def test_the_progress_line_is_one_short_line(seen, caplog):
    """Loss, what selects, and the pace; the record has the rest."""
    _, told, _ = seen
    with caplog.at_level("INFO", logger="outspike.train.logging"):
        progress = Progress(12)
        progress.show(12, told[12])
        progress.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "total=" in line
    assert "video_auc=" in line
    assert "bags_per_s=" in line
    assert "spikes" not in line
    assert len(line) < 120


def test_looking_on_changes_no_bit(config_of, tmp_path):
    """Counting spikes at every step or at none gives the same losses."""
    base = config_of(steps=4)
    ends = []
    for every in (1, 4):
        told: dict[int, dict[str, float]] = {}
        plan = make_plan(dataclasses.replace(base, log_every=every))
        run(plan, str(tmp_path / str(every)), tell=lambda s, m, t=told: t.update({s: dict(m)}))
        ends.append(History.load(str(tmp_path / str(every))).metrics["total"])
    by_step = [value for _, value in ends[0]]
    assert ends[1][0][1] == pytest.approx(sum(by_step) / 4, rel=1e-12)
