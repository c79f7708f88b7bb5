"""Identity of a feature set: everything that decides a feature value, hashed."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from outspike.config import canonical_json
from outspike.errors import ConfigError

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_DTYPES = ("float16", "float32")
_ADDRESS_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class FeatureSetSpec:
    """Features of one fingerprint: ``K`` crops, ``D`` wide, for any number of recordings.

    ``document`` states everything that decides a feature value (encoder and code revision, weights
    digest, preprocessing, crop layout, snippet grid, event representation, dtype, decoder and its
    version) as plain JSON values; ``fingerprint`` is the SHA-256 of its canonical JSON.
    """

    name: str
    document: dict[str, Any]
    num_crops: int
    width: int
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"Feature set name {self.name!r}: use lower-case letters and digits, joined by "
                "'-', '_' or '.'; it becomes a folder name."
            )
        if self.num_crops < 1 or self.width < 1:
            raise ConfigError(
                f"{self.name}: num_crops={self.num_crops}, width={self.width}; both must be >= 1."
            )
        if self.dtype not in _DTYPES:
            raise ConfigError(f"{self.name}: dtype {self.dtype!r}; expected one of {_DTYPES}.")
        try:
            plain = json.loads(canonical_json(self.document))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.name}: the fingerprint document must hold plain JSON values: {error}"
            ) from error
        object.__setattr__(self, "document", plain)  # a copy; tuples became lists, as when read

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint, self.num_crops, self.width, self.dtype))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the document, 64 hex digits."""
        return hashlib.sha256(canonical_json(self.document).encode()).hexdigest()

    @property
    def is_imported(self) -> bool:
        """Whether the features came as files, so that no encoder here can make them again."""
        return bool(self.document.get("encoder") == "imported")

    @property
    def address(self) -> str:
        """Folder of the feature set below ``<store>/features/``."""
        return f"{self.name}-{self.fingerprint[:_ADDRESS_DIGITS]}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one snippet: ``K * D * itemsize``."""
        return self.num_crops * self.width * np.dtype(self.dtype).itemsize

    def attributes(self) -> dict[str, Any]:
        """What the zarr group of the feature set says about itself."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "num_crops": self.num_crops,
            "width": self.width,
            "dtype": self.dtype,
            "document": self.document,
        }

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> "FeatureSetSpec":
        """The spec a group describes.

        Raises:
            ConfigError: an entry is missing, or the fingerprint is not that of the document.
        """
        try:
            spec = cls(
                **{key: attributes[key] for key in ("name", "num_crops", "width", "dtype")},
                document=attributes["document"],
            )
            stated = attributes["fingerprint"]
        except (KeyError, TypeError) as error:
            raise ConfigError(f"The group does not describe a feature set: {error!r}.") from error
        if stated != spec.fingerprint:
            raise ConfigError(
                f"{spec.name}: the group states fingerprint {stated}, its document hashes to "
                f"{spec.fingerprint}; one of the two was altered."
            )
        return spec
