"""Detectors by name."""

from outspike.config import DetectorConfig
from outspike.detectors.base import Detector
from outspike.detectors.ief_vad.detector import IefVad
from outspike.detectors.motion_floor import MotionFloor
from outspike.detectors.msf.detector import Msf
from outspike.errors import ConfigError

DETECTORS: dict[str, type[Detector]] = {"msf": Msf, "ief_vad": IefVad, "motion_floor": MotionFloor}


def build(config: DetectorConfig, *, isolate_stats: bool = False) -> Detector:
    """The detector that a config describes, untrained.

    Args:
        config: its settings; ``kind`` names it.
        isolate_stats: keep synthetic bags out of batch statistics (``SslsConfig.isolate_stats``).

    Raises:
        ConfigError: unknown kind, or settings that contradict each other.
    """
    if config.kind not in DETECTORS:
        raise ConfigError(f"{config.kind!r} is no detector; known are {sorted(DETECTORS)}.")
    if isolate_stats and getattr(config, "compat", None) == "msf_2025":
        raise ConfigError(
            "isolate_stats cannot hold with compat='msf_2025', whose TIM layer mixes neighbouring "
            "bags; use the default form."
        )
    kind: type = DETECTORS[config.kind]
    detector: Detector = kind(config)
    detector.isolate_stats = isolate_stats
    return detector
