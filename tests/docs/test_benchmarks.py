"""One command makes every table of docs/performance.md."""

import re
import runpy
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_BENCHMARKS = _REPOSITORY / "benchmarks"
#: Run by hand beside a benchmark, or the runner itself.
_NO_TABLES = {"all", "s3_proxy"}


def _made_at_once() -> set[str]:
    commands = runpy.run_path(str(_BENCHMARKS / "all.py"))["COMMANDS"]
    return {line.replace("{out}/", "") for line in commands.values()}


def test_every_benchmark_is_among_them() -> None:
    scripts = {p.stem for p in _BENCHMARKS.glob("*.py") if "__main__" in p.read_text()}
    assert {line.split(".py")[0] for line in _made_at_once()} == scripts - _NO_TABLES


def test_the_commands_on_the_page_are_those() -> None:
    page = (_REPOSITORY / "docs" / "performance.md").read_text()
    quoted = re.findall(r"python benchmarks/([^`#\n]*)", page)
    told = {line.split("#")[0].strip() for line in quoted}
    assert {line for line in told if not line.startswith("all.py")} == _made_at_once()
