"""The package as a wheel file, made from wherever it is installed.

A model bundle carries this wheel, so that the model loads where there is no checkout. Building with
the project's build back end would need the source tree and the back end; a wheel is only a zip file
with three metadata files (the binary distribution format specification), so it is written here.
"""

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import outspike

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes for the same sources


def write_wheel(folder: Path) -> Path:
    """Write ``outspike-<version>-py3-none-any.whl`` into ``folder`` and return its path."""
    version = metadata.version("outspike")
    package = Path(outspike.__file__).parent
    info = f"outspike-{version}.dist-info"
    files = {
        f"outspike/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = (
        metadata.distribution("outspike").read_text("METADATA") or ""
    ).encode()
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


def _digest(data: bytes) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={encoded}"
