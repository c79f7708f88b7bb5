"""A feature store: one address, a catalog with versions, and what can be asked of it."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from numpy.typing import NDArray

from outspike.errors import CorruptionError, StoreError, UrlError
from outspike.recording import Recording
from outspike.store import recordings as recordings_table
from outspike.store.arrays import read_feature_set
from outspike.store.catalog import (
    ATTEMPT_COLUMNS,
    CATALOG_SCHEMA,
    EXTENT_COLUMNS,
    Extents,
    Key,
    Receipt,
    append_attempts,
    recording_ranks,
    remove_attempts,
)
from outspike.store.delta import (
    change,
    create_table,
    is_single_writer,
    open_table,
    read_table,
    table_exists,
)
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import CATALOG, PINS, RECORDINGS
from outspike.store.recordings import RECORDINGS_SCHEMA
from outspike.store.segments import SegmentWriter

if TYPE_CHECKING:
    from outspike.store.cache import ShardCache
    from outspike.store.features import FeatureReader

logger = logging.getLogger(__name__)

PINS_SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("catalog_version", pa.int64(), nullable=False),
        pa.field("recordings_version", pa.int64(), nullable=False),
        pa.field("pinned_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


class FeatureStore:
    """One store as of one catalog version and one version of the recordings.

    Opened without a version it stands at the newest and moves on with its own commits; opened at a
    version it stays there and takes no changes. Holds no connections and no secrets, so it may be
    pickled and carried to other processes.
    """

    def __init__(
        self,
        url: str,
        version: int,
        recordings_version: int,
        *,
        is_pinned: bool = False,
        is_single_writer: bool = False,
    ) -> None:
        self.url = url
        self.version = version
        self.recordings_version = recordings_version
        self.is_pinned = is_pinned
        self.is_single_writer = is_single_writer

    def __repr__(self) -> str:
        return (
            f"FeatureStore({self.url!r}, version={self.version}, "
            f"recordings_version={self.recordings_version})"
        )

    def __getstate__(self) -> dict[str, Any]:
        names = ("url", "version", "recordings_version", "is_pinned", "is_single_writer")
        return {name: getattr(self, name) for name in names}  # what was read is read again

    @classmethod
    def open(
        cls, url: str, *, version: int | None = None, recordings_version: int | None = None
    ) -> Self:
        """Open a store at its newest or a given catalog version.

        Raises:
            StoreError: no store there, one of another format, or no such version.
        """
        catalog = open_table(url, CATALOG, version)
        recordings = open_table(url, RECORDINGS, recordings_version)
        return cls(
            url,
            catalog.version(),
            recordings.version(),
            is_pinned=version is not None,
            is_single_writer=is_single_writer(catalog),
        )

    @classmethod
    def create(cls, url: str, *, single_writer: bool = False) -> Self:
        """Make an empty store.

        Args:
            url: where.
            single_writer: commit by plain puts, under a lease, for servers that know no others.

        Raises:
            StoreError: there is one already, or the address cannot be written.
        """
        if table_exists(url, CATALOG):
            raise StoreError(f"{url}: there is a feature store already; open it instead.")
        return cls._make(url, single_writer)

    @classmethod
    def open_or_create(cls, url: str, *, single_writer: bool = False) -> Self:
        """Open a store, made now if there is none; see :meth:`create`.

        A store that is there keeps the mode it was made in.
        """
        if not table_exists(url, CATALOG):
            return cls._make(url, single_writer)
        store = cls.open(url)
        if single_writer and not store.is_single_writer:
            logger.warning("store=%s was made for any number of writers, and stays so", url)
        return store

    @classmethod
    def _make(cls, url: str, single_writer: bool) -> Self:
        # the catalog last: a store exists once its catalog does
        create_table(url, RECORDINGS, RECORDINGS_SCHEMA, single_writer=single_writer)
        create_table(url, PINS, PINS_SCHEMA, single_writer=single_writer)
        create_table(url, CATALOG, CATALOG_SCHEMA, single_writer=single_writer)
        return cls.open(url)

    # ---------------------------------------------------------------- recordings and labels

    def put_recordings(self, recordings: Sequence[Recording]) -> None:
        """Insert what is known of recordings, or replace it, by (dataset, video_id)."""
        self._check_not_pinned()
        self.recordings_version = recordings_table.put(self.url, recordings)
        self.__dict__.pop("_recordings", None)

    def recordings(self) -> pa.Table:
        """The ``recordings`` table as of ``recordings_version``."""
        table = open_table(self.url, RECORDINGS, self.recordings_version)
        return read_table(table, RECORDINGS_SCHEMA.names)

    def recording(self, dataset: str, video_id: str) -> Recording:
        """What is known of one recording.

        Raises:
            StoreError: nothing is.
        """
        found = self._recordings.get((dataset, video_id))
        if found is None:
            raise StoreError(f"{self.url}: no recording {dataset}/{video_id} is registered.")
        return found

    def recordings_by_key(self) -> dict[Key, Recording]:
        """Every registered recording by ``(dataset, video_id)``."""
        return dict(self._recordings)

    @cached_property
    def _recordings(self) -> dict[Key, Recording]:
        found = (recordings_table.from_row(row) for row in self.recordings().to_pylist())
        return {(recording.dataset, recording.video_id): recording for recording in found}

    # --------------------------------------------------------------------------- features

    def catalog(self) -> pa.Table:
        """Every catalog row as of ``version``, attempts that were superseded included."""
        return read_table(open_table(self.url, CATALOG, self.version), CATALOG_SCHEMA.names)

    @cached_property
    def extents(self) -> pa.Table:
        """Catalog rows of the newest whole attempt of every recording and feature set.

        Ordered by feature set, dataset, video and snippet.
        """
        return Extents(self.catalog()).current()

    @cached_property
    def _feature_sets(self) -> dict[str, FeatureSetSpec]:
        addresses = sorted(set(self.extents["feature_set"].to_pylist()))
        found = {}
        for address in addresses:
            try:
                found[address] = read_feature_set(self.url, address)
            except UrlError as error:
                raise CorruptionError(
                    f"{self.url}: the catalog names {address}, its group cannot be read: {error}"
                ) from error
        return found

    def feature_sets(self) -> dict[str, FeatureSetSpec]:
        """Feature sets that have whole recordings at this version, by address."""
        return dict(self._feature_sets)

    def resolve(self, name: str) -> FeatureSetSpec:
        """The one feature set of that name, or whose address or fingerprint begins with it.

        Raises:
            StoreError: none or several fit; the message names them.
        """
        known = self._feature_sets
        fitting = [spec for spec in known.values() if name in (spec.name, spec.address)] or [
            spec
            for spec in known.values()
            if name and (spec.address.startswith(name) or spec.fingerprint.startswith(name))
        ]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            raise StoreError(
                f"{self.url} version {self.version}: no feature set {name!r}; there are "
                f"{', '.join(known) or 'none'}. Extract it first."
            )
        raise StoreError(
            f"{self.url}: {name!r} fits {', '.join(spec.address for spec in fitting)}; use one of "
            "these addresses."
        )

    def features(self, name: str, *, cache: "ShardCache | None" = None) -> "FeatureReader":
        """Rows of one feature set (see :meth:`resolve`) at this version.

        ``cache`` keeps the shards of a store on S3 on a local disk.
        """
        from outspike.store.features import FeatureReader  # compiled; writers do without it

        return FeatureReader(self.url, self.resolve(name), self.extents, cache)

    def segment_writer(
        self, spec: FeatureSetSpec, *, max_bytes: int = 64_000_000, max_seconds: float = 30.0
    ) -> SegmentWriter:
        """A writer of new segments of one feature set, for one process."""
        return SegmentWriter(self.url, spec, max_bytes=max_bytes, max_seconds=max_seconds)

    def commit(self, receipts: Sequence[Receipt]) -> int:
        """Append whole attempts to the catalog; returns the version that holds them.

        May be repeated: attempts that are there already are not appended again.

        Raises:
            StoreError: an attempt is not whole (nothing is appended), the store was opened at a
                version, or the table cannot be changed.
        """
        self._check_not_pinned()
        if receipts:
            self._moved_to(append_attempts(self.url, receipts))
        return self.version

    def forget(self, attempts: Sequence[str]) -> int:
        """Take attempts out of the catalog; returns the version without them.

        Their recordings are work again, or served by an older whole attempt. Earlier versions keep
        them, and no feature bytes are removed.
        """
        self._check_not_pinned()
        if attempts:
            self._moved_to(remove_attempts(self.url, attempts))
        return self.version

    def _check_not_pinned(self) -> None:
        if self.is_pinned:
            raise StoreError(
                f"{self.url} was opened at version {self.version}, which never changes; open it "
                "without a version to change it."
            )

    def _moved_to(self, version: int) -> None:
        self.version = version
        for name in ("extents", "_feature_sets"):
            self.__dict__.pop(name, None)

    def done(self, fingerprint: str) -> set[tuple[str, str, str]]:
        """``(dataset, video_id, source_etag)`` of every recording readers would find.

        The etag is that of the newest whole attempt, which is the one readers use: a source that
        changed, or changed back, is work again. Of many recordings, :meth:`missing` is quicker.
        """
        rows = self._rows_of(fingerprint, (*EXTENT_COLUMNS, "source_etag"))
        current = Extents(rows).current(("dataset", "video_id", "source_etag"))
        return set(zip(*(column.to_pylist() for column in current.columns), strict=True))

    def missing(
        self,
        fingerprint: str,
        datasets: Sequence[str],
        video_ids: Sequence[str],
        source_etags: Sequence[str],
    ) -> NDArray[np.bool_]:
        """Anti-join: which of some recordings are not in :meth:`done`, without a set of them.

        The three sequences have one entry a recording.
        """
        names = ("dataset", "video_id", "source_etag")
        rows = self._rows_of(fingerprint, (*names, *ATTEMPT_COLUMNS))
        given = (datasets, video_ids, source_etags)
        asked = pa.table([pa.array(each, pa.string()) for each in given], names=names)
        ranks = recording_ranks(pa.concat_tables([rows.select(names), asked]))
        there, wanted = ranks[: rows.num_rows], ranks[rows.num_rows :]
        current = Extents(rows, there).current_index()
        row_of = np.full(int(ranks.max(initial=-1)) + 1, -1)
        row_of[there[current]] = current
        row = row_of[wanted]
        known = row >= 0
        etags = rows["source_etag"].take(pa.array(row[known]))
        changed = pc.not_equal(etags, asked["source_etag"].filter(pa.array(known)))
        missing: NDArray[np.bool_] = ~known
        missing[known] = changed.to_numpy()
        return missing

    def _rows_of(self, fingerprint: str, columns: Sequence[str]) -> pa.Table:
        table = open_table(self.url, CATALOG, self.version if self.is_pinned else None)
        return read_table(table, columns, f"fingerprint = '{_plain(fingerprint)}'")

    def digest(self, feature_sets: Sequence[str] | None = None) -> str:
        """SHA-256 over every dataset, video, snippet, frame range and feature byte.

        Independent of the order of extraction, of segments and of attempts.

        Args:
            feature_sets: names or addresses; None means all.
        """
        names = list(self._feature_sets) if feature_sets is None else feature_sets
        lines: set[str] = set()
        for name in names:
            reader = self.features(name)
            lines.update(reader.digest(key) for key in reader)
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    # ------------------------------------------------------------------------------- pins

    def pin(self, run_id: str) -> None:
        """Note that a run was made from these versions, so that they are kept.

        Raises:
            StoreError: the run has pinned other versions.
        """
        wanted = (self.version, self.recordings_version)

        def attempt(table: DeltaTable) -> None:
            for row in read_table(table, PINS_SCHEMA.names).to_pylist():
                if row["run_id"] != run_id:
                    continue
                found = (row["catalog_version"], row["recordings_version"])
                if found != wanted:
                    raise StoreError(
                        f"{self.url}: run {run_id} has pinned catalog and recordings versions "
                        f"{found}, not {wanted}; unpin it first."
                    )
                return
            values = (run_id, *wanted, datetime.now(UTC))
            row = dict(zip(PINS_SCHEMA.names, values, strict=True))
            write_deltalake(table, pa.Table.from_pylist([row], schema=PINS_SCHEMA), mode="append")

        change(self.url, PINS, attempt)

    def unpin(self, run_id: str) -> None:
        """Release what a run has pinned; a run without pins is left at that."""

        def attempt(table: DeltaTable) -> None:
            if run_id in read_table(table, ["run_id"])["run_id"].to_pylist():
                table.delete("run_id = '{}'".format(run_id.replace("'", "''")))

        change(self.url, PINS, attempt)

    def pins(self) -> pa.Table:
        """Runs and the versions they were made from."""
        return read_table(open_table(self.url, PINS), PINS_SCHEMA.names)


def _plain(fingerprint: str) -> str:
    if not fingerprint.isalnum():
        raise StoreError(f"{fingerprint!r} is not a fingerprint; expected hexadecimal digits.")
    return fingerprint
