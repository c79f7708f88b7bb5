"""What happens in a miniature scene: everyday traffic, and four kinds of anomaly.

Everyday scenes have fast motion too (cars, cyclists, vans on the forecourt, a mower on the verge, a
swaying tree, flickering lamps), and in every place, so that neither the amount of motion nor its
place says much. Everyday things move steadily; the anomalies start, stop, scatter and flicker.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from outspike.synth.scene import (
    HEIGHT,
    WIDTH,
    Actor,
    Layout,
    Rng,
    Sprite,
    cyclist,
    debris,
    flailing,
    flame,
    glow,
    person,
    smoke,
    vehicle,
)

#: Everyday motion that a scene starts with is already under way.
_WARM_UP = 90


@dataclass(frozen=True, kw_only=True)
class Story:
    """Actors of one scene and the half-open frames in which something is wrong."""

    actors: tuple[Actor, ...]
    intervals: tuple[tuple[int, int], ...]


def everyday(layout: Layout, num_frames: int, rng: Rng) -> Story:
    """People walk with the flow, cars keep to their lanes."""
    return Story(actors=tuple(_traffic(layout, num_frames, rng)), intervals=())


def collision(layout: Layout, num_frames: int, rng: Rng) -> Story:
    """A car swerves into one of the other lane; fragments fly, both stop, and smoke rises."""
    start, stop = _when(num_frames, rng, 80, 110)
    impact = start + 16
    others = _traffic(layout, num_frames, rng, cars_until=start - 45)
    x, speed = rng.uniform(0.35, 0.65) * WIDTH, rng.uniform(2.2, 3.2)
    actors = []
    for direction in (-layout.flow, layout.flow):
        lane, swerves = layout.lane(direction), direction == layout.flow
        goal = layout.median - 4 if swerves else lane
        sprite = vehicle(rng, length=int(rng.integers(22, 28)))

        def place(
            frame: int, direction: int = direction, lane: float = lane, goal: float = goal
        ) -> tuple[float, float] | None:
            if frame >= stop:
                return None
            before = max(0, impact - frame)
            turn = np.clip((frame - start) / (impact - start), 0, 1)
            after = frame - impact
            shudder = 2.2 * np.sin(2.1 * after) * np.exp(-after / 18) if after > 0 else 0.0
            return (
                x - direction * (9 + speed * before) + shudder,
                lane + (goal - lane) * turn + 0.6 * shudder,
            )

        actors.append(Actor(place=place, look=_always(sprite)))
    fragments = [_fragment(x, layout.median, impact, rng) for _ in range(36)]
    wreck = _flicker(x, layout.median - 16, impact, stop, [smoke(rng) for _ in range(24)])
    return Story(actors=(*others, *actors, *fragments, wreck), intervals=((start, stop),))


def against_the_flow(layout: Layout, num_frames: int, rng: Rng) -> Story:
    """Somebody darts along the verge of the road, against the flow, weaving."""
    speed = rng.uniform(1.5, 2.1)
    start, stop = _when(num_frames, rng, round((WIDTH + 14) / speed))
    weave = rng.uniform(9, 15)
    phases, begin = flailing(rng), -7.0 if layout.flow < 0 else WIDTH + 7.0

    def place(frame: int) -> tuple[float, float] | None:
        if not start <= frame < stop:
            return None
        way = _in_bursts(frame - start)
        y = layout.verge + 3 + 6 * np.sin(way / weave * 2 * np.pi)
        return begin - layout.flow * speed * way, y

    runner = Actor(place=place, look=lambda frame: phases[_in_bursts(frame - start) // 2 % 4])
    others = _traffic(layout, num_frames, rng)
    return Story(actors=(*others, runner), intervals=((start, stop),))


def fire(layout: Layout, num_frames: int, rng: Rng) -> Story:
    """The litter bin on the forecourt burns: flames grow, flicker and die down."""
    start, stop = _when(num_frames, rng, 60, 110)
    x = layout.bin_x + rng.uniform(-5, 5)
    y = 0.5 * (layout.forecourt + layout.walkway) + rng.uniform(-3, 1)
    largest = rng.uniform(13, 17)
    sizes = largest * np.minimum(1, np.minimum(np.arange(1, 1 + stop - start), 25) / 18)
    sizes *= np.minimum(1, np.arange(stop - start, 0, -1) / 12)
    gusts = np.repeat(rng.choice([0.45, 1.0], len(sizes)), rng.integers(2, 6, len(sizes)))
    sizes *= gusts[: len(sizes)]
    flames = _flicker(x, y, start, stop, [flame(rng, max(2.0, size)) for size in sizes])
    light = _flicker(x, y, start, stop, [glow(rng, 3.2 * size) for size in sizes])
    others = _traffic(layout, num_frames, rng)
    return Story(actors=(light, *others, flames), intervals=((start, stop),))


def loiter_then_run(layout: Layout, num_frames: int, rng: Rng) -> Story:
    """Somebody hangs about on the forecourt, then runs across walkway and road."""
    waits, speed = int(rng.integers(44, 70)), rng.uniform(2.2, 2.8)
    x = rng.uniform(0.25, 0.75) * WIDTH
    y = layout.forecourt + 7
    flees = round((layout.verge + 12 - y) / (speed * 0.75))
    start, stop = _when(num_frames, rng, waits + flees)
    pacing, side = rng.uniform(14, 22), float(rng.choice([-1, 1]))
    phases = flailing(rng)

    def place(frame: int) -> tuple[float, float] | None:
        if not start <= frame < stop:
            return None
        age = frame - start
        waiting = min(_in_bursts(age), waits)
        run = max(0, age - waits) * speed
        across = x + 7 * np.sin(2 * np.pi * waiting / pacing) + side * 0.66 * run
        return across, y + 1.2 * np.sin(4 * np.pi * waiting / pacing) + 0.75 * run

    person_there = Actor(place=place, look=lambda frame: phases[_in_bursts(frame - start) // 2 % 4])
    others = _traffic(layout, num_frames, rng)
    return Story(actors=(*others, person_there), intervals=((start, stop),))


#: Everyday scenes and anomalies by class name.
STORIES: dict[str, Callable[[Layout, int, Rng], Story]] = {
    "Normal": everyday,
    "Collision": collision,
    "AgainstFlow": against_the_flow,
    "Fire": fire,
    "LoiterRun": loiter_then_run,
}


def _when(num_frames: int, rng: Rng, shortest: int, longest: int | None = None) -> tuple[int, int]:
    """An interval that leaves some everyday frames before and after it."""
    length = shortest if longest is None else int(rng.integers(shortest, longest))
    length = min(length, num_frames - 24)
    start = int(rng.integers(12, num_frames - length - 11))
    return start, start + length


def _traffic(
    layout: Layout, num_frames: int, rng: Rng, cars_until: int | None = None
) -> list[Actor]:
    people = [
        _pedestrian(layout, frame, rng)
        for frame in _arrivals(rng, num_frames, rng.uniform(40, 80), _WARM_UP)
    ]
    people += [_stroller(layout, frame, rng) for frame in _arrivals(rng, num_frames, 70, _WARM_UP)]
    vans = [_service(layout, frame, rng) for frame in _arrivals(rng, num_frames, 90, _WARM_UP)]
    last_car = num_frames if cars_until is None else max(0, cars_until)
    cars = []
    for direction in (-layout.flow, layout.flow):
        speed = rng.uniform(2.0, 4.5)  # one speed a lane: cars do not drive through each other
        gap = max(30.0, 50 / speed)
        arrivals = _arrivals(rng, last_car, gap + rng.uniform(10, 60), _WARM_UP, gap)
        cars += [_car(layout, frame, direction, speed, rng) for frame in arrivals]
    return people + vans + cars


def _arrivals(
    rng: Rng, stop: int, mean_gap: float, before: int, least_gap: float = 6.0
) -> list[int]:
    """Frames at which somebody comes into view, from ``before`` frames ahead of the start."""
    frames, frame = [], -before + rng.uniform(0, mean_gap)
    while frame < stop:
        frames.append(round(frame))
        frame += least_gap + rng.exponential(max(1.0, mean_gap - least_gap))
    return frames


def _pedestrian(layout: Layout, start: int, rng: Rng) -> Actor:
    row = rng.uniform(layout.walkway + 1, layout.road - 8)
    return _passer_by(layout, start, row, rng)


def _stroller(layout: Layout, start: int, rng: Rng) -> Actor:
    """Some cross the forecourt or walk along the verge: no place is out of bounds."""
    rows = ((layout.forecourt + 4, layout.walkway - 6), (layout.verge + 1, HEIGHT - 9))
    low, high = rows[int(rng.integers(2))]
    return _passer_by(layout, start, rng.uniform(low, high), rng)


def _service(layout: Layout, start: int, rng: Rng) -> Actor:
    """A van on the forecourt, a mower on the verge."""
    if rng.random() < 0.5:
        row, sprite = (
            rng.uniform(layout.forecourt + 5, layout.walkway - 6),
            vehicle(rng, length=26, height=13),
        )
    else:
        row, sprite = layout.verge + 6.0, vehicle(rng, length=16)
    direction = int(rng.choice([-1, 1]))
    return _crossing([sprite], start, lambda age: row, direction, rng.uniform(1.4, 3.2), 1)


def _passer_by(layout: Layout, start: int, row: float, rng: Rng) -> Actor:
    if rng.random() < 0.4:
        rider = [cyclist(rng)]
        speed = rng.uniform(1.8, 3.0)
        return _crossing(rider, start, lambda age: row, layout.flow, speed, 1)
    return _crossing(person(rng), start, lambda age: row, layout.flow, rng.uniform(0.6, 1.1), 4)


def _crossing(
    phases: list[Sprite],
    start: int,
    row: Callable[[int], float],
    direction: int,
    speed: float,
    step_frames: int,
) -> Actor:
    """From one side of the picture to the other."""
    begin = -7.0 if direction > 0 else WIDTH + 7.0

    def place(frame: int) -> tuple[float, float] | None:
        x = begin + direction * speed * (frame - start)
        gone = frame < start or not -8 < x < WIDTH + 8
        return None if gone else (x, row(frame - start))

    return Actor(place=place, look=lambda frame: phases[frame // step_frames % len(phases)])


def _car(layout: Layout, start: int, direction: int, speed: float, rng: Rng) -> Actor:
    is_truck = rng.random() < 0.3
    length = int(rng.integers(34, 42)) if is_truck else int(rng.integers(20, 28))
    sprite = vehicle(rng, length=length, height=15 if is_truck else 11)
    begin = -length if direction > 0 else WIDTH + length
    row = layout.lane(direction) - (2 if is_truck else 0)

    def place(frame: int) -> tuple[float, float] | None:
        x = begin + direction * speed * (frame - start)
        return (x, row) if frame >= start and -length <= x <= WIDTH + length else None

    return Actor(place=place, look=_always(sprite))


def _fragment(x: float, y: float, impact: int, rng: Rng) -> Actor:
    """Flies off in a random direction and slides to a halt."""
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 4.5)
    lasts = int(rng.integers(14, 30))

    def place(frame: int) -> tuple[float, float] | None:
        age = frame - impact
        if not 0 <= age < lasts:
            return None
        way = speed * 9 * (1 - np.exp(-age / 9))
        return x + way * np.cos(angle), y + 0.8 * way * np.sin(angle)

    return Actor(place=place, look=_always(debris(rng)))


def _flicker(x: float, y: float, start: int, stop: int, looks: list[Sprite]) -> Actor:
    """Stays in one place and looks different in every frame."""

    def place(frame: int) -> tuple[float, float] | None:
        return (x, y) if start <= frame < stop else None

    return Actor(place=place, look=lambda frame: looks[(frame - start) % len(looks)])


def _in_bursts(age: int) -> int:
    """Progress of somebody nervous: four frames at twice the pace, four frames still."""
    return age // 8 * 8 + min(2 * (age % 8), 8)


def _always(sprite: Sprite) -> Callable[[int], Sprite]:
    return lambda frame: sprite
