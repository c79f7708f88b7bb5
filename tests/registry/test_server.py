"""The same registry behind a real MLflow server."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from outspike.registry.models import download_bundle, register
from outspike.registry.promote import promote
from outspike.registry.spool import SpooledRun
from outspike.registry.tracking import connect, find_runs, run, start_run
from outspike.registry.versions import champion, find
from outspike.scoring.bundle import Bundle

pytestmark = pytest.mark.slow
Served = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Iterator[str]:
    """A server for the tests that want it to stay."""
    with served(tmp_path_factory.mktemp("server")) as url:
        yield url


def test_the_life_of_a_model_on_a_server(
    server: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    """Track, register, find, fetch and promote, with files going through the server."""
    folder = saved("event-pyramid")
    with run(server, "training", tags={"outspike.search": "s"}) as log:
        log.log_params({"text": "x" * 7000, "none": None, "empty": "", "list": [1, 2]})
        log.log_metrics({"test/video_auc": 1.0}, 1)
        version = register(log, "served", folder, {"outspike.protocol": "folder"})
        assert connect(server).get_run(log.run_id).info.status == "RUNNING"
    assert connect(server).get_run(log.run_id).info.status == "FINISHED"
    assert [r.info.run_id for r in find_runs(server, {"outspike.search": "s"})] == [log.run_id]
    assert find(server, "models:/served/1") == version
    fetched = Bundle.load(download_bundle(version, tmp_path / "fetched"))
    assert fetched.provenance == Bundle.load(folder).provenance
    promotion = promote(server, "served")
    assert promotion.passed, promotion.table()
    assert champion(server, "served") == version
    assert promote(server, "models:/served@champion").checks[0].name == "champion"


def test_a_server_that_goes_and_comes_back_gets_every_metric(
    tmp_path: Path, served: Served, unused_port: Callable[[], int]
) -> None:
    """Training's record while the server is stopped and started again on the same address."""
    port, spool = unused_port(), tmp_path / "unsent.jsonl"
    with served(tmp_path, port=port) as url:
        spooled = SpooledRun(start_run(url, "spooled"), str(spool))
        spooled.log_metrics({"loss": 3.0}, 1)
    for step in (2, 3):
        spooled.log_metrics({"loss": float(step)}, step)
    assert len(spool.read_text().splitlines()) == 2
    with served(tmp_path, port=port) as url:
        spooled.flush()
        points = connect(url).get_metric_history(spooled.run_id, "loss")
        assert sorted(point.step for point in points) == [1, 2, 3]
    assert not spool.exists()
