"""Ranged reads of files that never change: memory maps on a local disk, one GET on S3."""

import ctypes
import mmap
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import MissingUrlError
from outspike.store.fetch import fetch_files

_MAX_MAPS = 256

_LIBC = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _LIBC.mmap, _LIBC.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class RangeFiles:
    """Reads byte ranges; keeps the newest maps of local files open.

    Usable from several threads, picklable (maps are opened anew where they are needed), and safe to
    carry over a fork.
    """

    def __init__(self) -> None:
        self._maps: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["RangeFiles"], tuple[()]]:
        return (RangeFiles, ())

    def read_all(self, addresses: Sequence[str]) -> list[bytes]:
        """Whole small files, those on S3 all at once.

        Raises:
            MissingUrlError: one of them is not there.
        """
        if not addresses:
            return []
        if urls.is_local(addresses[0]):
            return [urls.read_bytes(url) for url in addresses]
        return fetch_files(addresses)

    def read_range(self, url: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes ``[start, stop)``, read-only; fewer where the file ends before.

        Raises:
            MissingUrlError: no such file.
        """
        if urls.is_local(url):
            return self._map(url)[start:stop]
        with urls.plain_errors(url):
            data = urls.filesystem(url).cat_file(urls.path_in(url), start=start, end=stop)
        return np.frombuffer(data, dtype=np.uint8)

    def _map(self, url: str) -> NDArray[np.uint8]:
        with self._lock:
            found = self._maps.get(url)
            if found is None:
                found = self._maps[url] = open_map(urls.local_path(url))
            self._maps.move_to_end(url)
            while len(self._maps) > _MAX_MAPS:
                self._maps.popitem(last=False)
            return found


def read_if_there(url: str) -> bytes | None:
    """A whole small file, by one request on S3; None where there is none."""
    try:
        return RangeFiles().read_all([url])[0]
    except MissingUrlError:
        return None


def open_map(path: Path) -> NDArray[np.uint8]:
    """A local file as memory, read-only, for as long as an array on it lives.

    Without the file descriptor that Python's own map keeps: a data set may lie in more files than a
    process may have open.

    Raises:
        MissingUrlError: no such file.
        UrlError: it cannot be mapped.
    """
    with urls.plain_errors(str(path)), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:  # cannot be mapped
            return np.zeros(0, dtype=np.uint8)
        start = _mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if start == ctypes.c_void_p(-1).value:
            raise OSError(
                ctypes.get_errno(), f"cannot be mapped: {os.strerror(ctypes.get_errno())}"
            )
    memory = (ctypes.c_ubyte * size).from_address(start)
    weakref.finalize(memory, _munmap, start, size).atexit = False  # the system does it then
    array: NDArray[np.uint8] = np.frombuffer(memoryview(memory), dtype=np.uint8)
    array.flags.writeable = False
    return array
