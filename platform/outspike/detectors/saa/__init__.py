"""SAA: snippet anomalous attention with multi-branch supervision."""

from outspike.detectors.saa.detector import Saa

__all__ = ["Saa"]
