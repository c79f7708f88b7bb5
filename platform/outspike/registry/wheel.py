"""The package as a wheel file, made from wherever it is installed.

A model bundle carries this wheel, so that the model loads where there is no checkout. Building with
the project's build back end would need the source tree and the back end; a wheel is only a zip file
with three metadata files (the binary distribution format specification), so it is written here.
"""

import base64
import hashlib
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

import outspike
from outspike.errors import RegistryError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes for the same sources


def write_wheel(folder: Path) -> Path:
    """Write ``outspike-<version>-py3-none-any.whl`` into ``folder`` and return its path."""
    version = outspike.__version__
    info = f"outspike-{version}.dist-info"
    files = {f"outspike/{name}": data for name, data in _sources().items()}
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: outspike\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{name},{_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    target = folder / f"outspike-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return target


def pinned_requirements() -> list[str]:
    """Exact versions of what the package needs at run time, as installed here.

    Without the local part of a version (``2.13.0+cpu``), which package indexes do not serve.
    """
    names = {requirement.name for requirement in map(Requirement, _requirements())}
    return sorted(f"{name}=={Version(metadata.version(name)).public}" for name in names)


def _requirements() -> list[str]:
    """What the package says it needs, without its extras."""
    project = _checkout()
    if project is not None:
        return [str(text) for text in project["dependencies"]]
    try:
        declared = metadata.requires("outspike") or []
    except metadata.PackageNotFoundError as error:
        raise RegistryError(
            f"{Path(outspike.__file__).parent}: neither an installed package nor a checkout, so "
            "what a model needs is not known; install it (pip install -e .)."
        ) from error
    return [text for text in declared if "extra ==" not in text]


def _metadata() -> str:
    lines = ["Metadata-Version: 2.4", "Name: outspike", f"Version: {outspike.__version__}"]
    lines += [f"Requires-Dist: {text}" for text in _requirements()]
    return "\n".join([*lines, ""])


def _checkout() -> dict[str, Any] | None:
    """The ``project`` table of the checkout the package lies in; None for an installed one.

    Read before the installed metadata: on a cluster a job's working folder goes first on the path,
    and whatever is installed beside it may be older.
    """
    path = Path(outspike.__file__).parents[2] / "pyproject.toml"
    if not path.is_file():
        return None
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    project: dict[str, Any] = document.get("project", {})
    return project if project.get("name") == "outspike" else None


def _sources() -> dict[str, bytes]:
    package = Path(outspike.__file__).parent
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(part.startswith(".") for part in path.relative_to(package).parts)
    }


def _digest(data: bytes) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={encoded}"
