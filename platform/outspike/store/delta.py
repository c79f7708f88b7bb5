"""Opening, creating and changing the Delta tables of a store."""

import logging
import random
import re
import time
from collections.abc import Callable, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from outspike import urls
from outspike.errors import MissingUrlError, StoreError
from outspike.store import mirror
from outspike.store.layout import CATALOG, FORMAT
from outspike.store.lease import OvertakenError

logger = logging.getLogger(__name__)

#: Entry of a table's configuration that holds the number of the store format.
FORMAT_KEY = "outspike.format"
#: Entry that says that commits take turns by a lease (:mod:`outspike.store.lease`).
SINGLE_WRITER_KEY = "outspike.single_writer"

_MAX_TRIES = 8
_FIRST_WAIT_S = 0.05
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LIBRARY_ERRORS = (DeltaError, OSError, ValueError)


def create_table(
    store_url: str, name: str, schema: pa.Schema, *, single_writer: bool | None = None
) -> None:
    """Create an empty table; one that exists already is left as it is.

    The log is never cleaned up, so that every version stays readable.

    Args:
        store_url: the store.
        name: of the table.
        schema: of its rows.
        single_writer: whether the server needs commits to take turns; None does as the catalog.

    Raises:
        StoreError: the address cannot be written.
    """
    if single_writer is None:
        has_catalog = table_exists(store_url, CATALOG)
        single_writer = has_catalog and is_single_writer(open_table(store_url, CATALOG))
    configuration = {FORMAT_KEY: str(FORMAT), "delta.enableExpiredLogCleanup": "false"}
    if single_writer:
        configuration[SINGLE_WRITER_KEY] = "true"

    def create(address: str) -> None:
        DeltaTable.create(
            address,
            schema=schema,
            mode="error",
            name=f"outspike {name}",
            configuration=configuration,
            storage_options=urls.storage_options().for_deltalake(address),
            # a second try would put the table's description into version 1 of another's table
            commit_properties=CommitProperties(max_commit_retries=0),
            raise_if_key_not_exists=False,  # the format key is ours
        )

    def create_in_mirror(folder: str) -> None:
        if not _is_there(folder):
            create(folder)

    url = urls.join(store_url, name)
    try:
        if single_writer:
            mirror.commit(store_url, name, create_in_mirror)
        else:
            create(_table_address(url))
    except (*_LIBRARY_ERRORS, OvertakenError) as error:
        _explain_refusal(url, error)
        if not table_exists(store_url, name):  # else somebody created it at the same moment
            raise StoreError(f"{url}: the table cannot be created: {_text(error)}") from error


def table_exists(store_url: str, name: str) -> bool:
    """Whether there is a Delta table of that name, ours or not.

    By opening it: ``is_deltatable`` of this library holds the interpreter lock during its requests.
    """
    url = urls.join(store_url, name)
    try:
        return _is_there(url)
    except _LIBRARY_ERRORS as error:
        raise StoreError(f"{url} cannot be reached: {_text(error)}") from error


def is_single_writer(table: DeltaTable) -> bool:
    """Whether commits to a table take turns by a lease, because its server cannot refuse any."""
    return table.metadata().configuration.get(SINGLE_WRITER_KEY) == "true"


def open_table(store_url: str, name: str, version: int | None = None) -> DeltaTable:
    """A table at its newest or a given version.

    Raises:
        StoreError: no store at that address, one of another format, or no such version.
    """
    url = urls.join(store_url, name)
    try:
        table = _open(url)
    except TableNotFoundError as error:
        raise StoreError(
            f"{store_url}: no feature store there (no {name!r} table). Check the address, or make "
            "one by extracting features into it."
        ) from error
    except _LIBRARY_ERRORS as error:
        raise StoreError(f"{url} cannot be read as a Delta table: {_text(error)}") from error
    found = table.metadata().configuration.get(FORMAT_KEY)
    if found != str(FORMAT):
        raise StoreError(
            f"{url} is a Delta table of store format {found}, expected {FORMAT}. "
            + ("It was not made by outspike." if found is None else "Use the version that made it.")
        )
    newest = table.version()
    if version is not None and version != newest:
        if not 0 <= version < newest:
            raise StoreError(f"{url}: no version {version}; there are versions 0 to {newest}.")
        table.load_as_version(version)
    return table


