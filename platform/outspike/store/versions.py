"""Which catalog versions are kept, and which segments they name."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from outspike import urls
from outspike.store.delta import open_table, read_table
from outspike.store.files import RangeFiles
from outspike.store.layout import CATALOG, PINS

#: Versions that were the newest at some time within this are kept, pinned or not.
GRACE_S = 24 * 3600.0

_SEGMENT = re.compile(r"([0-9a-f]{14})-[0-9a-f]{12}")
#: Operations after which a table has all the rows it had before.
_ADDING = ("CREATE TABLE", "OPTIMIZE", "VACUUM START", "VACUUM END")

Segment = tuple[str, str]
"""Address of a feature set, and name of a segment."""


@dataclass(frozen=True)
class Commit:
    """One version of a table: when it was made, and whether rows of the one before are gone."""

    version: int
    at: datetime
    removes: bool


def commits(store_url: str, name: str = CATALOG) -> list[Commit]:
    """Every version of a table, in order.

    From the files of its log, which are never cleaned up: ``history`` of the library holds the
    interpreter lock during its requests.
    """
    folder = urls.join(store_url, name, "_delta_log")
    files = [url for url in urls.list_files(folder, [".json"]) if _version_of(url) is not None]
    found = []
    for url, text in zip(files, RangeFiles().read_all(files), strict=True):
        entries = (json.loads(line) for line in text.splitlines() if b'"commitInfo"' in line)
        info = next(entry["commitInfo"] for entry in entries if "commitInfo" in entry)
        operation = info["operation"]
        is_append = operation == "WRITE" and info["operationParameters"]["mode"] == "Append"
        at = datetime.fromtimestamp(info["timestamp"] / 1000, UTC)
        removes = not (is_append or operation in _ADDING)
        found.append(Commit(_version_of(url) or 0, at, removes))
    return sorted(found, key=lambda commit: commit.version)


def _version_of(url: str) -> int | None:
    stem = url.rsplit("/", 1)[-1].removesuffix(".json")
    return int(stem) if stem.isdecimal() else None


def retained(
    store_url: str,
    *,
    grace_s: float = GRACE_S,
    keep: Sequence[int] = (),
    now: datetime | None = None,
) -> list[int]:
    """Catalog versions that between them name every segment that may still be read.

    These are the pinned ones, those to ``keep``, the newest, and whatever was the newest within
    the grace period. Of the last only those that matter are listed: as long as commits only add
    rows, a version names all that the ones before it name. Versions that an earlier ``gc`` with a
    shorter grace period has let go of cannot be read any more, and are not among them.
    """
    history = commits(store_url)
    since = (now or datetime.now(UTC)).timestamp() - grace_s
    recent = [
        index
        for index in range(len(history))
        if index + 1 == len(history) or history[index + 1].at.timestamp() > since
    ]
    fullest = {
        history[index].version
        for index in recent
        if index + 1 == len(history) or history[index + 1].removes
    }
    pinned = read_table(open_table(store_url, PINS), ["catalog_version"])
    wanted = {*keep, *pinned["catalog_version"].to_pylist()}
    return sorted(wanted | _readable(store_url, fullest - wanted))


def _readable(store_url: str, versions: Iterable[int]) -> set[int]:
    """Those of some catalog versions whose files are all there."""
    there = {url.rsplit("/", 1)[-1] for url in urls.list_files(urls.join(store_url, CATALOG))}
    found = set()
    for version in versions:
        needed = open_table(store_url, CATALOG, version).file_uris()
        if all(uri.rsplit("/", 1)[-1] in there for uri in needed):
            found.add(version)
    return found


def named_segments(store_url: str, versions: Sequence[int]) -> set[Segment]:
    """Segments that some catalog versions name."""
    named: set[Segment] = set()
    for version in versions:
        rows = read_table(open_table(store_url, CATALOG, version), ["feature_set", "segment"])
        rows = rows.group_by(["feature_set", "segment"]).aggregate([])
        columns = (rows[column].to_pylist() for column in ("feature_set", "segment"))
        named.update(zip(*columns, strict=True))
    return named


def made_at(segment: str) -> datetime | None:
    """When a segment was begun, from its name; None for a folder that is no segment."""
    found = _SEGMENT.fullmatch(segment)
    return None if found is None else datetime.fromtimestamp(int(found[1], 16) / 1e6, UTC)
