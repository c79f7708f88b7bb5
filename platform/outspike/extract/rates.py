"""How fast jobs were, kept in the store so that the next plan can tell the time it will take.

One small file per combination of feature sets that were made in one decode:
``<store>/rates/<digest>.json``. Work is counted in decoded pixels for videos and in bytes of the
file for event recordings, time in seconds of one actor.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from outspike import urls
from outspike.encoders.base import Encoder
from outspike.errors import MissingUrlError, UrlError
from outspike.extract.plan import WorkItem
from outspike.extract.sample import NUM_FRAMES, SAMPLES, SIZE, encode_sample
from outspike.recording import Modality

logger = logging.getLogger(__name__)

RATES = "rates"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """``units`` of work (pixels or bytes) took one actor ``seconds``; ``source`` says when."""

    units: float
    seconds: float
    source: str

    def seconds_of(self, units: float) -> float:
        """Seconds that one actor will take for this much work."""
        return units * self.seconds / self.units


class RateBook:
    """Collects what recordings of one job took, by modality and combination of feature sets."""

    def __init__(self, fingerprints: Sequence[str], items: Iterable[WorkItem]) -> None:
        self._fingerprints = tuple(fingerprints)
        self._items = {item.key: item for item in items}
        self._sums: dict[tuple[Modality, tuple[int, ...]], tuple[float, float]] = {}

    def add(self, key: tuple[str, str], pixels: int, seconds: float) -> None:
        """One more recording is done, which took an actor that long."""
        item = self._items[key]
        modality = item.recording.modality
        units = pixels if modality == "video" else item.source.size
        if units > 0 and seconds > 0:
            before = self._sums.get((modality, item.encoders), (0.0, 0.0))
            self._sums[modality, item.encoders] = (before[0] + units, before[1] + seconds)

    def save(self, store_url: str) -> None:
        """Put this job's rates in the place of earlier ones.

        They are a convenience: a store that does not take them is told in the log.
        """
        for (modality, positions), (units, seconds) in self._sums.items():
            fingerprints = sorted(self._fingerprints[position] for position in positions)
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            rate = Rate(units=units, seconds=seconds, source=f"measured by the job of {when}")
            url = _url(store_url, modality, fingerprints)
            document = asdict(rate) | {"modality": modality, "fingerprints": fingerprints}
            try:
                urls.write_bytes(url, json.dumps(document, indent=1).encode())
            except UrlError as error:
                logger.warning("rate not kept: %s", error)


def stored_rate(store_url: str, modality: Modality, fingerprints: Sequence[str]) -> Rate | None:
    """What an earlier job measured; None where none has, or what is there cannot be read."""
    url = _url(store_url, modality, fingerprints)
    try:
        document = json.loads(urls.read_bytes(url))
        rate = Rate(**{name: document[name] for name in ("units", "seconds", "source")})
        if rate.units > 0 and rate.seconds > 0:
            return rate
        raise ValueError("neither may be zero")
    except MissingUrlError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s: not a rate (%r); the next job replaces it", url, error)
        return None


def sample_rate(encoders: Sequence[Encoder], modality: Modality) -> Rate | None:
    """Measured now, in this process, on the bundled sample; None where none takes the modality.

    Rough: one small recording, whose fixed costs weigh more than those of a long one.
    """
    fitting = [encoder for encoder in encoders if modality in encoder.modalities]
    if not fitting:
        return None
    encode_sample(fitting, modality)  # starts the child process and compiles what is compiled
    began = time.monotonic()
    encode_sample(fitting, modality)
    units = SIZE[0] * SIZE[1] * NUM_FRAMES
    if modality == "events":
        units = Path(SAMPLES[modality].url).stat().st_size
    return Rate(
        units=units,
        seconds=time.monotonic() - began,
        source="measured on the bundled sample on this host, a rough figure",
    )


def _url(store_url: str, modality: Modality, fingerprints: Sequence[str]) -> str:
    text = "\n".join([modality, *sorted(fingerprints)])
    return urls.join(store_url, RATES, f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json")