def read_table(
    table: DeltaTable, columns: Sequence[str] | None = None, predicate: str | None = None
) -> pa.Table:
    """Rows of a table as Arrow.

    Through ``scan``: ``to_pyarrow_table`` of this library may abort the interpreter at exit.
    """
    wanted = list(columns) if columns is not None else None
    try:
        batches = pa.RecordBatchReader.from_stream(table.scan(columns=wanted, predicate=predicate))
        plain = [
            pa.field(f.name, pa.string() if f.type == pa.string_view() else f.type)
            for f in batches.schema
        ]
        return batches.cast(pa.schema(plain)).read_all()  # a batch at a time, in the same memory
    except _LIBRARY_ERRORS as error:
        text = _text(error)
        if "Object at location" in text and "not found" in text:
            raise StoreError(
                f"{table.table_uri} version {table.version()}: files of it are gone; `outspike "
                "store gc` lets go of versions that are neither pinned, nor recent, nor kept by "
                "--keep. Open a newer one."
            ) from error
        raise StoreError(f"{table.table_uri} cannot be read: {text}") from error


def change(store_url: str, name: str, attempt: Callable[[DeltaTable], None]) -> int:
    """Apply a change to the newest version of a table and return the version it led to.

    ``attempt`` is called again, on a fresh table, when another writer got in between or when the
    outcome is unknown. It must look first whether its change is there already.

    Raises:
        StoreError: it was refused, or it still conflicts after several tries.
    """
    wait = _FIRST_WAIT_S
    for remaining in reversed(range(_MAX_TRIES)):
        table = open_table(store_url, name)
        try:
            if is_single_writer(table):
                return mirror.commit(store_url, name, lambda folder: attempt(DeltaTable(folder)))
            attempt(table)
            return int(table.version())
        except (CommitFailedError, OSError, OvertakenError) as error:
            _explain_refusal(table.table_uri, error)
            if not remaining:
                raise StoreError(
                    f"{table.table_uri}: the change was not taken in {_MAX_TRIES} tries: "
                    f"{_text(error)}"
                ) from error
            logger.debug("table=%s retry after %s", name, error)
        except DeltaError as error:
            raise StoreError(
                f"{table.table_uri}: the change was refused: {_text(error)}"
            ) from error
        time.sleep(wait * random.uniform(0.5, 1.5))
        wait *= 2
    raise AssertionError("unreachable: the last try raises")


def _explain_refusal(url: str, error: Exception) -> None:
    """Say plainly where a server cannot do what commits stand on; another try will not help.

    Raises:
        StoreError: the server has answered 501 to a put that must not replace anything.
    """
    text = _text(error)
    if "501 Not Implemented" in text or "put_opts" in text:
        raise StoreError(
            f"{url}: this server cannot write an object only if it is not there yet (501, a "
            "conditional put), which the catalog's commits stand on: two jobs could overwrite each "
            "other's. Make the store with --store.single-writer, and let one job write it at a "
            f"time, or keep it on S3, MinIO, Ceph or a disk. It said: {text}"
        ) from error


def optimize(store_url: str, name: str) -> int:
    """Join the many small files that many commits leave; rows and versions stay as they are."""

    def attempt(table: DeltaTable) -> None:
        table.optimize.compact()

    return change(store_url, name, attempt)


def vacuum(
    store_url: str, name: str, *, hours: int, keep_versions: Sequence[int], dry_run: bool
) -> list[str]:
    """Remove files of a table that were replaced more than ``hours`` ago; returns their names.

    The newest version and those to keep lose nothing.
    """
    gone: list[str] = []

    def attempt(table: DeltaTable) -> None:
        gone[:] = table.vacuum(
            retention_hours=hours,
            dry_run=dry_run,
            enforce_retention_duration=False,
            keep_versions=list(keep_versions),
        )

    table = open_table(store_url, name)
    if dry_run:
        attempt(table)
    elif is_single_writer(table):  # removing needs no commit; the library would make one
        dry_run = True
        attempt(table)
        for path in gone:
            _remove_if_there(urls.join(store_url, name, path))
    else:
        change(store_url, name, attempt)
    return gone


def _remove_if_there(url: str) -> None:
    try:
        urls.remove(url)
    except MissingUrlError:
        logger.debug("file=%s was gone already", url)


def _is_there(url: str) -> bool:
    try:
        _open(url)
    except TableNotFoundError:
        return False
    return True


def _open(url: str) -> DeltaTable:
    options = urls.storage_options().for_deltalake(url)
    return DeltaTable(_table_address(url), storage_options=options)


def _text(error: Exception) -> str:
    """The message of a library error on one line, without the colours it comes in."""
    return " ".join(_COLOUR.sub("", str(error)).split())


def _table_address(url: str) -> str:
    return str(urls.local_path(url).absolute()) if urls.is_local(url) else url
