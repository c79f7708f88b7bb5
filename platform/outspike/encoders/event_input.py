"""The events of a camera, checked and cut into annotation frames before an encoder counts them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import SourceInfo
from outspike.errors import AlignmentError
from outspike.events.columns import Events


def by_frame(events: Events, source: SourceInfo, not_before: int) -> Iterator[tuple[int, Events]]:
    """The annotation frames that have events, in order, each with its events in file order.

    Raises:
        AlignmentError: a pixel lies outside the sensor, a time before the recording's start, or
            an event belongs to a frame before ``not_before``, which is already counted.
    """
    if len(events) == 0:
        return
    _check_pixels(events, source)
    events = _in_order_of_frames(events, source)
    first, last = map(int, source.event_clock.frame_of(events.t[[0, -1]]))
    if first < not_before:
        raise AlignmentError(
            f"An event of frame {first} arrived after frame {not_before} had begun; the "
            "recording's times run backwards."
        )
    # Dividing every time by the length of a frame would take longer than all that follows.
    ends_us = [source.event_clock.time_of(frame + 1) for frame in range(first, last)]
    borders = np.searchsorted(events.t, ends_us).tolist()
    for frame, start, stop in zip(
        range(first, last + 1), [0, *borders], [*borders, len(events)], strict=True
    ):
        if start < stop:
            yield frame, events.slice(start, stop)


def _check_pixels(events: Events, source: SourceInfo) -> None:
    x, y = int(events.x.max()), int(events.y.max())
    if x >= source.width or y >= source.height:
        raise AlignmentError(
            f"An event at column {x} or row {y} lies outside the {source.width}x{source.height} "
            "sensor; give the true sensor size."
        )


def _in_order_of_frames(events: Events, source: SourceInfo) -> Events:
    """No event of a frame behind one of a later frame."""
    if bool((events.t[1:] >= events.t[:-1]).all()):
        return events
    order: NDArray[np.intp] = np.argsort(source.event_clock.frame_of(events.t), kind="stable")
    return Events(events.t[order], events.x[order], events.y[order], events.p[order])
