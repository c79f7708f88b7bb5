"""IEF-VAD: frame and event features fused by their uncertainty (``ief_vad.md`` section 3)."""

from outspike.detectors.ief_vad.detector import IefVad

__all__ = ["IefVad"]
