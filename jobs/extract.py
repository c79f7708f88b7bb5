#!/usr/bin/env python3
"""`jobs/extract.py --help` tells what it does."""

import sys

try:
    from outspike.app import run_job
except ModuleNotFoundError:
    sys.exit(
        "The package outspike is not importable here: install it (pip install -e .), or submit "
        "with 'ray job submit --runtime-env infra/runtime_env.yaml jobs/extract.py'."
    )

from outspike.cli_extract import extract

if __name__ == "__main__":
    run_job(extract)
