"""The zarr side of a segment: plain zarr v3 arrays that any zarr reader can open."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from outspike import urls
from outspike.errors import ConfigError, CorruptionError, MissingUrlError, StoreError
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import (
    CHUNK_ROWS,
    FORMAT,
    ShardLayout,
    crc32c,
    feature_set_url,
    shard_url,
)

#: Key of our entries among the attributes of a group.
ATTRIBUTES = "outspike"


@dataclass(frozen=True, kw_only=True)
class SegmentContent:
    """What one segment holds: ``features`` as blocks ``[s, K, D]`` that follow one another."""

    layout: ShardLayout
    blocks: tuple[NDArray[Any], ...]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def zarr_store(url: str) -> LocalStore | FsspecStore:
    """The zarr store of a group's address."""
    if urls.is_local(url):
        return LocalStore(urls.local_path(url))
    return FsspecStore.from_url(url, storage_options=urls.storage_options().for_fsspec(url))


def ensure_feature_set(store_url: str, spec: FeatureSetSpec) -> None:
    """Write the group of a feature set where it is not there yet.

    Many writers may begin one feature set at the same moment: all of them write the same whole
    document in one step, so that whoever reads sees it or none.

    Raises:
        StoreError: the group there describes another feature set.
    """
    try:
        found = read_feature_set(store_url, spec.address)
    except MissingUrlError:
        document = _group_document({"format": FORMAT, **spec.attributes()})
        urls.write_bytes(_group_url(store_url, spec.address), document)
        found = read_feature_set(store_url, spec.address)
    if found != spec:
        raise StoreError(
            f"{feature_set_url(store_url, spec.address)} holds {found.num_crops} crops x "
            f"{found.width} {found.dtype}, the encoder gives {spec.num_crops} x {spec.width} "
            f"{spec.dtype} under the same fingerprint; the encoder's document must state what "
            "sets them apart."
        )


def read_feature_set(store_url: str, address: str) -> FeatureSetSpec:
    """The spec that the group of a feature set describes.

    Raises:
        MissingUrlError: no such group.
        CorruptionError: it does not describe a feature set of this format.
    """
    url = _group_url(store_url, address)
    text = urls.read_bytes(url)
    try:
        attributes = json.loads(text)["attributes"][ATTRIBUTES]
        spec = FeatureSetSpec.from_attributes(attributes)
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CorruptionError(f"{url} does not describe a feature set: {error!r}") from error
    if spec.address != address:
        raise CorruptionError(f"{url} describes {spec.address}; the folder was renamed or altered.")
    return spec


def _group_url(store_url: str, address: str) -> str:
    return urls.join(feature_set_url(store_url, address), "zarr.json")


def _group_document(attributes: Mapping[str, Any]) -> bytes:
    """``zarr.json`` of an empty group with these entries of ours, as zarr writes it."""
    files: dict[str, Any] = {}
    zarr.create_group(MemoryStore(files), attributes={ATTRIBUTES: attributes})
    return cast(bytes, files["zarr.json"].to_bytes())


def chunk_crcs(content: SegmentContent) -> NDArray[np.uint32]:
    """crc32c of every 32-row chunk as it is stored, the last one filled up with zero rows."""
    chunk_bytes = content.layout.chunk_bytes
    crcs, value, room = [], 0, chunk_bytes
    for block in content.blocks:
        data = _plain_bytes(block)
        first = 0
        while first < len(data):
            piece = data[first : first + room]
            value = google_crc32c.extend(value, piece)
            first, room = first + len(piece), room - len(piece)
            if not room:
                crcs.append(value)
                value, room = 0, chunk_bytes
    if room < chunk_bytes:
        crcs.append(crc32c(bytes(room), value))
    return np.array(crcs, dtype=np.uint32)


