"""Byte ranges of S3 objects, many at once, tried again until they come whole."""

import asyncio
import errno
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from outspike import urls
from outspike.errors import UrlError

logger = logging.getLogger(__name__)

_MAX_REQUESTS = 16
_MAX_TRIES = 6
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_TIMEOUT_S = 60.0
#: Answers that another try will not change.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)


#: Past the end of any object; a range up to there asks for the whole without asking its size.
_END = 1 << 46


@dataclass(frozen=True)
class ByteRange:
    """Bytes ``[start, stop)`` of a file."""

    url: str
    start: int
    stop: int


class _ShortBodyError(OSError):
    """Fewer bytes than were asked for."""


def fetch_ranges(
    ranges: Sequence[ByteRange], *, max_requests: int = _MAX_REQUESTS, max_tries: int = _MAX_TRIES
) -> list[bytes]:
    """The bytes of every range, each by one ``GET``, ``max_requests`` at a time.

    A refused (500, 503), interrupted, timed-out or short answer is asked for again, with longer and
    longer waits, up to ``max_tries`` in all (the client's own quick tries not counted).

    Raises:
        MissingUrlError: one of the files is not there.
        UrlError: a range did not come whole in any try, or its file ends before.
    """
    found = _fetch_all(ranges, max_requests, max_tries)
    for wanted, data in zip(ranges, found, strict=True):
        if isinstance(data, Exception):
            with urls.plain_errors(wanted.url):
                raise data
    return cast(list[bytes], found)


def fetch_files(addresses: Sequence[str]) -> list[bytes]:
    """Whole small objects, like :func:`fetch_ranges`; their length is for the caller to check.

    Raises:
        MissingUrlError: one of the files is not there.
        UrlError: one of them cannot be read.
    """
    found = _fetch_all([ByteRange(url, 0, _END) for url in addresses], _MAX_REQUESTS, _MAX_TRIES)
    for number, (url, data) in enumerate(zip(addresses, found, strict=True)):
        if isinstance(data, Exception):
            if _is_past_the_end(data):
                found[number] = b""  # an empty object has no range to give
                continue
            with urls.plain_errors(url):
                raise data
    return cast(list[bytes], found)


def _fetch_all(
    ranges: Sequence[ByteRange], max_requests: int, max_tries: int
) -> list[bytes | Exception]:
    if not ranges:
        return []
    fs = urls.filesystem(ranges[0].url)

    async def everything() -> list[bytes | Exception]:
        turns = asyncio.Semaphore(max_requests)
        tasks = (_fetch(fs, wanted, turns, max_tries) for wanted in ranges)
        return await asyncio.gather(*tasks)

    # imported here: a store on a local disk needs no event loop
    from fsspec.asyn import sync

    return cast(list[bytes | Exception], sync(fs.loop, everything))


async def _fetch(
    fs: Any, wanted: ByteRange, turns: asyncio.Semaphore, max_tries: int
) -> bytes | Exception:
    """One range, or the error of the last try; nothing is raised, so that all others end too."""
    wait = _FIRST_WAIT_S
    last: Exception = UrlError(f"{wanted.url}: not tried.")
    for left in reversed(range(max_tries)):
        try:
            async with turns:
                return await asyncio.wait_for(_once(fs, wanted), _TIMEOUT_S)
        except Exception as error:
            if not _may_pass(error):
                return error
            last = error
        if left:
            logger.debug("url=%s start=%d retry after %r", wanted.url, wanted.start, last)
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT_S)
    return UrlError(
        f"{wanted.url}: bytes [{wanted.start}, {wanted.stop}) did not come whole in {max_tries} "
        f"tries; the last: {type(last).__name__}: {last}"
    )


async def _once(fs: Any, wanted: ByteRange) -> bytes:
    path = urls.path_in(wanted.url)
    data = cast(bytes, await fs._cat_file(path, start=wanted.start, end=wanted.stop))
    if wanted.stop != _END and len(data) != wanted.stop - wanted.start:
        raise _ShortBodyError(f"{len(data)} bytes came")
    return data


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later: told by type, as the client raises it."""
    if isinstance(error, _FINAL) or _is_past_the_end(error):
        return False
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return isinstance(error, OSError) or bool(modules & {"aiohttp", "botocore", "fsspec"})


def _is_past_the_end(error: Exception) -> bool:
    """Whether a range was refused because the object ends before it."""
    return isinstance(error, OSError) and error.errno == errno.EINVAL
