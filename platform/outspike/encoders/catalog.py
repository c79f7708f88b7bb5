"""Encoders by name; the modules are imported on use, so that listing them costs nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from outspike.config import EncoderConfig
from outspike.errors import ConfigError

if TYPE_CHECKING:
    from outspike.encoders.base import Encoder


def _event_pyramid(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.event_pyramid import EventPyramid

    return EventPyramid(grid=config.grid)


def _frame_pyramid(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.frame_pyramid import FramePyramid

    return FramePyramid(grid=config.grid)


def _frame_motion(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.frame_motion import FrameMotion

    return FrameMotion(grid=config.grid)


def _clip(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.clip import ClipFrames

    return ClipFrames(config)


def _event_clip(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.clip import EventClip

    return EventClip(config)


def _spikingformer(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.spikingformer import SpikingformerFeatures

    return SpikingformerFeatures(config)


def _gesture_cnn(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.gesture_cnn import GestureCnnFeatures

    return GestureCnnFeatures(config)


def _i3d(config: EncoderConfig) -> "Encoder":
    from outspike.encoders.i3d import I3dFeatures

    return I3dFeatures(config)


ENCODERS: dict[str, Callable[[EncoderConfig], "Encoder"]] = {
    "event-pyramid": _event_pyramid,
    "frame-pyramid": _frame_pyramid,
    "frame-motion": _frame_motion,
    "clip": _clip,
    "event-clip": _event_clip,
    "spikingformer": _spikingformer,
    "gesture-cnn": _gesture_cnn,
    "i3d-rgb": _i3d,
    "i3d-flow": _i3d,
    "i3d-combine": _i3d,
}

_CLIP = frozenset({"clip", "event-clip"})
_SPIKING = frozenset({"spikingformer", "gesture-cnn"})
_I3D = frozenset({"i3d-rgb", "i3d-flow", "i3d-combine"})

#: Settings that some encoders lack, and the encoders that have them.
_ONLY_FOR = {
    "weights": _CLIP | _SPIKING | _I3D,
    "flow_weights": frozenset({"i3d-combine"}),
    "crops": _CLIP | _I3D,
    "scale": _I3D,
    "flow": frozenset({"i3d-flow", "i3d-combine"}),
    "event_threshold": frozenset({"event-clip"}),
    "steps_per_snippet": _SPIKING,
    "chunk_steps": frozenset({"spikingformer"}),
    "compat": _CLIP | {"spikingformer"},
}


def build(config: EncoderConfig) -> "Encoder":
    """The encoder a config describes, weights loaded.

    Raises:
        ConfigError: the kind is unknown, or the config sets what that kind does not have.
    """
    if config.kind not in ENCODERS:
        raise ConfigError(f"No encoder {config.kind!r}; there are: {', '.join(ENCODERS)}.")
    plain = EncoderConfig()
    for name, kinds in _ONLY_FOR.items():
        value = getattr(config, name)
        if config.kind not in kinds and value != getattr(plain, name):
            raise ConfigError(
                f"{config.kind} takes no {name}, yet {name}={value!r} is set; only "
                f"{', '.join(sorted(kinds))} does."
            )
    return ENCODERS[config.kind](config)
