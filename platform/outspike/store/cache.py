"""Shards of a store on S3, kept on a local disk: the second epoch reads them from there."""

import errno
import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outspike import urls
from outspike.errors import ConfigError, UrlError
from outspike.store.fetch import ByteRange, fetch_ranges

logger = logging.getLogger(__name__)

_PART_BYTES = 8_000_000
_ABANDONED_S = 3600.0
_PARTIAL, _LOCK = ".part", "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def default_folder() -> Path:
    """``outspike/shards`` in the user's cache folder."""
    own = os.environ.get("XDG_CACHE_HOME")
    return Path(own or Path.home() / ".cache") / "outspike" / "shards"


class ShardCache:
    """Whole shard files in one folder, the least recently used removed first.

    Several processes may share a folder; one of them fetches a file, and the others wait for it. A
    file appears there only once it is complete (it is
    renamed into place), and segments never change, so what is found is used as it is; its chunks
    are checked against their crc like any others. A file that is removed while somebody reads it
    stays readable to them.

    Args:
        folder: on a local disk; made where it is missing.
        max_bytes: what the folder may hold. Downloads under way come on top of it.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ConfigError(f"{folder}: a cache of {max_bytes} bytes holds nothing.")
        self.folder = Path(folder).absolute()
        self.max_bytes = max_bytes

    def get(self, url: str, size: int) -> Path | None:
        """Local copy of a shard file of ``size`` bytes, fetched now if it is not there.

        None where the cache could not hold it.

        Raises:
            MissingUrlError: no such object.
            UrlError: it cannot be read, or is shorter than ``size``.
        """
        if size > self.max_bytes:
            return None
        path = self._path(url)
        with urls.plain_errors(str(self.folder)):
            if self._has(path, size):
                return path
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone(f"{path.name[:2]}{_LOCK}"):
                if self._has(path, size):
                    return path
                try:
                    self._fetch(url, size, path)
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    logger.warning("cache=%s: the disk is full; not kept: %s", self.folder, url)
                    return None
        return path

    def _fetch(self, url: str, size: int, path: Path) -> None:
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
        try:
            _download(url, size, partial)
            with self._alone(_LOCK):
                self._make_room(size)
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _has(self, path: Path, size: int) -> bool:
        if _size(path) != size:
            return False
        self._touch(path)
        return True

    def drop(self, url: str) -> None:
        """Forget the copy of a file, which turned out damaged."""
        self._path(url).unlink(missing_ok=True)

    def num_bytes(self) -> int:
        """Bytes of the complete files."""
        return sum(size for _, size, _ in self._files())

    def _path(self, url: str) -> Path:
        endpoint = urls.storage_options().endpoint_url or ""
        return self.folder / hashlib.sha256(f"{endpoint}\n{url}".encode()).hexdigest()[:40]

    @staticmethod
    def _touch(path: Path) -> None:
        try:
            os.utime(path)
        except FileNotFoundError:  # removed by another process since; the caller fetches it again
            logger.debug("cache=%s went away", path)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One process at a time fetches a file, and one makes room, so that the bound holds."""
        with open(self.folder / f".{name}", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> None:
        oldest = sorted(self._files(), key=lambda found: found[2])
        total = sum(held for _, held, _ in oldest)
        for path, held, _ in oldest:
            if total + size <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= held
        for path in self.folder.glob(f"*{_PARTIAL}"):  # of processes that were killed
            if (_age_s(path) or 0) > _ABANDONED_S:
                path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[Path, int, float]]:
        """Path, size and time of last use of every complete file."""
        found = []
        for entry in os.scandir(self.folder) if self.folder.is_dir() else ():
            if entry.name.startswith(".") or entry.name.endswith(_PARTIAL):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # removed by another process meanwhile
            found.append((Path(entry.path), status.st_size, status.st_mtime))
        return found


def _download(url: str, size: int, path: Path) -> None:
    """The whole object, part by part; memory stays at a few parts.

    Raises:
        UrlError: as :func:`fetch_ranges`.
    """
    with open(path, "wb") as file:
        step = 4 * _PART_BYTES
        for first in range(0, size, step):
            last = min(first + step, size)
            parts = [
                ByteRange(url, start, min(start + _PART_BYTES, last))
                for start in range(first, last, _PART_BYTES)
            ]
            for data in fetch_ranges(parts):
                file.write(data)
    if _size(path) != size:
        raise UrlError(f"{path}: {_size(path)} of {size} bytes arrived on the disk.")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _age_s(path: Path) -> float | None:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
