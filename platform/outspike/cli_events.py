"""Commands that look at event recordings and turn them into others.

Like those in :mod:`outspike.cli`: parse, call one function, answer with an exit code.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from outspike import app
from outspike.errors import ConfigError

File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Target = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
Json = Annotated[bool, tyro.conf.arg(name="json")]
Size = Annotated[str, tyro.conf.arg(metavar="WxH")]
OnError = Literal["raise", "resync"]


def events_info(
    file: File, as_json: Json = False, size: Size = "", on_error: OnError = "raise"
) -> int:
    """Say what an event recording holds: format, sensor, times, ranges, hashes of its columns.

    The whole file is read, so what it prints is what a decoder really finds.

    example: outspike events info door.raw --size 1280x720 --json

    Args:
        file: local path or s3:// address, in any format that is known by its content.
        as_json: print JSON instead of a table.
        size: of the sensor, where the file does not tell; events outside it are an error.
        on_error: stop at the first fault, or leave out what is damaged and count it.
    """
    from outspike.events.reader import open_events
    from outspike.events.summary import summarise

    facts = asdict(summarise(open_events(file, parse_size(size), on_error)))
    if as_json:
        print(json.dumps(facts, indent=1))
        return app.DONE
    skipped = facts.pop("skipped")
    rows = [(key, "not told" if value is None else value) for key, value in facts.items()]
    rows += [(f"skipped {kind}", count) for kind, count in skipped.items()]
    print(app.table(rows))
    return app.DONE


def events_convert(
    file: File,
    target: Target,
    to: Literal["evt3", "evt2", "dat", "npz"] | None = None,
    size: Size = "",
    from_zero: bool = False,
    on_error: OnError = "raise",
) -> int:
    """Write an event recording in another format.

    The recording passes through in pieces, so it may be larger than memory.

    examples: outspike events convert cradle.aedat4 cradle.raw --from-zero;
        outspike events convert door.raw door.npz --size 1280x720

    Args:
        file: local path or s3:// address.
        target: local file; its ending chooses the format (.raw is EVT 3.0, .dat, .npz).
        to: the format, where the ending does not say it.
        size: of the sensor, where the file does not tell.
        from_zero: subtract the start of the recording (its first event, where the file does not
            tell the start), which formats with short times need for wall-clock times.
        on_error: stop at the first fault, or leave out what is damaged and count it.
    """
    from outspike.events.convert import convert
    from outspike.events.reader import open_events

    reader = open_events(file, parse_size(size), on_error)
    num = convert(reader, target, format=to, from_zero=from_zero)
    print(f"{target}: {num} events{_left_out(reader.skipped)}")
    return app.DONE


def events_render(
    file: File,
    target: Target,
    fps: int = 30,
    slow: float = 1.0,
    size: Size = "",
    on_error: OnError = "raise",
) -> int:
    """Show an event recording: an .mp4 video, or a .png contact sheet with the rate of events.

    examples: outspike events render door.raw door.mp4 --slow 4; outspike events render door.raw
        door.png

    Args:
        file: local path or s3:// address.
        target: local file that ends in .mp4 or .png.
        fps: frames a second of the video.
        slow: how many times slower than life the video runs.
        size: of the sensor, where the file does not tell.
        on_error: stop at the first fault, or leave out what is damaged and count it.
    """
    from outspike.events.reader import open_events
    from outspike.events.render import contact_sheet, render_video

    ending = Path(target).suffix.lower()
    if ending not in (".mp4", ".png"):
        raise ConfigError(f"{target}: expected a name that ends in .mp4 (video) or .png (sheet).")
    reader = open_events(file, parse_size(size), on_error)
    if ending == ".png":
        contact_sheet(reader, target)
        print(f"{target}{_left_out(reader.skipped)}")
        return app.DONE
    num = render_video(reader, target, fps=fps, slow=slow)
    hint = "; a larger --slow shows more of a short recording" if num < fps else ""
    print(f"{target}: {num} frames{_left_out(reader.skipped)}{hint}")
    return app.DONE


def parse_size(text: str) -> tuple[int, int] | None:
    """``1280x720`` as width and height; None for no text.

    Raises:
        ConfigError: anything else.
    """
    if not text:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConfigError(f"--size {text}: expected width and height, such as 1280x720.")
    return int(width), int(height)


def _left_out(skipped: dict[str, int]) -> str:
    return "".join(f", {kind}={count} left out" for kind, count in skipped.items())
