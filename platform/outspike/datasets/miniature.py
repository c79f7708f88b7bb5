"""The generated miniature set: short scenes with known anomalies, as video and as events."""

from outspike import urls
from outspike.datasets.files import absolute
from outspike.datasets.manifest import Manifest
from outspike.errors import DatasetError, MissingUrlError
from outspike.synth.miniature import load_labels


def load(root: str, split: str) -> Manifest:
    """Recordings of the miniature set that a demo or a job has written to ``root``.

    Raises:
        DatasetError: there is no such set, or its table is damaged.
    """
    base = absolute(root)
    try:
        listed = load_labels(base)
        found = set(urls.list_files(base))
    except MissingUrlError as error:
        raise DatasetError(
            f"{root}: no miniature data set there (no labels.csv); `outspike demo` makes one."
        ) from error
    return Manifest(
        name="miniature",
        split=split,
        recordings=tuple(recording for recording in listed if recording.url in found),
        missing=tuple(recording.video_id for recording in listed if recording.url not in found),
    )
