"""Commits to a Delta table by plain puts, for servers that know no conditional ones.

The catalog's library cannot commit there, not even as the only writer. It can on a local disk: so
a table is mirrored into a local folder (its log from the newest checkpoint on, and the files that
count), changed there, and what the change has added is uploaded: data files first, the entry of
the log last. A process killed in between leaves files that no version names. Readers need none of
this. Between commits of one process the mirror stays, so that a commit costs a few requests.
"""

import json
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from deltalake import DeltaTable

from outspike import urls
from outspike.errors import MissingUrlError
from outspike.store import lease
from outspike.store.files import RangeFiles, read_if_there
from outspike.store.lease import OvertakenError

_LOG = "_delta_log"
_LAST_CHECKPOINT = "_last_checkpoint"

_lock = threading.Lock()
_mirrors: dict[tuple[str | None, str], "_Mirror"] = {}


def commit(store_url: str, name: str, act: Callable[[str], None]) -> int:
    """Let ``act`` change the local copy of a table and upload what it has committed.

    Args:
        store_url: the store; its lease is held meanwhile.
        name: the table, which need not exist yet.
        act: called with the folder of the copy. It is not called again here.

    Returns:
        The version that the table is at.

    Raises:
        OvertakenError: another writer got in between; nothing of the change counts.
        StoreError: another writer holds the store.
        UrlError: the storage does not answer; the outcome is unknown.
    """
    url = urls.join(store_url, name)
    key = (urls.storage_options().endpoint_url, url)
    with _lock:
        mirror = _mirrors.pop(key, None) or _Mirror(url)
        if mirror.version < 0:
            mirror.follow()  # a large table is fetched before others have to wait
        with lease.held(store_url) as held:
            if not mirror.follow():
                mirror = _Mirror(url)
                mirror.follow()
            act(str(mirror.folder))
            mirror.publish(held)
        _mirrors[key] = mirror  # kept only where all went well
        return mirror.version


def _forget_after_fork() -> None:
    """A child process shares neither the folders nor the lock of its parent."""
    global _lock
    _lock = threading.Lock()
    _mirrors.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


class _Mirror:
    """A table's local copy; ``version`` is -1 while nothing is known of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.version = -1
        self.folder = Path(tempfile.mkdtemp(prefix="outspike-table-"))
        weakref.finalize(self, _remove, self.folder, os.getpid())
        (self.folder / _LOG).mkdir()

    def follow(self) -> bool:
        """Fetch what was committed since the last time; False where the table is another one now.

        New versions are asked for by name: the listing of a server may lag behind.
        """
        if self.version < 0:
            self._begin()
        elif self._read_log(self.version) != self._log(self.version).read_bytes():
            return False
        while (entry := self._read_log(self.version + 1)) is not None:
            self.version += 1
            self._log(self.version).write_bytes(entry)
        if self.version >= 0:
            self._fetch_files()
        return True

    def publish(self, held: lease.Lease) -> None:
        """Upload every version that the copy is ahead of the table.

        Raises:
            OvertakenError: another writer has used the lease, or the version's number.
        """
        while self._log(self.version + 1).exists():
            entry = self._log(self.version + 1).read_bytes()
            for path in _added(entry):
                held.check()
                urls.write_bytes(urls.join(self.url, path), (self.folder / path).read_bytes())
            held.check()
            if self._read_log(self.version + 1) is not None:
                raise OvertakenError(f"{self.url}: version {self.version + 1} is another writer's")
            urls.write_bytes(self._log_url(self.version + 1), entry)
            if self._read_log(self.version + 1) != entry:
                raise OvertakenError(f"{self.url}: version {self.version + 1} was replaced")
            self.version += 1
            self._publish_checkpoint()

    def _begin(self) -> None:
        """From the newest checkpoint on, or from the first version."""
        last = self._read(_LAST_CHECKPOINT)
        checkpoint = None if last is None else json.loads(last)
        if last is not None and checkpoint is not None and "parts" not in checkpoint:
            self.version = int(checkpoint["version"])
            name = _checkpoint(self.version)
            log = urls.join(self.url, _LOG)
            data, entry = RangeFiles().read_all([urls.join(log, name), self._log_url(self.version)])
            (self.folder / _LOG / name).write_bytes(data)
            (self.folder / _LOG / _LAST_CHECKPOINT).write_bytes(last)
            self._log(self.version).write_bytes(entry)
        try:
            found = urls.list_files(urls.join(self.url, _LOG), [".json"])
        except MissingUrlError:
            return
        names = {url.rsplit("/", 1)[-1] for url in found}
        listed: list[int] = []
        while self._log(self.version + 1 + len(listed)).name in names:
            listed.append(self.version + 1 + len(listed))
        entries = RangeFiles().read_all([self._log_url(version) for version in listed])
        for version, data in zip(listed, entries, strict=True):
            self._log(version).write_bytes(data)
            self.version = version

    def _fetch_files(self) -> None:
        """The files that count at this version, where the copy lacks them."""
        table = DeltaTable(str(self.folder))
        paths = [Path(uri) for uri in table.file_uris()]
        missing = [path for path in paths if not path.exists()]
        addresses = [
            urls.join(self.url, path.relative_to(self.folder).as_posix()) for path in missing
        ]
        for path, data in zip(missing, RangeFiles().read_all(addresses), strict=True):
            path.write_bytes(data)

    def _publish_checkpoint(self) -> None:
        """The summary of the log that the library makes now and then, which spares much reading."""
        path = self.folder / _LOG / _checkpoint(self.version)
        if path.exists():
            urls.write_bytes(urls.join(self.url, _LOG, path.name), path.read_bytes())
            last = (self.folder / _LOG / _LAST_CHECKPOINT).read_bytes()
            urls.write_bytes(urls.join(self.url, _LOG, _LAST_CHECKPOINT), last)

    def _log(self, version: int) -> Path:
        return self.folder / _LOG / f"{version:020}.json"

    def _log_url(self, version: int) -> str:
        return urls.join(self.url, _LOG, self._log(version).name)

    def _read_log(self, version: int) -> bytes | None:
        return self._read(self._log(version).name)

    def _read(self, name: str) -> bytes | None:
        return read_if_there(urls.join(self.url, _LOG, name))


def _remove(folder: Path, owner: int) -> None:
    """Remove a copy; a child process leaves that of its parent alone."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _added(entry: bytes) -> list[str]:
    """Data files that a version adds, relative to the table."""
    actions = (json.loads(line) for line in entry.splitlines())
    return [action["add"]["path"] for action in actions if "add" in action]


def _checkpoint(version: int) -> str:
    return f"{version:020}.checkpoint.parquet"
