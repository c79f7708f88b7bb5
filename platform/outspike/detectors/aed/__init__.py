"""AED: ConvLSTM windows of snippets, classified and scored frame by frame (``lad2000_aed.md``)."""

from outspike.detectors.aed.detector import Aed

__all__ = ["Aed"]
