"""What decoding a whole video shows, beside what its container says of itself."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from outspike.errors import MediaError
from outspike.video.decode import check_size, presented_frames
from outspike.video.probe import (
    VideoInfo,
    choose_stream,
    describe,
    first_rotation,
    open_container,
)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Headers and frames of one video compared.

    ``t_first`` and ``t_last`` are the times in seconds of the first and last frame that decode, in
    the order they are shown (None where the container gives none). ``monotone``: every frame has a
    time, and none lies before the frame shown before it. ``reason`` and ``error`` say why decoding
    stopped early; None where it reached the end.
    """

    info: VideoInfo
    decoded_frames: int = 0
    t_first: float | None = None
    t_last: float | None = None
    monotone: bool = True
    reason: str | None = None
    error: str | None = None

    def facts(self) -> dict[str, Any]:
        """What ``outspike video probe`` prints.

        ``rotation`` is signed, -90 to 180, as players state it; ``display_size`` is width and
        height once it is applied. ``decode_error`` is there only where decoding stopped early.
        """
        facts = asdict(self.info) | {
            "rotation": signed_rotation(self.info.rotation),
            "display_size": self.info.display_size,
            "decoded_frames": self.decoded_frames,
            "t_first": self.t_first,
            "t_last": self.t_last,
            "monotone": self.monotone,
        }
        return facts if self.error is None else facts | {"decode_error": self.error}

    def to_json(self) -> str:
        """Text form, for the way out of a child process."""
        return json.dumps(asdict(self) | {"info": self.info.to_json()})

    @classmethod
    def from_json(cls, text: str) -> "Survey":
        """Inverse of :meth:`to_json`."""
        document: dict[str, Any] = json.loads(text)
        return cls(**document | {"info": VideoInfo.from_json(document["info"])})


def survey(url: str) -> Survey:
    """Decode a video to its end, or to where it breaks off, and keep no frame.

    Raises:
        MediaError: not even the first frame decodes; see :func:`outspike.video.probe.probe`.
    """
    found: Survey | None = None
    try:
        with open_container(url) as container:
            stream = choose_stream(container, url)
            for frame in presented_frames(container, stream, url):
                if found is None:
                    turn = first_rotation(frame.rotation, url)
                    found = Survey(info=describe(container, stream, turn, url), t_first=frame.time)
                check_size(frame, found.info, url)
                found = _with_frame(found, frame.time)
    except MediaError as error:
        if found is None:
            raise
        return replace(found, reason=error.reason, error=str(error))
    assert found is not None, "a video without frames raises"
    return found


def signed_rotation(turn: int) -> int:
    """A quarter turn (0, 90, 180, 270) as -90, 0, 90 or 180 degrees."""
    return turn - 360 if turn > 180 else turn


def _with_frame(found: Survey, time: float | None) -> Survey:
    before = found.t_last if found.decoded_frames else time
    in_order = time is not None and before is not None and time >= before
    return replace(
        found,
        decoded_frames=found.decoded_frames + 1,
        t_last=time,
        monotone=found.monotone and in_order,
    )
