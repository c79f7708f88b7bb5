"""Detectors by name."""

from outspike.config import DetectorConfig
from outspike.detectors.aed.detector import Aed
from outspike.detectors.base import Detector
from outspike.detectors.ensemble import Ensemble, Joinable
from outspike.detectors.gv_vad.detector import GvVad
from outspike.detectors.ief_vad.detector import IefVad
from outspike.detectors.motion_floor import MotionFloor
from outspike.detectors.msf.detector import Msf
from outspike.detectors.saa.detector import Saa
from outspike.errors import ConfigError

DETECTORS: dict[str, type[Detector]] = {
    "msf": Msf,
    "ief_vad": IefVad,
    "gv_vad": GvVad,
    "saa": Saa,
    "aed": Aed,
    "aed_t": Aed,
    "motion_floor": MotionFloor,
}

#: Published forms in which bags of a batch reach each other by more than statistics.
_MIXES_BAGS = {
    "msf_2025": "whose TIM layer mixes neighbouring bags",
    "gv_vad_2025": "whose losses run over the borders of bags",
}


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
    compat = getattr(config, "compat", None)
    if isolate_stats and compat in _MIXES_BAGS:
        raise ConfigError(
            f"isolate_stats cannot hold with compat={compat!r}, {_MIXES_BAGS[compat]}; use the "
            "default form."
        )
    kind: type = DETECTORS[config.kind]
    detector: Detector
    if isinstance(config, Joinable) and config.members != 1:
        detector = Ensemble(config, kind)
    else:
        detector = kind(config)
    for module in detector.modules():
        if isinstance(module, Detector):
            module.isolate_stats = isolate_stats
    return detector
