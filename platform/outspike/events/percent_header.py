"""Text headers of Prophesee files: lines of ``% keyword value`` before the binary part."""

from dataclasses import dataclass

from outspike.events.codec import MAX_SIDE, Source


@dataclass(frozen=True)
class PercentHeader:
    """Lines of a header, and where the bytes after it begin.

    Args:
        lines: without the ``%``.
        body: position after the last of them.
        ended: whether a line said ``end``; older files do not.
        cut: whether what was looked at ends inside a line.
    """

    lines: tuple[str, ...]
    body: int
    ended: bool
    cut: bool

    @property
    def values(self) -> dict[str, str]:
        """Value by keyword in lower case; the parts of ``format`` count as keywords too."""
        pairs = [line.split(maxsplit=1) for line in self.lines]
        values = {pair[0].lower(): pair[1] for pair in pairs if len(pair) == 2}
        parts = [part.partition("=") for part in values.get("format", "").split(";")]
        named = {name.strip().lower(): value for name, equals, value in parts if equals}
        return {**values, **named}

    def demand_end(self, source: Source, expected: str) -> None:
        """Refuse a file that stops, or goes on for too long, inside its header."""
        if self.cut or (self.body >= source.num_bytes and not self.ended):
            source.fail(
                f"a header without end: its {len(self.lines)} lines reach byte {self.body}; "
                f"expected '% end' or {expected} there.",
                reason="truncated",
            )


def read_header(head: bytes) -> PercentHeader:
    """The header at the beginning of ``head``.

    ``%`` alone does not make a line of it: a first word may begin with that byte, so a line also
    has a blank next and is printable.
    """
    lines: list[str] = []
    position = 0
    while head.startswith(b"% ", position):
        stop = head.find(b"\n", position)
        text = head[position + 2 : stop if stop >= 0 else len(head)].strip().decode("latin-1")
        if not text.isascii() or not text.isprintable():
            break
        if stop < 0:
            return PercentHeader(tuple(lines), position, ended=False, cut=True)
        position = stop + 1
        if text == "end":
            return PercentHeader(tuple(lines), position, ended=True, cut=False)
        lines.append(text)
    return PercentHeader(tuple(lines), position, ended=False, cut=False)


def whole_number(source: Source, name: str, text: str | None) -> int | None:
    """A whole number of the header; None where it is absent or left blank."""
    if not text or not text.strip():
        return None
    digits = text.strip()
    if not digits.removeprefix("-").isdecimal() or not digits.isascii() or len(digits) > 19:
        source.fail(f"header {name} is {text!r}; expected a whole number.")
    return int(digits)


def sensor_size(source: Source, values: dict[str, str]) -> tuple[int, int] | None:
    """Width and height, from keywords of their own or from ``geometry WxH``."""
    across, _, down = values.get("geometry", "").partition("x")
    width = whole_number(source, "width", values.get("width", across))
    height = whole_number(source, "height", values.get("height", down))
    if width is None or height is None:
        return None
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        source.fail(f"header states a sensor of {width}x{height} pixels, which there is none of.")
    return width, height
