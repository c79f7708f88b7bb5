"""An event camera looking at a video: what each pixel of a real sensor would send.

The model is that of ESIM (Rebecq et al., CoRL 2018) and v2e (Hu et al., CVPRW 2021), written from
their descriptions. A pixel remembers the log intensity at its last event and sends another one when
the difference reaches its threshold. Between two frames log intensity is taken to change in a
straight line, so every crossing has a time of its own. What real pixels add to that: thresholds
that differ from pixel to pixel, a rest after each event, a leak that slowly sends ON events without
light changing, and shot noise, most of it in the dark.

Chance is a function of (seed, frame, pixel), so the same video gives the same events in any cuts.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events

#: Below this grey level the response is linear (v2e): the logarithm would make noise of it.
_LINEAR_BELOW = 20.0

#: Share of the noise that is left in full light (v2e).
_NOISE_IN_LIGHT = 0.25

#: No threshold is smaller, however far it lies from the mean.
_LEAST_THRESHOLD = 0.01

_NEVER = np.iinfo(np.int64).min // 2


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Properties of the sensor; the defaults are a good one, ``clean`` an ideal one.

    Args:
        threshold_on, threshold_off: change of log intensity that sends an event.
        mismatch: standard deviation of the thresholds over the pixels.
        refractory_us: a pixel sends nothing for as long after an event. Its memory goes on, so what
            happens meanwhile is lost.
        leak_rate_hz: ON events a second of a pixel that sees no change.
        shot_rate_hz: noise events a second of a pixel in the dark; a quarter of it in full light,
            either polarity alike. They leave the memory alone.
    """

    threshold_on: float = 0.2
    threshold_off: float = 0.2
    mismatch: float = 0.03
    refractory_us: int = 500
    leak_rate_hz: float = 0.01
    shot_rate_hz: float = 0.001

    def __post_init__(self) -> None:
        if min(self.threshold_on, self.threshold_off) < _LEAST_THRESHOLD:
            raise ConfigError(
                f"threshold_on={self.threshold_on}, threshold_off={self.threshold_off}: expected "
                f"at least {_LEAST_THRESHOLD}."
            )
        rest = (self.mismatch, self.refractory_us, self.leak_rate_hz, self.shot_rate_hz)
        if min(rest) < 0:
            raise ConfigError(
                "mismatch, refractory_us, leak_rate_hz and shot_rate_hz must not be negative: "
                f"{rest}."
            )

    @classmethod
    def clean(cls, threshold: float = 0.2) -> "CameraConfig":
        """Equal thresholds, no rest, no leak, no noise."""
        return cls(
            threshold_on=threshold,
            threshold_off=threshold,
            mismatch=0.0,
            refractory_us=0,
            leak_rate_hz=0.0,
            shot_rate_hz=0.0,
        )


class EventCamera:
    """Events of consecutive frames, in any cuts. The first frame only sets the memory.

    Args:
        config: properties of the sensor.
        seed: of thresholds and noise.
    """

    def __init__(self, config: CameraConfig | None = None, *, seed: int = 0) -> None:
        self._config = config or CameraConfig()
        self._seed = seed
        self._frame = 0
        self._state: _State | None = None

    def push(
        self, grey_FHW: NDArray[np.floating] | NDArray[np.uint8], t_us: NDArray[np.int64]
    ) -> Events:
        """Events between the frame before and the last of these, sorted by time.

        Args:
            grey_FHW: brightness ``[F, H, W]`` in 0..255.
            t_us: ``[F]`` increasing times of the frames.

        Raises:
            AlignmentError: frames and times differ in number, frames change their size, or times
                do not increase.
        """
        if grey_FHW.ndim != 3 or len(grey_FHW) != len(t_us):
            raise AlignmentError(
                f"Frames of shape {grey_FHW.shape} with {len(t_us)} times; expected [F, H, W] and "
                "as many times as frames."
            )
        parts = [self._step(frame, int(time)) for frame, time in zip(grey_FHW, t_us, strict=True)]
        columns = ([getattr(part, key) for part in parts] for key in ("t", "x", "y", "p"))
        return Events(*(np.concatenate(column) for column in columns)) if parts else Events.empty()

    def _step(self, grey_HW: NDArray[np.floating] | NDArray[np.uint8], t_us: int) -> Events:
        level = log_intensity(grey_HW)
        state = self._state
        if state is None:
            self._state = _State.start(level, t_us, self._config, self._seed)
            return Events.empty()
        if level.shape != state.level.shape:
            raise AlignmentError(
                f"A frame of {level.shape} after frames of {state.level.shape}; one size is needed."
            )
        if t_us <= state.t_us:
            raise AlignmentError(f"A frame at {t_us} us after one at {state.t_us} us.")
        self._frame += 1
        seconds = (t_us - state.t_us) / 1e6
        leak = self._config.leak_rate_hz * seconds * state.threshold_on
        reached = state.residual + (level - state.level) + leak
        dark = 1.0 - (1.0 - _NOISE_IN_LIGHT) * np.clip(np.asarray(grey_HW, np.float64) / 255, 0, 1)
        num_noise = _poisson(
            self._config.shot_rate_hz * seconds * dark, np.uint64(self._seed), self._frame
        )
        room = _most_events(reached, state.threshold_on, state.threshold_off) + int(num_noise.sum())
        t, where, p = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint8)
        count = _emit(
            reached,
            *(state.residual, state.threshold_on, state.threshold_off, state.last_us),
            *(num_noise, np.uint64(self._seed), self._frame),
            *(state.t_us, t_us, self._config.refractory_us),
            *(t, where, p),
        )
        state.level, state.t_us = level, t_us
        order = np.argsort(t[:count], kind="stable")
        row, column = np.divmod(where[order], level.shape[1])
        return Events(t[order], column.astype(np.uint16), row.astype(np.uint16), p[order])


