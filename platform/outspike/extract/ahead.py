"""The next recording's video, opened while the last rows of this one are made and written."""

from collections.abc import Iterator
from contextlib import contextmanager

from outspike.recording import Recording
from outspike.video.isolate import IsolatedVideo


class Ahead:
    """At most one video whose child has begun to work and whom nobody has asked yet.

    What is wrong with it is told when it is used, as if it had been opened then.
    """

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        self._video: IsolatedVideo | None = None

    def open(self, recording: Recording | None) -> None:
        """Begin with a recording, if it is a video; what was open is closed."""
        self.close()
        if recording is not None and recording.modality == "video":
            self._video = IsolatedVideo(
                recording.url, timeout_s=self._timeout_s, memory_mb=self._memory_mb
            )

    @contextmanager
    def taken(self, recording: Recording) -> Iterator[IsolatedVideo | None]:
        """The recording's video, where it is the one that was opened; closed at the end."""
        video, self._video = self._video, None
        try:
            yield video if video is not None and video.url == recording.url else None
        finally:
            if video is not None:
                video.close()

    def close(self) -> None:
        """Close what nobody has taken."""
        video, self._video = self._video, None
        if video is not None:
            video.close()
