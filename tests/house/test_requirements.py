"""What is imported is required, and what is required is imported."""

import ast
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

#: Import name of a requirement, where it is not the requirement's own.
IMPORTED_AS = {
    "scikit-learn": "sklearn",
    "google-crc32c": "google_crc32c",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "cupy-cuda13x": "cupy",
}
#: Required by others: fsspec (S3), zarr (codecs), Ray Tune (search), spikingjelly.
NOT_IMPORTED = {"loguru", "s3fs", "numcodecs", "optuna"}
#: Imported only where present.
OPTIONAL = {"spikingjelly", "cupy", "triton"}


def imported(folder: Path) -> set[str]:
    """Top-level names of all imports in a folder, at any depth in the code."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"outspike"}


def required(repository: Path) -> set[str]:
    """Import names of the package's own requirements."""
    with (repository / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["project"]["dependencies"]
    names = [Requirement(text).name for text in listed]
    return {IMPORTED_AS.get(name, name) for name in names}


def test_everything_imported_is_required(repository: Path) -> None:
    """No package is relied on because another one happens to bring it."""
    missing = imported(repository / "platform") - required(repository) - OPTIONAL
    assert not missing, f"add to dependencies in pyproject.toml: {sorted(missing)}"


def test_everything_required_is_imported(repository: Path) -> None:
    """No requirement outlives its last use."""
    idle = required(repository) - imported(repository / "platform") - NOT_IMPORTED
    assert not idle, f"nothing imports: {sorted(idle)}"
