"""The bundled sample: two seconds of video and of events that every encoder can be tried on.

``sample.mp4`` is bundled rather than written when needed, because two versions of an H.264 encoder
give two files, while every decoder must give the same frames of one.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import Encoder
from outspike.recording import Modality, Recording
from outspike.scoring.encode import encode_recording

_HERE = Path(__file__).parent

SAMPLES: dict[Modality, Recording] = {
    "video": Recording(dataset="outspike", video_id="sample", url=str(_HERE / "sample.mp4")),
    "events": Recording(
        dataset="outspike",
        video_id="sample-events",
        url=str(_HERE / "sample.raw"),
        modality="events",
        fps=Fraction(25),
    ),
}

#: Frames of either: two seconds at 25 frames a second.
NUM_FRAMES = 50
#: Width and height of either, in pixels.
SIZE = (160, 120)

Rows = NDArray[np.floating]


def sample_modality(encoder: Encoder) -> Modality:
    """Which sample an encoder is tried on: the video where it takes both."""
    return "video" if "video" in encoder.modalities else "events"


def sample_digest(modality: Modality) -> str:
    """SHA-256 of the bundled file."""
    return hashlib.sha256(Path(SAMPLES[modality].url).read_bytes()).hexdigest()


def encode_sample(
    encoders: Sequence[Encoder],
    modality: Modality,
    *,
    timeout_s: float = 600.0,
    memory_mb: int = 4096,
) -> list[Rows]:
    """Rows ``[S, K, D]`` of one sample by each encoder, made as those of any recording are.

    Raises:
        MediaError: the sample does not decode here, or an encoder does not take its modality.
    """
    rows: dict[str, list[Rows]] = {encoder.name: [] for encoder in encoders}
    encode_recording(
        SAMPLES[modality],
        encoders,
        emit=lambda name, made, start, stop: rows[name].append(made),
        timeout_s=timeout_s,
        memory_mb=memory_mb,
    )
    return [np.concatenate(rows[encoder.name]) for encoder in encoders]
