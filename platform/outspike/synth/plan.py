"""Which scenes a miniature data set has, and the seeded drawing of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError
from outspike.events.columns import Events, concatenate
from outspike.events.simulate import LogEventSimulator, grey, spread_counts
from outspike.synth.scene import HEIGHT, WIDTH, Layout, SensorNoise, background, render
from outspike.synth.stories import STORIES, Story
from outspike.timebase import EventClock

ANOMALIES = tuple(name for name in STORIES if name != "Normal")

_RATES = (Fraction(10), Fraction(25, 2), Fraction(25))
_NOISE_EVENTS_PER_FRAME = 12.0
_NOISE_SIGMA = 2.0
_GENERATED_NOISE_SIGMA = 0.6


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the recordings; see :func:`outspike.synth.miniature.generate`."""

    seed: int
    train: int
    test: int
    events: int
    unseen: int
    synthetic: int

    def __post_init__(self) -> None:
        if self.train < 2 or self.test < 2 or min(self.events, self.unseen, self.synthetic) < 0:
            raise ConfigError(f"{self}: train and test need two scenes each, the others none.")
        if self.events > self.train + self.test:
            raise ConfigError(f"events={self.events}: there are {self.train + self.test} scenes.")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene; ``key`` seeds its drawing."""

    key: tuple[int, int]
    name: str
    split: str
    class_name: str
    synthetic: bool
    num_frames: int
    fps: Fraction
    with_events: bool


def scenes(settings: Settings) -> list[Scene]:
    """Every other scene of a split is anomalous, the kinds of anomaly in turn."""
    parts = (
        ("train", "train", settings.train),
        ("test", "test", settings.test),
        ("unseen", "predict", settings.unseen),
        ("generated", "train", settings.synthetic),
    )
    # Event recordings are spread over both splits, normal and anomalous ones alternating.
    total = settings.train + settings.test
    pairs = -(-settings.events // 2)
    recorded = {
        2 * (i // 2 * (total // 2) // max(1, pairs)) + i % 2 for i in range(settings.events)
    }
    planned: list[Scene] = []
    for part, (prefix, split, count) in enumerate(parts):
        for number in range(count):
            rng = np.random.default_rng((settings.seed, 1, part, number))
            kind = ANOMALIES[number // 2 % len(ANOMALIES)] if number % 2 else "Normal"
            planned.append(
                Scene(
                    key=(part, number),
                    name=f"{prefix}_{number:03d}",
                    split=split,
                    class_name=kind,
                    synthetic=prefix == "generated",
                    num_frames=int(rng.integers(168, 260)),
                    fps=_RATES[int(rng.integers(len(_RATES)))],
                    with_events=len(planned) in recorded,
                )
            )
    return planned


class Studio:
    """The camera of a data set: draws its scenes, as video frames or as events."""

    def __init__(self, settings: Settings) -> None:
        self._seed = settings.seed
        rng = np.random.default_rng((self._seed, 0))
        self.layout = Layout.draw(rng)
        self._empty = background(self.layout, rng)

    def story(self, scene: Scene) -> Story:
        """What happens, and when something is wrong."""
        return STORIES[scene.class_name](self.layout, scene.num_frames, self._rng(2, scene))

    def video_frames(self, scene: Scene) -> Iterator[NDArray[np.uint8]]:
        """Frames ``[H, W, 3]`` with the noise of a camera (or the smoothness of a generator)."""
        sigma = _GENERATED_NOISE_SIGMA if scene.synthetic else _NOISE_SIGMA
        noise = SensorNoise(self._rng(4, scene), sigma)
        for frame in self._light(scene):
            yield noise.apply(frame)

    def events(self, scene: Scene) -> Events:
        """The scene as an event camera sees it; time 0 is the start of the first frame."""
        rng = self._rng(5, scene)
        simulator = LogEventSimulator()
        clock = EventClock(fps=scene.fps, anchor_us=0)
        parts = []
        for index, light in enumerate(self._light(scene)):
            counts = simulator.push(grey(light)[None])[0]
            num_noise = rng.poisson(_NOISE_EVENTS_PER_FRAME)
            np.add.at(counts.reshape(-1), rng.integers(0, counts.size, num_noise), 1)
            parts.append(spread_counts(counts, clock.time_of(index), clock.time_of(index + 1), rng))
        return concatenate(parts)

    def _light(self, scene: Scene) -> Iterator[NDArray[np.float32]]:
        actors = self.story(scene).actors
        return render(self.layout, self._empty, actors, scene.num_frames, self._rng(3, scene))

    def _rng(self, purpose: int, scene: Scene) -> np.random.Generator:
        return np.random.default_rng((self._seed, purpose, *scene.key))


#: Width and height of every recording.
SIZE = (WIDTH, HEIGHT)
