#!/usr/bin/env python3
"""`jobs/evaluate.py --help` tells what it does."""

import sys

try:
    from outspike.app import run_job
except ModuleNotFoundError:
    sys.exit(
        "The package outspike is not importable here: install it (pip install -e .), or submit "
        "with 'ray job submit --runtime-env infra/runtime_env.yaml jobs/evaluate.py'."
    )

from outspike.cli import evaluate

if __name__ == "__main__":
    run_job(evaluate)