def _plain_bytes(block: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array, read-only, as the crc's library takes them and their slices."""
    data: NDArray[np.uint8] = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
    data.flags.writeable = False
    return data


def padded(rows: NDArray[Any]) -> NDArray[Any]:
    """Up to 32 rows as the chunk that is stored for them."""
    if len(rows) == CHUNK_ROWS:
        return rows
    chunk = np.zeros((CHUNK_ROWS, *rows.shape[1:]), dtype=rows.dtype)
    chunk[: len(rows)] = rows
    return chunk


def write_segment(url: str, content: SegmentContent, crcs: NDArray[np.uint32]) -> None:
    """Write the four arrays of a segment.

    zarr itself makes the metadata and the small arrays; shards are written as the bytes that zarr
    would write, without its copies: blocks as they are, and the index. On a local disk this needs
    no memory beyond ``content``, on S3 that of one shard.
    """
    layout = content.layout
    small = {name: data.to_bytes() for name, data in _small_files(content, crcs).items()}
    with urls.plain_errors(url):
        for shard in range(layout.num_shards):
            _write_file(shard_url(url, shard), shard_parts(content, shard))
        if urls.is_local(url):
            for name, data in small.items():
                _write_file(urls.join(url, name), [data])
        else:
            paths = {urls.path_in(urls.join(url, name)): data for name, data in small.items()}
            urls.filesystem(url).pipe(paths)


def shard_parts(content: SegmentContent, shard: int) -> Iterator[Any]:
    """The bytes of a shard file, piece by piece: rows, zeros up to whole chunks, the index."""
    layout = content.layout
    first = shard * layout.shard_rows
    num_rows = layout.rows_in_shard(shard)
    for rows in _pieces(content.blocks, first, first + num_rows):
        yield _plain_bytes(rows).data
    yield bytes(layout.data_bytes(shard) - num_rows * layout.row_bytes)
    yield layout.index(shard)


def _write_file(url: str, parts: Iterable[Any]) -> None:
    """A new file of some pieces; on a local disk it appears once it is whole."""
    if not urls.is_local(url):
        urls.filesystem(url).pipe_file(urls.path_in(url), b"".join(parts))
        return
    path = urls.local_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")  # segments have one writer
    with open(temporary, "wb") as file:
        file.writelines(parts)
    temporary.replace(path)


def _small_files(content: SegmentContent, crcs: NDArray[np.uint32]) -> dict[str, Any]:
    """Every file of a segment but its shards, by name."""
    layout = content.layout
    small: dict[str, NDArray[Any]] = {
        "crc": crcs,
        "start": content.start,
        "stop": content.stop,
    }
    attributes = {
        "format": FORMAT,
        "rows": layout.rows,
        "crc32c": {name: crc32c(values) for name, values in small.items()},
    }
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), attributes={ATTRIBUTES: attributes})
    for name, values in small.items():
        _create(group, name, values.shape, values.dtype, values.shape, None)[:] = values
    _create(
        group,
        "features",
        (layout.rows, layout.num_crops, layout.width),
        np.dtype(layout.dtype),
        (CHUNK_ROWS, layout.num_crops, layout.width),
        (layout.shard_rows, layout.num_crops, layout.width),
    )
    return files


def read_with_zarr(url: str, name: str, start: int | None, stop: int | None) -> NDArray[Any]:
    """Rows of one array of a segment through zarr's own reader.

    Raises:
        CorruptionError: zarr cannot make sense of it.
        UrlError: the storage does not answer.
    """
    try:
        with urls.plain_errors(url):
            group = zarr.open_group(zarr_store(url), mode="r", use_consolidated=False)
            return np.asarray(cast(zarr.Array[Any], group[name])[slice(start, stop)])
    except (MissingUrlError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptionError(f"{url}: array {name!r} cannot be read: {error}") from error


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=None,
        filters=None,
        fill_value=0,
        # an all-zero chunk would otherwise be left out and shift the rest of its shard
        config={"write_empty_chunks": True},
    )


def _pieces(blocks: tuple[NDArray[Any], ...], first: int, last: int) -> Iterator[NDArray[Any]]:
    """The parts of blocks laid end to end that are rows ``[first, last)``."""
    offset = 0
    for block in blocks:
        low, high = max(first - offset, 0), min(last - offset, len(block))
        if low < high:
            yield block[low:high]
        offset += len(block)
