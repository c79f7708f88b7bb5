"""Detectors: bags of snippet features in, a probability of being anomalous per snippet out."""

from outspike.detectors.build import DETECTORS, build
from outspike.detectors.checkpoints import import_checkpoint

__all__ = ["DETECTORS", "build", "import_checkpoint"]
