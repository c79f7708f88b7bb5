"""The command line answers at once, teaches, and turns what went wrong into an exit code."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outspike import app, cli
from outspike.events.columns import Events
from outspike.events.write import write_events
from outspike.video.write import write_mp4

COMMANDS = [*cli._JOBS, *cli._TOOLS]

_ALL_HELP = """
import io, runpy, sys
from contextlib import redirect_stdout
from pathlib import Path
from outspike import cli

def said(argv, call):
    sys.argv = argv
    text = io.StringIO()
    with redirect_stdout(text):
        try:
            call()
        except SystemExit as end:
            assert end.code == 0, (argv, end.code)
    return text.getvalue()

for words in [[], ["--help"], *([*name.split(), "--help"] for name in sys.argv[1].split(","))]:
    text = said(["outspike", *words], cli.main)
    assert "usage: outspike" in text, text
for path in sorted(Path(sys.argv[2]).glob("*.py")):
    text = said([str(path), "--help"], lambda: runpy.run_path(str(path), run_name="__main__"))
    assert f"jobs/{path.name}" in text, text
print(sorted({"torch", "ray", "mlflow", "zarr", "av", "pandas", "matplotlib"} & set(sys.modules)))
"""


def test_help_loads_nothing_heavy(repository: Path) -> None:
    """Every command and every job explains itself without loading what it would run with."""
    arguments = [",".join(COMMANDS), str(repository / "jobs")]
    done = subprocess.run(
        [sys.executable, "-c", _ALL_HELP, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name: str, run_cli: Callable[..., tuple]) -> None:
    """It says what the command does, with an example under the name it was called by."""
    code, text, _ = run_cli(*name.split(), "--help")
    assert code == app.DONE
    assert f"usage: outspike {name}" in text
    if name != "demo":
        assert "example" in text
    if name in cli._JOBS:
        assert f"  outspike {name} " in text
        assert "exit codes: 0 done" in text


def test_every_command_is_listed(run_cli: Callable[..., tuple]) -> None:
    """The overview has one line a command."""
    code, text, _ = run_cli("--help")
    assert code == app.DONE
    assert sorted(cli._ORDER) == sorted(COMMANDS)
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["video"],
        ["video", "nonsense"],
        ["predict", "--nonsense"],
        ["predict", "--threshold", "2"],
        ["promote"],
        ["store", "look", "x"],
        ["store", "show", "x"],
        ["store", "ls", "x", "y"],
        ["datasets", "shanghaitech"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2(arguments: list[str], run_cli: Callable[..., tuple]) -> None:
    """Unknown commands, options and values say so on standard error."""
    code, out, err = run_cli(*arguments)
    assert (code, out) == (app.BAD_USAGE, "")
    assert err


def test_what_is_not_there_exits_with_1(run_cli: Callable[..., tuple], tmp_path: Path) -> None:
    """One line, no traceback."""
    for arguments in (["store", "ls"], ["video", "probe"], ["events", "info"]):
        code, out, err = run_cli(*arguments, str(tmp_path / "absent"))
        assert (code, out) == (app.FAILED, "")
        assert len(err.splitlines()) == 1
        assert "absent" in err


def test_a_video_is_described(run_cli: Callable[..., tuple], tmp_path: Path) -> None:
    """As a table for people and as JSON for programs."""
    path = tmp_path / "v.mp4"
    frames = np.zeros((5, 48, 64, 3), dtype=np.uint8)
    write_mp4(path, iter(frames), fps=Fraction(30000, 1001))
    code, out, _ = run_cli("video", "probe", str(path), "--json")
    found = json.loads(out)
    assert code == app.DONE
    assert (found["codec"], found["fps"], found["display_size"]) == ("h264", "30000/1001", [64, 48])
    assert "64x48" in run_cli("video", "probe", str(path))[1]


def test_an_event_recording_is_described(run_cli: Callable[..., tuple], tmp_path: Path) -> None:
    """Format, sensor, events and hashes; what nobody tells is said to be so."""
    one = np.array([5])
    events = Events(
        one.astype(np.int64), one.astype(np.uint16), one.astype(np.uint16), np.uint8(one > 0)
    )
    write_events(tmp_path / "e.raw", events, format="evt3", size=(64, 48), anchor_us=3)
    code, out, _ = run_cli("events", "info", str(tmp_path / "e.raw"), "--json")
    found = json.loads(out)
    assert code == app.DONE
    assert (found["format"], found["width"], found["anchor_us"]) == ("Prophesee EVT 3.0 raw", 64, 3)
    assert (found["events"], found["t_first_us"], found["on_events"]) == (1, 5, 1)
    assert found["sha256_p"] == hashlib.sha256(b"\x01").hexdigest()
    assert "not told" in run_cli("events", "info", str(tmp_path / "e.raw"))[1]
    smaller = run_cli("events", "info", str(tmp_path / "e.raw"), "--size", "5x48")
    assert smaller[0] == app.FAILED
    assert "outside the configured size 5x48" in smaller[2]
    assert run_cli("events", "info", str(tmp_path / "e.raw"), "--size", "5by48")[0] == app.BAD_USAGE


def test_an_event_recording_is_converted_and_shown(
    run_cli: Callable[..., tuple], tmp_path: Path
) -> None:
    """Another format with the same events, a video, and a picture of the whole."""
    rng = np.random.default_rng(0)
    num = 3000
    events = Events(
        1_700_000_000_000_000 + np.sort(rng.integers(0, 400_000, num)),
        rng.integers(0, 64, num).astype(np.uint16),
        rng.integers(0, 48, num).astype(np.uint16),
        rng.integers(0, 2, num).astype(np.uint8),
    )
    source = tmp_path / "e.npz"
    write_events(source, events, format="npz", size=(64, 48))
    target = tmp_path / "e.raw"
    code, _, err = run_cli("events", "convert", str(source), str(target))
    assert code == app.BAD_USAGE
    assert "subtract the start" in err
    code, out, _ = run_cli("events", "convert", str(source), str(target), "--from-zero")
    assert (code, "3000 events" in out) == (app.DONE, True)
    found = json.loads(run_cli("events", "info", str(target), "--json")[1])
    assert (found["events"], found["t_first_us"]) == (num, 0)
    assert found["sha256_x"] == hashlib.sha256(events.x.tobytes()).hexdigest()
    code, out, _ = run_cli("events", "render", str(target), str(tmp_path / "e.mp4"))
    assert (code, "12 frames" in out) == (app.DONE, True)
    assert run_cli("events", "render", str(target), str(tmp_path / "e.png"))[0] == app.DONE
    assert Image.open(tmp_path / "e.png").size[0] > 1000
    for arguments in (["convert", str(source), "e.txt"], ["render", str(source), "e.gif"]):
        code, _, err = run_cli("events", *arguments)
        assert (code, "expected" in err) == (app.BAD_USAGE, True)


def test_data_sets_are_listed(run_cli: Callable[..., tuple]) -> None:
    """Each with a sentence and its splits."""
    code, out, _ = run_cli("datasets")
    assert code == app.DONE
    assert any(line.startswith("ucf_crime ") for line in out.splitlines())
    assert any(line.startswith("folder ") for line in out.splitlines())


def test_prediction_says_by_its_exit_code_how_it_went(
    run_cli: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 where all were scored, 3 where more than the allowed share could not be."""
    from outspike.predict.run import PredictResult
    from outspike.predict.scorer import Prediction

    bad = Prediction(video_id="b", seconds=0.0, reason="empty", detail="b.mp4: empty")
    good = Prediction(video_id="a", seconds=0.0)
    result = PredictResult(model="m", out="o", predictions=(good, bad))
    monkeypatch.setattr("outspike.predict.run.predict", lambda config: result)
    code, out, _ = run_cli("predict")
    assert code == app.QUARANTINED
    assert "b: not scored, empty: b.mp4: empty" in out
    assert run_cli("predict", "--max-bad-share", "0.5")[0] == app.DONE
