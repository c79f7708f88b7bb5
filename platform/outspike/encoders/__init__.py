"""Encoders: decoded recordings in, feature rows out."""

from outspike.encoders.catalog import ENCODERS, build

__all__ = ["ENCODERS", "build"]
