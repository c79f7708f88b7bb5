"""The generated miniature set: short scenes with known anomalies, as video and as events."""

from outspike.datasets.manifest import Manifest
from outspike.errors import DatasetError


def load(root: str, split: str) -> Manifest:
    """Recordings of a miniature set that ``outspike synth`` has written to ``root``."""
    from outspike.synth.miniature import load_labels

    try:
        recordings = load_labels(root)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{root}: no miniature data set there ({error}); make one with `outspike synth {root}`."
        ) from error
    return Manifest(name="miniature", split=split, recordings=tuple(recordings))
