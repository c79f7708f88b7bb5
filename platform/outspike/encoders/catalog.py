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


ENCODERS: dict[str, Callable[[EncoderConfig], "Encoder"]] = {
    "event-pyramid": _event_pyramid,
    "frame-pyramid": _frame_pyramid,
    "frame-motion": _frame_motion,
}

#: Encoders that compute with fixed rules and take no pretrained weights.
_WEIGHTS_FREE = frozenset({"event-pyramid", "frame-pyramid", "frame-motion"})


def build(config: EncoderConfig) -> "Encoder":
    """The encoder a config describes, weights loaded.

    Raises:
        ConfigError: the kind is unknown, or the config sets what that kind does not have.
    """
    if config.kind not in ENCODERS:
        raise ConfigError(f"No encoder {config.kind!r}; there are: {', '.join(ENCODERS)}.")
    if config.kind in _WEIGHTS_FREE and (config.weights is not None or config.crops != "centre"):
        raise ConfigError(
            f"{config.kind} has no weights and looks at the whole picture, but weights="
            f"{config.weights!r} and crops={config.crops!r} are set; leave both at their defaults."
        )
    return ENCODERS[config.kind](config)
