#!/usr/bin/env python3
"""Refuse files above 500 kB: recordings, features and weights belong in a store, not in git."""

import sys
from pathlib import Path

LIMIT_BYTES = 500_000


def main(paths: list[str]) -> int:
    """Name every file that is too large; exit code 1 when there is one."""
    too_large = [
        (path, size) for path in paths if (size := Path(path).stat().st_size) > LIMIT_BYTES
    ]
    for path, size in too_large:
        print(f"{path}: {size} bytes, more than {LIMIT_BYTES}")
    return int(bool(too_large))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
