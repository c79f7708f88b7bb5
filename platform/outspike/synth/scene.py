"""Drawing of the miniature scenes: a fixed camera over a road, a walkway and a forecourt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 160, 120

_NUM_NOISE_FIELDS = 16

#: Largest share by which flickering lamps change the light.
LAMP_FLICKER = 0.03

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things are, top to bottom, in pixel rows; one camera for the whole data set.

    ``flow`` is the direction (+1 to the right) in which people walk; cars keep to the right.
    """

    wall: int
    forecourt: int
    walkway: int
    road: int
    verge: int
    flow: int
    tree_x: int
    bin_x: int

    @classmethod
    def draw(cls, rng: Rng) -> "Layout":
        """A camera position: the bands move a little, and half of all seeds are mirrored."""
        forecourt = int(rng.integers(22, 28))
        walkway = forecourt + int(rng.integers(20, 24))
        road = walkway + int(rng.integers(20, 24))
        return cls(
            wall=0,
            forecourt=forecourt,
            walkway=walkway,
            road=road,
            verge=road + int(rng.integers(28, 32)),
            flow=int(rng.choice([-1, 1])),
            tree_x=int(rng.integers(12, WIDTH // 2 - 12)),
            bin_x=int(rng.integers(WIDTH // 2 + 12, WIDTH - 20)),
        )

    def lane(self, direction: int) -> float:
        """Middle row of the lane whose cars drive in ``direction``."""
        width = self.verge - self.road
        return self.road + width * (0.27 if direction == -self.flow else 0.73)

    @property
    def median(self) -> float:
        """Row between the lanes."""
        return 0.5 * (self.road + self.verge)


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """A small picture ``[h, w, 4]``: colour in 0..255 times coverage, and coverage in 0..1."""

    covered: NDArray[np.float32]

    @classmethod
    def of(cls, colour: NDArray[Any], cover: NDArray[Any]) -> "Sprite":
        """From colour ``[h, w, 3]`` and coverage ``[h, w]``."""
        return cls(covered=np.dstack([colour * cover[..., None], cover]).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A sprite on a path: ``place(frame)`` gives its centre (x, y), or None while it is absent.

    ``look(frame)`` may give another sprite, for things that flicker or swing their legs.
    """

    place: Callable[[int], tuple[float, float] | None]
    look: Callable[[int], Sprite]


def background(layout: Layout, rng: Rng) -> NDArray[np.float32]:
    """The empty scene ``[H, W, 3]``, textured so that anything moving over it makes events."""
    rows = np.empty((HEIGHT, 3), dtype=np.float32)
    bands = [
        (layout.wall, (118, 104, 96)),
        (layout.forecourt, (138, 134, 126)),
        (layout.walkway, (158, 154, 148)),
        (layout.road, (84, 86, 90)),
        (layout.verge, (84, 112, 70)),
    ]
    for (start, colour), (stop, _) in zip(bands, [*bands[1:], (HEIGHT, ())], strict=True):
        rows[start:stop] = colour
    scene = np.repeat(rows[:, None], WIDTH, axis=1)
    scene *= 1 + 0.10 * _smooth_noise(rng, 12)[..., None] + 0.05 * _smooth_noise(rng, 3)[..., None]
    for x in range(6, WIDTH - 8, 16):  # windows
        scene[5 : layout.forecourt - 7, x : x + 8] *= 0.62
    for y in range(layout.walkway, layout.road, 7):  # paving
        scene[y] *= 0.93
    for x in range(0, WIDTH, 14):  # lane marks
        scene[round(layout.median), x : x + 7] = 205
    bin_y = (layout.forecourt + layout.walkway) // 2
    scene[bin_y : bin_y + 9, layout.bin_x - 3 : layout.bin_x + 4] = (60, 70, 66)
    return scene


def render(
    layout: Layout, scene: NDArray[np.float32], actors: Sequence[Actor], num_frames: int, rng: Rng
) -> Iterator[NDArray[np.float32]]:
    """Frames ``[H, W, 3]`` in 0..255 before any sensor: drifting light, a swaying tree, actors."""
    light, phase = _exposure(num_frames, rng), rng.uniform(0, 2 * np.pi)
    crown, sway_frames = _tree(rng), rng.uniform(14, 30)
    for frame in range(num_frames):
        canvas = scene.copy()
        sway = 1.6 * np.sin(2 * np.pi * frame / sway_frames + phase)
        paint(canvas, crown, layout.tree_x + sway, layout.forecourt - 4)
        for actor in actors:
            place = actor.place(frame)
            if place is not None:
                paint(canvas, actor.look(frame), *place)
        canvas *= light[frame]
        yield canvas


def _exposure(num_frames: int, rng: Rng) -> NDArray[np.float32]:
    """Brightness of every frame ``[F]``: drifting clouds, and lamps that flicker for a while.

    Lamp flicker moves every pixel by a few per cent. That is a lot of motion to whoever adds up
    frame differences, stays below the threshold of an event pixel, and is no anomaly.
    """
    frames = np.arange(num_frames)
    cloud = np.sin(2 * np.pi * (frames / rng.uniform(120, 300) + rng.random()))
    level = rng.uniform(0.85, 1.05) * (1 + rng.uniform(0.0, 0.05) * cloud)
    for _ in range(rng.poisson(num_frames / 120)):
        start, lasts = int(rng.integers(0, num_frames)), int(rng.integers(20, 60))
        flicker = rng.uniform(-1, 1, num_frames) * LAMP_FLICKER
        level *= np.where((frames >= start) & (frames < start + lasts), 1 + flicker, 1)
    return level.astype(np.float32)


def paint(canvas: NDArray[np.float32], sprite: Sprite, x: float, y: float) -> None:
    """Blend a sprite centred at (x, y) into the canvas, to a fraction of a pixel."""
    height, width, _ = sprite.covered.shape
    left, top = x - width / 2, y - height / 2
    column, row = int(np.floor(left)), int(np.floor(top))
    if column >= WIDTH or row >= HEIGHT or column + width + 1 <= 0 or row + height + 1 <= 0:
        return
    shifted = _shift(sprite.covered, left - column, top - row)
    inside_y = slice(max(0, -row), min(height + 1, HEIGHT - row))
    inside_x = slice(max(0, -column), min(width + 1, WIDTH - column))
    target = canvas[
        row + inside_y.start : row + inside_y.stop, column + inside_x.start : column + inside_x.stop
    ]
    target *= 1 - shifted[inside_y, inside_x, 3:]
    target += shifted[inside_y, inside_x, :3]


def person(rng: Rng) -> list[Sprite]:
    """Two phases of a walk: head, coat and legs."""
    coat, trousers = rng.uniform(20, 235, 3), rng.uniform(20, 120, 3)
    phases = []
    for stride in (1, 3):
        colour = np.empty((14, 7, 3), dtype=np.float32)
        cover = np.zeros((14, 7), dtype=np.float32)
        colour[:4], colour[4:9], colour[9:] = (205, 165, 140), coat, trousers
        cover[0:4, 2:5] = cover[4:9, 1:6] = 1
        cover[9:, 3 - stride // 2] = cover[9:, 3 + stride // 2] = 1
        phases.append(Sprite.of(colour, _soften(cover)))
    return phases


def flailing(rng: Rng) -> list[Sprite]:
    """Four phases of somebody who runs or fidgets: arms thrown about, legs wide, coat flying."""
    coat, trousers = rng.choice([25.0, 230.0], 2)
    phases = []
    for arms, stride, is_open in ((2, 4, 0), (5, 1, 1), (8, 4, 0), (4, 2, 1)):
        colour = np.empty((16, 13, 3), dtype=np.float32)
        cover = np.zeros((16, 13), dtype=np.float32)
        colour[:5], colour[5:11], colour[11:] = (205, 165, 140), coat, trousers
        if is_open:
            colour[5:11, 5:8] = 255 - coat
        cover[1:5, 5:8] = cover[5:11, 4:9] = 1
        cover[arms : arms + 2, 0:4] = cover[10 - arms : 12 - arms, 9:13] = 1
        cover[11:, 6 - stride : 8 - stride] = cover[11:, 5 + stride : 7 + stride] = 1
        phases.append(Sprite.of(colour, _soften(cover)))
    return phases


def cyclist(rng: Rng) -> Sprite:
    """Somebody on a bicycle, who hardly moves against it."""
    colour = np.empty((14, 14, 3), dtype=np.float32)
    cover = np.zeros((14, 14), dtype=np.float32)
    colour[:3], colour[3:8], colour[8:] = (205, 165, 140), rng.uniform(20, 235, 3), 30.0
    cover[:3, 6:9] = cover[3:8, 5:10] = cover[8:10, 3:11] = 1
    cover[9:14, 1:5] = cover[9:14, 9:13] = 0.8
    return Sprite.of(colour, cover)


def vehicle(rng: Rng, *, length: int, height: int = 11) -> Sprite:
    """A car or truck from the side: body, darker windows, wheels."""
    colour = np.empty((height, length, 3), dtype=np.float32)
    colour[:] = rng.uniform(30, 240, 3)
    colour[1:4, length // 5 : -length // 5] = (40, 48, 58)
    colour[-3:, 2:6] = colour[-3:, -6:-2] = 18
    cover = np.ones((height, length), dtype=np.float32)
    cover[0, :3] = cover[0, -3:] = 0
    return Sprite.of(colour, _soften(cover))


def flame(rng: Rng, size: float) -> Sprite:
    """One moment of a fire ``size`` pixels high: a bright blob of random shape."""
    side = int(2 * np.ceil(size) + 3)
    y, x = np.mgrid[:side, :side] - side / 2
    lean, stretch = rng.uniform(-0.5, 0.5), rng.uniform(0.7, 1.5)
    distance = np.hypot((x - lean * y) / (0.5 * size), y / (stretch * size * 0.75))
    cover = np.clip(1.4 - distance, 0, 1).astype(np.float32) * np.float32(rng.uniform(0.3, 1.0))
    heat = np.clip(1.2 - distance, 0, 1)[..., None]
    colour = np.concatenate([230 + 25 * heat, 90 + 140 * heat, 20 + 110 * heat], axis=2)
    return Sprite.of(colour, cover)


def glow(rng: Rng, radius: float) -> Sprite:
    """The light that a fire throws on the ground around it, at one moment."""
    side = int(2 * radius) + 3
    y, x = np.mgrid[:side, :side] - side / 2
    fall_off = np.clip(1 - np.hypot(x, 1.6 * y) / radius, 0, 1)
    colour = np.empty((side, side, 3), dtype=np.float32)
    colour[:] = (255, 190, 110)
    return Sprite.of(colour, fall_off * rng.uniform(0.05, 0.5))


def smoke(rng: Rng) -> Sprite:
    """One moment of a ragged cloud."""
    height, width = 50, 40
    y, x = np.mgrid[:height, :width] - np.array([height, width])[:, None, None] / 2
    ragged = 0.5 + 0.9 * _smooth_noise(rng, 7)[:height, :width]
    cover = np.clip((1 - np.hypot(x / width, y / height) * 2) * ragged * 2, 0, 0.9)
    return Sprite.of(np.full((height, width, 3), rng.uniform(30, 70)), cover)


def debris(rng: Rng) -> Sprite:
    """A fragment of a few pixels."""
    side = int(rng.integers(2, 5))
    colour = np.full((side, side, 3), rng.choice([25.0, 235.0]), dtype=np.float32)
    return Sprite.of(colour, np.ones((side, side), dtype=np.float32))


class SensorNoise:
    """Gaussian read-out noise; fields are drawn once and shown at random offsets, which is fast."""

    def __init__(self, rng: Rng, sigma: float) -> None:
        shape = (_NUM_NOISE_FIELDS, HEIGHT + 32, WIDTH + 32)
        self._fields = rng.normal(0, sigma, shape).astype(np.float32)
        self._rng = rng

    def apply(self, frame: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The noisy 8-bit frame."""
        field, y, x = self._rng.integers(0, (_NUM_NOISE_FIELDS, 32, 32))
        noisy = frame + self._fields[field, y : y + HEIGHT, x : x + WIDTH, None]
        noisy += np.float32(0.5)
        np.clip(noisy, 0, 255, out=noisy)
        picture: NDArray[np.uint8] = noisy.astype(np.uint8)
        return picture


def _tree(rng: Rng) -> Sprite:
    side = 22
    y, x = np.mgrid[:side, :side] - side / 2
    cover = np.clip(1.25 - np.hypot(x, y) / 10, 0, 1)
    leaves = 0.75 + 0.5 * rng.random((side, side, 1))
    colour = np.array([52, 88, 40]) * leaves
    return Sprite.of(colour, cover)


def _shift(picture: NDArray[np.float32], dx: float, dy: float) -> NDArray[np.float32]:
    """Move ``[h, w, c]`` right and down by a fraction of a pixel; one row and column larger."""
    height, width, channels = picture.shape
    wide = np.zeros((height, width + 1, channels), dtype=np.float32)
    wide[:, :-1] = picture * np.float32(1 - dx)
    wide[:, 1:] += picture * np.float32(dx)
    tall = np.zeros((height + 1, width + 1, channels), dtype=np.float32)
    tall[:-1] = wide * np.float32(1 - dy)
    tall[1:] += wide * np.float32(dy)
    return tall


def _soften(cover: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(0.96) * cover


def _smooth_noise(rng: Rng, cell: int) -> NDArray[np.float32]:
    """Noise in -1..1 that varies over about ``cell`` pixels, bilinear between random corners."""
    corners = rng.uniform(-1, 1, (HEIGHT // cell + 2, WIDTH // cell + 2)).astype(np.float32)
    y, x = np.arange(HEIGHT) / cell, np.arange(WIDTH) / cell
    row, column = y.astype(int), x.astype(int)
    fy, fx = (y - row)[:, None], (x - column)[None]
    upper = corners[row][:, column] * (1 - fx) + corners[row][:, column + 1] * fx
    lower = corners[row + 1][:, column] * (1 - fx) + corners[row + 1][:, column + 1] * fx
    blended: NDArray[np.float32] = (upper * (1 - fy) + lower * fy).astype(np.float32)
    return blended
