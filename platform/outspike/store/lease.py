"""The right to change a store on a server that would let two writers replace each other's commits.

Plain puts cannot take turns safely, so this is a lease and not a lock: one object in the store,
written, and read again after a moment. Who finds another's waits until that is gone, or has not
changed for a minute, which means that its writer was killed. Who holds it looks again before
every commit. Two writers can pass each other only if a put takes effect later than the moment
waited for, twice.
"""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from outspike import urls
from outspike.errors import StoreError, UrlError
from outspike.store.files import read_if_there

logger = logging.getLogger(__name__)

#: Name of the object inside a store.
LEASE = "writer.json"

#: A lease that nobody has touched for so long may be taken over; its holder gives up at half of it.
LEASE_S = 60.0
#: Between writing a lease and looking whether another writer has replaced it.
SETTLE_S = 0.5
#: How long to wait for a store that others keep changing.
PATIENCE_S = 300.0
_POLL_S = 0.5


class OvertakenError(Exception):
    """Another writer got in between; what was being committed may be tried again."""


class Lease:
    """A lease that is held; see :func:`held`."""

    def __init__(self, url: str, document: bytes, began: float) -> None:
        self._url, self._document, self._began = url, document, began

    def check(self) -> None:
        """Make sure that nobody else may be writing, and renew a lease that has become old.

        Raises:
            OvertakenError: the lease is another's by now, or too old to be relied on.
        """
        now = time.monotonic()
        if now - self._began > LEASE_S / 2:
            raise OvertakenError(f"{self._url}: a step took longer than {LEASE_S / 2:.0f} s")
        if read_if_there(self._url) != self._document:
            raise OvertakenError(f"{self._url}: another writer has taken the lease")
        if now - self._began > LEASE_S / 4:
            self._document, self._began = _document(), now
            urls.write_bytes(self._url, self._document)

    def give_back(self) -> None:
        """Let the next writer go on at once; one that could not be removed is waited for."""
        try:
            if read_if_there(self._url) == self._document:
                urls.remove(self._url)
        except UrlError as error:
            logger.warning("lease=%s not given back: %s", self._url, error)


@contextmanager
def held(store_url: str) -> Iterator[Lease]:
    """Hold the lease of a store, waiting for it if need be.

    Raises:
        StoreError: others held it all the time; the message says who.
        UrlError: the storage does not answer.
    """
    lease = _take(urls.join(store_url, LEASE))
    try:
        yield lease
    finally:
        lease.give_back()


def _take(url: str) -> Lease:
    mine = _document()
    deadline = time.monotonic() + PATIENCE_S
    seen, since = None, time.monotonic()
    while True:
        found, now = read_if_there(url), time.monotonic()
        if found is None or (found == seen and now - since >= LEASE_S):
            if found is not None:
                logger.warning("lease=%s taken over from %s", url, _holder(found))
            urls.write_bytes(url, mine)
            time.sleep(SETTLE_S)
            if read_if_there(url) == mine:
                return Lease(url, mine, now)
            continue
        if found != seen:
            seen, since = found, now
            logger.debug("lease=%s waiting for %s", url, _holder(found))
        if now >= deadline:
            raise StoreError(
                f"{url.removesuffix('/' + LEASE)}: another writer ({_holder(found)}) has held this "
                f"single-writer store for {PATIENCE_S:.0f} s. Let it finish; if it is no more, "
                f"remove {url} and run this again."
            )
        time.sleep(_POLL_S)


def _document() -> bytes:
    """The content of a lease, unlike any other."""
    return json.dumps(
        {
            "writer": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    ).encode()


def _holder(document: bytes) -> str:
    """Who wrote a lease, for people."""
    try:
        found: dict[str, Any] = json.loads(document)
        return f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "one that left no name"
