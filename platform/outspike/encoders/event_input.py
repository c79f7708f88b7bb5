"""Checks that every encoder makes on the events of a camera before counting them."""

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import SourceInfo
from outspike.errors import AlignmentError
from outspike.events.columns import Events


def frames_in_order(
    events: Events, source: SourceInfo, not_before: int
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Annotation frame of each event, sorted, and the order that sorts them; both ``[N]``.

    Raises:
        AlignmentError: a pixel lies outside the sensor, a time before the recording's start, or
            an event belongs to a frame before ``not_before``, which is already counted.
    """
    x, y = int(events.x.max(initial=0)), int(events.y.max(initial=0))
    if x >= source.width or y >= source.height:
        raise AlignmentError(
            f"An event at column {x} or row {y} lies outside the {source.width}x{source.height} "
            "sensor; give the true sensor size."
        )
    frames = source.event_clock.frame_of(events.t)
    order = np.argsort(frames, kind="stable")
    in_order = frames[order]
    if len(in_order) and int(in_order[0]) < not_before:
        raise AlignmentError(
            f"An event of frame {int(in_order[0])} arrived after frame {not_before} had begun; the "
            "recording's times run backwards."
        )
    return in_order, order
