"""A manifest: the recordings of one split, what is missing of it, and what to know about it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from outspike.errors import DatasetError
from outspike.recording import Recording

_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Recordings of one data set under one split.

    ``missing`` holds the ids of listed recordings whose file was not found; ``warnings`` are facts
    about the split or its annotations that a result computed on it has to be read with.

    Raises:
        DatasetError: two recordings share a (dataset, video_id).
    """

    name: str
    split: str
    recordings: tuple[Recording, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = Counter(recording.key for recording in self.recordings)
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            first = twice[0]
            urls = [recording.url for recording in self.recordings if recording.key == first]
            raise DatasetError(
                f"{len(twice)} recordings of {self.name!r} share an id, the first is {first} "
                f"({' and '.join(urls[:3])}); rename or move one so that ids are unique."
            )

    def part(self, split: str) -> tuple[Recording, ...]:
        """Recordings whose own split is ``split`` (``train``, ``test``, ``predict``)."""
        return tuple(recording for recording in self.recordings if recording.split == split)

    def require_complete(self) -> "Manifest":
        """This manifest, or a :class:`DatasetError` that counts and names what is missing."""
        if self.missing:
            raise DatasetError(self.describe_missing())
        return self

    def describe_missing(self) -> str:
        """One line: how many listed recordings were not found, and the first of them."""
        return (
            f"{self.name} ({self.split}): {len(self.missing)} of "
            f"{len(self.missing) + len(self.recordings)} listed recordings were not found"
            f"{': ' if self.missing else '.'}{some_names(self.missing)}"
        )


def some_names(names: Iterable[str], limit: int = _NAMES_SHOWN) -> str:
    """The first few of many names, and how many more there are, for a message."""
    listed = list(names)
    more = f", and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
