"""Configs as JSON documents, and the hash that names a run."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from outspike.errors import ConfigError


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; ``kind`` fields tell which class a nested object has."""
    document = dataclasses.asdict(config)
    loaded: dict[str, Any] = json.loads(json.dumps(document))
    return loaded


def from_json(cls: Any, document: Any) -> Any:
    """Inverse of :func:`to_json`: the config of type ``cls`` that a JSON value describes.

    ``cls`` may be a union such as ``DetectorConfig``; ``kind`` then decides. Fields that the
    document leaves out take their defaults.

    Raises:
        ConfigError: a field is unknown or has a value of another type, or the values contradict
            each other.
    """
    from pydantic import ValidationError

    try:
        config = _adapter(cls).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise ConfigError(f"The stored config cannot be read: {error}") from error
    unknown = sorted(_unknown_fields(document, to_json(config)))
    if unknown:
        raise ConfigError(
            f"The stored config has fields that {type(config).__name__} does not know: "
            f"{', '.join(unknown)}; it was written by another version of this package."
        )
    return config


@functools.cache
def _adapter(cls: Any) -> Any:
    """Building one takes longer than all else."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _unknown_fields(found: Any, known: Any, path: str = "") -> Iterator[str]:
    """Paths in ``found`` that reading it did not take up."""
    if isinstance(found, dict) and isinstance(known, dict):
        for key, value in found.items():
            if key not in known:
                yield f"{path}{key}"
            else:
                yield from _unknown_fields(value, known[key], f"{path}{key}.")
    elif isinstance(found, list) and isinstance(known, list):
        for i, (one, other) in enumerate(zip(found, known, strict=True)):
            yield from _unknown_fields(one, other, f"{path}{i}.")


def canonical_json(document: Any) -> str:
    """The one text of a JSON value that hashes are taken over: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(config: Any) -> str:
    """SHA-256 of the resolved config; it names the run."""
    return hashlib.sha256(canonical_json(to_json(config)).encode()).hexdigest()
