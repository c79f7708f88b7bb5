"""No golden vector of the systems that are built lies unused."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("system", ["msf", "ief_vad", "gv_vad", "snippet_attention", "lad2000"])
def test_every_file_is_asked_for_by_a_test(system: str) -> None:
    """Patterns of the ``golden`` markers beside this file cover the folder."""
    patterns = {
        pattern
        for path in HERE.glob("test_*.py")
        for pattern in re.findall(rf'"({system}/[^"]+)"', path.read_text())
    }
    root = Path(os.environ.get("OUTSPIKE_GOLDEN", HERE / "data"))
    files = sorted(f"{system}/{path.name}" for path in (root / system).glob("*.npz"))
    assert files
    unused = [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)]
    assert unused == []