def log_intensity(grey: NDArray[np.floating] | NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logarithm of the brightness 0..255, and a straight line through 0 below 20."""
    wide = np.asarray(grey, dtype=np.float64)
    slope = np.log(_LINEAR_BELOW) / _LINEAR_BELOW
    level: NDArray[np.float64] = np.where(
        wide < _LINEAR_BELOW, wide * slope, np.log(np.maximum(wide, _LINEAR_BELOW))
    )
    return level


@dataclass
class _State:
    """Of every pixel ``[H, W]``; ``residual`` is how far the level lies above the memory."""

    level: NDArray[np.float64]
    residual: NDArray[np.float64]
    threshold_on: NDArray[np.float64]
    threshold_off: NDArray[np.float64]
    last_us: NDArray[np.int64]
    t_us: int

    @classmethod
    def start(
        cls, level: NDArray[np.float64], t_us: int, config: CameraConfig, seed: int
    ) -> "_State":
        rng = np.random.default_rng(seed)
        thresholds = [
            np.maximum(rng.normal(mean, config.mismatch, level.shape), _LEAST_THRESHOLD)
            for mean in (config.threshold_on, config.threshold_off)
        ]
        last_us = np.full(level.shape, _NEVER, dtype=np.int64)
        return cls(level, np.zeros(level.shape), thresholds[0], thresholds[1], last_us, t_us)


@numba.njit(cache=True, nogil=True)
def _chance(seed: np.uint64, frame: int, pixel: int, draw: int) -> float:
    """Uniform in [0, 1): the finaliser of SplitMix64 over the place that the number is for."""
    state = seed * np.uint64(0x9E3779B97F4A7C15) + np.uint64(frame) * np.uint64(0xD1B54A32D192ED03)
    state += np.uint64(pixel) * np.uint64(0x8CB92BA72F3D8DD7) + np.uint64(draw + 1)
    for _ in range(2):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return np.float64(state >> np.uint64(11)) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def _poisson(mean: NDArray[np.float64], seed: np.uint64, frame: int) -> NDArray[np.int64]:
    """Counts drawn by inversion, which suits means far below one."""
    counts = np.zeros(mean.shape, dtype=np.int64)
    flat, means = counts.reshape(-1), mean.reshape(-1)
    for pixel in range(len(flat)):
        if means[pixel] == 0.0:
            continue
        chance = _chance(seed, frame, pixel, 0)
        probability = np.exp(-means[pixel])
        below = probability
        while chance >= below and probability > 0.0:
            flat[pixel] += 1
            probability *= means[pixel] / flat[pixel]
            below += probability
    return counts


@numba.njit(cache=True, nogil=True)
def _most_events(
    reached: NDArray[np.float64], on: NDArray[np.float64], off: NDArray[np.float64]
) -> int:
    total = 0
    for row in range(reached.shape[0]):
        for col in range(reached.shape[1]):
            level = reached[row, col]
            total += int(level / on[row, col] if level > 0 else -level / off[row, col])
    return total


@numba.njit(cache=True, nogil=True)
def _emit(
    reached: NDArray[np.float64],
    residual: NDArray[np.float64],
    on: NDArray[np.float64],
    off: NDArray[np.float64],
    last_us: NDArray[np.int64],
    num_noise: NDArray[np.int64],
    seed: np.uint64,
    frame: int,
    start_us: int,
    stop_us: int,
    refractory_us: int,
    t: NDArray[np.int64],
    where: NDArray[np.int64],
    p: NDArray[np.uint8],
) -> int:
    """Crossings on the line from ``residual`` to ``reached``, and noise, pixel by pixel."""
    count = 0
    duration = stop_us - start_us
    width = reached.shape[1]
    for row in range(reached.shape[0]):
        for col in range(width):
            pixel = row * width + col
            before, after = residual[row, col], reached[row, col]
            step = on[row, col] if after > 0 else -off[row, col]
            num = int(after / step)
            first = count
            for k in range(1, num + 1):
                share = (k * step - before) / (after - before)
                t[count] = start_us + int(share * duration)
                where[count], p[count] = pixel, step > 0
                count += 1
            residual[row, col] = after - num * step
            for k in range(num_noise[row, col]):
                t[count] = start_us + int(_chance(seed, frame, pixel, 2 * k + 1) * duration)
                where[count], p[count] = pixel, _chance(seed, frame, pixel, 2 * k + 2) < 0.5
                count += 1
            if refractory_us > 0 and count > first:
                count = _rest(t, where, p, first, count, refractory_us, last_us[row], col)
    return count


@numba.njit(cache=True, nogil=True)
def _rest(
    t: NDArray[np.int64],
    where: NDArray[np.int64],
    p: NDArray[np.uint8],
    first: int,
    stop: int,
    refractory_us: int,
    last_us: NDArray[np.int64],
    col: int,
) -> int:
    """Of one pixel's events drop those that come too soon after one that stayed."""
    order = first + np.argsort(t[first:stop], kind="mergesort")
    times, polarities = t[order], p[order]
    kept = first
    for i in range(len(times)):
        if times[i] - last_us[col] >= refractory_us:
            last_us[col] = times[i]
            t[kept], where[kept], p[kept] = times[i], where[first], polarities[i]
            kept += 1
    return kept
