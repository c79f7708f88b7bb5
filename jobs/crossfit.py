#!/usr/bin/env python3
"""`jobs/crossfit.py --help` tells what it does."""

import sys

try:
    from outspike.app import run_job
except ModuleNotFoundError:
    sys.exit(
        "The package outspike is not importable here: install it (pip install -e .), or submit "
        "with 'ray job submit --runtime-env infra/runtime_env.yaml jobs/crossfit.py'."
    )

from outspike.cli import crossfit

if __name__ == "__main__":
    run_job(crossfit)
