"""Metrics of a run survive a tracking server that is away."""

from pathlib import Path

import pytest

from outspike.errors import RegistryError
from outspike.registry import spool
from outspike.registry.spool import SpooledRun
from outspike.registry.tracking import RunLogger, connect, start_run


@pytest.fixture
def run(uri: str) -> RunLogger:
    return start_run(uri, "spooled")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try at every step, so that no test waits."""
    monkeypatch.setattr(spool, "_FIRST_WAIT_S", 0.0)


class Database:
    """The registry's database, which can be away and come back."""

    def __init__(self, uri: str) -> None:
        self.path = Path(uri.removeprefix("sqlite:///"))
        self._content = b""

    def go_away(self) -> None:
        self._content = self.path.read_bytes()
        self.path.write_bytes(b"somebody else's file")

    def come_back(self) -> None:
        self.path.write_bytes(self._content)


def history(run: RunLogger, name: str) -> list[tuple[int, float]]:
    points = connect(run.uri).get_metric_history(run.run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_training_goes_on_while_the_server_is_away_and_nothing_is_lost(
    uri: str, run: RunLogger, tmp_path: Path
) -> None:
    """Points of before, during and after arrive, each once; the file is gone when all are sent."""
    database, url = Database(uri), tmp_path / "unsent.jsonl"
    spooled = SpooledRun(run, str(url))
    spooled.log_metrics({"loss": 3.0}, 1)
    assert not url.exists()
    database.go_away()
    spooled.log_metrics({"loss": 2.0}, 2)
    spooled.log_metrics({"loss": 1.0}, 3)
    assert spooled.num_unsent == 2
    assert len(url.read_text().splitlines()) == 2
    database.come_back()
    spooled.log_metrics({"loss": 0.5}, 4)
    assert spooled.num_unsent == 0
    assert not url.exists()
    assert history(run, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5)]


def test_what_a_killed_process_could_not_send_is_sent_by_the_next_one(
    uri: str, run: RunLogger, tmp_path: Path
) -> None:
    """The file is all that is left of the first process; times are those of the measurement."""
    database, url = Database(uri), str(tmp_path / "unsent.jsonl")
    database.go_away()
    SpooledRun(run, url).log_metrics({"loss": float("nan"), "auc": 0.25}, 7)
    database.come_back()
    SpooledRun(run, url).flush()
    [auc] = connect(uri).get_metric_history(run.run_id, "auc")
    [loss] = connect(uri).get_metric_history(run.run_id, "loss")
    assert (auc.step, auc.value) == (7, 0.25)
    assert loss.timestamp == auc.timestamp
    assert loss.value != loss.value


def test_a_flush_without_a_server_says_where_the_metrics_wait(
    uri: str, run: RunLogger, tmp_path: Path
) -> None:
    """One line with the file and what to do; ending the run then is a warning, no second error."""
    database, url = Database(uri), str(tmp_path / "unsent.jsonl")
    spooled = SpooledRun(run, url)
    database.go_away()
    spooled.log_metrics({"loss": 1.0}, 1)
    with pytest.raises(RegistryError, match=r"1 metrics wait in .*unsent\.jsonl"):
        spooled.flush()
    spooled.finish("FAILED")
    database.come_back()
    assert connect(uri).get_run(run.run_id).info.status == "RUNNING"


def test_a_batch_sent_twice_counts_once(run: RunLogger, tmp_path: Path) -> None:
    """An answer that was lost on the way makes the same points come again."""
    url = tmp_path / "unsent.jsonl"
    for _ in range(2):
        url.write_text('["loss", 1.0, 1700000000000, 3]\n')
        SpooledRun(run, str(url)).flush()
    assert history(run, "loss") == [(3, 1.0)]
