"""GV-VAD: frames and captions in context, taught by anomaly prompts (``gv_vad_ssls.md``)."""

from outspike.detectors.gv_vad.detector import GvVad

__all__ = ["GvVad"]
