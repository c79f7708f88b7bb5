"""The golden-feature check: what is about to fill a store makes the features it was begun with.

A fingerprint states everything that is meant to decide a feature value. What it cannot state (a
library that computes otherwise, a device, a broken build) shows on the bundled sample: the first
job keeps its features in ``<store>/references/<feature set>.json``, and every actor of later jobs
compares its own with them before it takes a recording.
"""

import base64
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.encoders.base import Encoder
from outspike.errors import CorruptionError, ExtractionError, MissingUrlError
from outspike.extract.sample import Rows, encode_sample, sample_digest, sample_modality
from outspike.store.fingerprint import FeatureSetSpec

REFERENCES = "references"

_ENTRIES = {"sample", "shape", "dtype", "features", "made_with"}
_LIBRARIES = ("outspike", "numpy", "av", "torch")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far features lie from those of the reference.

    ``cosine`` is the smallest over rows and crops (1 where both are zero); ``max_abs`` the largest
    difference as a share of the largest value of the reference.
    """

    cosine: float
    max_abs: float

    def within(self, min_cosine: float, max_abs: float) -> bool:
        """Whether it is as small as asked; a value that is not finite never is."""
        return bool(self.cosine >= min_cosine and self.max_abs <= max_abs)


def check_sample(
    store_url: str, encoders: Sequence[Encoder], *, min_cosine: float, max_abs: float
) -> list[Drift | None]:
    """Compare features of the sample with the store's references; write those that are missing.

    Returns the drift of each encoder, None where its reference was written now.

    Raises:
        ExtractionError: an encoder has drifted; says how far, and what made the reference.
        CorruptionError: a reference is not what was written.
    """
    made: dict[str, Rows] = {}
    for modality in sorted({sample_modality(encoder) for encoder in encoders}):
        fitting = [encoder for encoder in encoders if sample_modality(encoder) == modality]
        made.update(zip([e.name for e in fitting], encode_sample(fitting, modality), strict=True))
    found: list[Drift | None] = []
    for encoder in encoders:
        rows = made[encoder.name]
        spec, sample = encoder.spec(), sample_digest(sample_modality(encoder))
        url = reference_url(store_url, spec)
        reference = _read(url)
        if reference is None or reference["sample"] != sample:  # a sample of another release
            _write(url, spec, sample, rows)
            found.append(None)
            continue
        drift = drift_of(rows, _rows_of(reference, url))
        if not drift.within(min_cosine, max_abs):
            raise ExtractionError(
                f"{spec.address}: features of the bundled sample are not those that {store_url} "
                f"was begun with: cosine {drift.cosine:.6f} (at least {min_cosine}), largest "
                f"difference {drift.max_abs:.6f} of the largest value (at most {max_abs}). The "
                f"reference was made with {_told(reference['made_with'])}, this is "
                f"{_told(_made_with())}. Use what made it, or extract into a new store; "
                "--no-check-sample goes on all the same."
            )
        found.append(drift)
    return found


def reference_url(store_url: str, spec: FeatureSetSpec) -> str:
    """Where the reference of a feature set is kept."""
    return urls.join(store_url, REFERENCES, f"{spec.address}.json")


def drift_of(rows: Rows, reference: Rows) -> Drift:
    """Compare two arrays ``[S, K, D]``; other shapes are as far apart as can be."""
    if rows.shape != reference.shape:
        return Drift(cosine=-1.0, max_abs=float("inf"))
    ours, theirs = rows.astype(np.float64), reference.astype(np.float64)
    largest = float(np.abs(theirs).max(initial=0.0)) or 1.0
    return Drift(
        cosine=float(_cosines(ours, theirs).min(initial=1.0)),
        max_abs=float(np.abs(ours - theirs).max(initial=0.0)) / largest,
    )


def _cosines(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    both_zero = ~ours.any(axis=-1) & ~theirs.any(axis=-1)
    dots = (ours * theirs).sum(axis=-1)
    cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return np.where(both_zero, 1.0, cosines)


def _read(url: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(urls.read_bytes(url))
    except MissingUrlError:
        return None
    except ValueError as error:
        raise _not_a_reference(url) from error
    if not isinstance(document, dict) or not document.keys() >= _ENTRIES:
        raise _not_a_reference(url)
    return document


def _rows_of(reference: dict[str, Any], url: str) -> Rows:
    try:
        raw = base64.b64decode(reference["features"], validate=True)
        return np.frombuffer(raw, dtype=reference["dtype"]).reshape(reference["shape"])
    except (ValueError, TypeError) as error:
        raise _not_a_reference(url) from error


def _not_a_reference(url: str) -> CorruptionError:
    return CorruptionError(
        f"{url}: not a reference of features, or damaged; remove it, and the next job writes it."
    )


def _write(url: str, spec: FeatureSetSpec, sample: str, rows: Rows) -> None:
    document = {
        "fingerprint": spec.fingerprint,
        "sample": sample,
        "shape": rows.shape,
        "dtype": str(rows.dtype),
        "features": base64.b64encode(np.ascontiguousarray(rows).tobytes()).decode(),
        "made_with": _made_with(),
        "made_at": datetime.now(UTC).isoformat(),
    }
    urls.write_bytes(url, json.dumps(document, indent=1).encode())


def _made_with() -> dict[str, str]:
    libraries = {name: version(name) for name in _LIBRARIES}
    return libraries | {"python": platform.python_version(), "machine": platform.machine()}


def _told(made_with: dict[str, str]) -> str:
    return " ".join(f"{name} {number}" for name, number in made_with.items())
