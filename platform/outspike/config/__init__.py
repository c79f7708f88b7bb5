"""Settings of every stage as plain frozen dataclasses; nothing heavy is imported here.

Jobs take a recipe (:mod:`outspike.recipes`) and dotted overrides, resolve them into one of these
objects, check it, and store it as JSON beside what they made.
"""

from outspike.config.detectors import (
    AedConfig,
    Compat,
    DetectorConfig,
    GvVadConfig,
    IefVadConfig,
    MotionFloorConfig,
    MsfConfig,
    SaaConfig,
    SslsConfig,
)
from outspike.config.document import canonical_json, config_hash, from_json, to_json
from outspike.config.features import DataConfig, EncoderConfig, ExtractConfig, StoreConfig
from outspike.config.scoring import CrossfitConfig, EvaluateConfig, PredictConfig
from outspike.config.search import TuneConfig
from outspike.config.training import (
    ComputeConfig,
    OptimConfig,
    SelectionConfig,
    TrainConfig,
    WindowConfig,
)

__all__ = [
    "AedConfig",
    "Compat",
    "ComputeConfig",
    "CrossfitConfig",
    "DataConfig",
    "DetectorConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "GvVadConfig",
    "IefVadConfig",
    "MotionFloorConfig",
    "MsfConfig",
    "OptimConfig",
    "PredictConfig",
    "SaaConfig",
    "SelectionConfig",
    "SslsConfig",
    "StoreConfig",
    "TrainConfig",
    "TuneConfig",
    "WindowConfig",
    "canonical_json",
    "config_hash",
    "from_json",
    "to_json",
]
