"""What every test may rely on: real media when they are there, skips that are counted and shown."""

import importlib.util
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# A busy machine or the first compilation of a kernel is no failure of a property. Where CI is set,
# every run tries the same examples: what fails there fails again at a desk.
settings.register_profile("outspike", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("outspike")

REPOSITORY = Path(__file__).resolve().parents[1]


def media_root() -> Path:
    """Folder of real recordings: ``OUTSPIKE_MEDIA``, or ``shared/media`` beside the checkout."""
    default = REPOSITORY.parent / "shared" / "media"
    return Path(os.environ.get("OUTSPIKE_MEDIA", default))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of real recordings; tests that use it carry the marker ``media``."""
    root = media_root()
    if not root.is_dir():
        pytest.skip(f"no real recordings at {root}; set OUTSPIKE_MEDIA")
    return root


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket, ``s3://...``, and the standard AWS environment that reaches it."""
    import boto3

    settings = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:16]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple]:
    """Exit code, standard output and standard error of a command."""

    from outspike import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["outspike", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def proxies() -> ModuleType:
    """The module of the proxy that the store's benchmark puts before an S3 server."""
    path = REPOSITORY / "benchmarks" / "s3_proxy.py"
    spec = importlib.util.spec_from_file_location("s3_proxy", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["s3_proxy"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="fail the run when any selected test is skipped"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("media") and not media_root().is_dir():
        pytest.skip(f"no real recordings at {media_root()}; set OUTSPIKE_MEDIA")
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("no CUDA device on this machine")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how many tests on real recordings did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    media_skips = [report for report in skipped if "media" in report.keywords]
    root = media_root()
    terminalreporter.write_line(
        f"real-media tests skipped: {len(media_skips)}"
        + (f" (no folder {root}; set OUTSPIKE_MEDIA)" if not root.is_dir() else "")
    )
    if config.getoption("--no-skips") and skipped:
        terminalreporter.write_line(f"--no-skips: {len(skipped)} selected tests were skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--no-skips"):
        return
    if reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
