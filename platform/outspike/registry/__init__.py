"""MLflow: the record of every run, models as self-contained bundles, and the promotion gate."""

from pathlib import Path


def serve_path() -> Path:
    """The file that MLflow copies into a model and runs to load it."""
    return Path(__file__).parent / "serve.py"
