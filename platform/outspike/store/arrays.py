"""The zarr side of a segment: plain zarr v3 arrays that any zarr reader can open."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore, LocalStore

from outspike import urls
from outspike.errors import ConfigError, CorruptionError, MissingUrlError, StoreError
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import CHUNK_ROWS, FORMAT, ShardLayout, crc32c, feature_set_url

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

    Raises:
        StoreError: the group there describes another feature set.
    """
    address = feature_set_url(store_url, spec.address)
    try:
        found = read_feature_set(store_url, spec.address)
    except MissingUrlError:
        attributes = {ATTRIBUTES: {"format": FORMAT, **spec.attributes()}}
        with urls.plain_errors(address):
            zarr.create_group(zarr_store(address), attributes=attributes, overwrite=False)
        return
    if found != spec:
        raise StoreError(
            f"{address} holds {found.num_crops} crops x {found.width} {found.dtype}, the encoder "
            f"gives {spec.num_crops} x {spec.width} {spec.dtype} under the same fingerprint; the "
            "encoder's document must state what sets them apart."
        )


def read_feature_set(store_url: str, address: str) -> FeatureSetSpec:
    """The spec that the group of a feature set describes.

    Raises:
        MissingUrlError: no such group.
        CorruptionError: it does not describe a feature set of this format.
    """
    url = urls.join(feature_set_url(store_url, address), "zarr.json")
    text = urls.read_bytes(url)
    try:
        attributes = json.loads(text)["attributes"][ATTRIBUTES]
        spec = FeatureSetSpec.from_attributes(attributes)
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CorruptionError(f"{url} does not describe a feature set: {error!r}") from error
    if spec.address != address:
        raise CorruptionError(f"{url} describes {spec.address}; the folder was renamed or altered.")
    return spec


def chunk_crcs(content: SegmentContent) -> NDArray[np.uint32]:
    """crc32c of every 32-row chunk as it is stored, the last one filled up with zero rows."""
    crcs = [
        crc32c(padded(rows[first : first + CHUNK_ROWS]))
        for _, _, rows in _shards(content)
        for first in range(0, len(rows), CHUNK_ROWS)
    ]
    return np.array(crcs, dtype=np.uint32)


def padded(rows: NDArray[Any]) -> NDArray[Any]:
    """Up to 32 rows as the chunk that is stored for them."""
    if len(rows) == CHUNK_ROWS:
        return rows
    chunk = np.zeros((CHUNK_ROWS, *rows.shape[1:]), dtype=rows.dtype)
    chunk[: len(rows)] = rows
    return chunk


def write_segment(url: str, content: SegmentContent, crcs: NDArray[np.uint32]) -> None:
    """Write the four arrays of a segment; memory beyond ``content`` is a few times one shard."""
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
    with urls.plain_errors(url):
        group = zarr.create_group(zarr_store(url), attributes={ATTRIBUTES: attributes})
        for name, values in small.items():
            _create(group, name, values.shape, values.dtype, values.shape, None)[:] = values
        features = _create(
            group,
            "features",
            (layout.rows, layout.num_crops, layout.width),
            np.dtype(layout.dtype),
            (CHUNK_ROWS, layout.num_crops, layout.width),
            (layout.shard_rows, layout.num_crops, layout.width),
        )
        for first, last, rows in _shards(content):
            features[first:last] = rows


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


def _shards(content: SegmentContent) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """First row, row past the last, and rows of every shard."""
    layout = content.layout
    for first in range(0, layout.rows, layout.shard_rows):
        last = min(first + layout.shard_rows, layout.rows)
        yield first, last, _rows(content.blocks, first, last)


def _rows(blocks: tuple[NDArray[Any], ...], first: int, last: int) -> NDArray[Any]:
    """Rows ``[first, last)`` of blocks laid end to end."""
    found, offset = [], 0
    for block in blocks:
        low, high = max(first - offset, 0), min(last - offset, len(block))
        if low < high:
            found.append(block[low:high])
        offset += len(block)
    return found[0] if len(found) == 1 else np.concatenate(found)
