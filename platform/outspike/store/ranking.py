"""Strings as integers of the same order: a million names sort as numbers, not as objects."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Codes = NDArray[np.int64]

_WORD = 8
#: Names are padded to the longest; beyond this many bytes that would take too much memory.
_MOST_PADDED = 256


def distinct(column: pa.ChunkedArray) -> tuple[pa.Array, Codes]:
    """The different strings of a column, and which of them each row has."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):  # more text than one array of 32-bit offsets holds
        encoded = encoded.unify_dictionaries().combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return encoded.dictionary, codes.astype(np.int64)


def ranks_of_few(column: pa.ChunkedArray) -> Codes:
    """Integers from 0 without gaps that compare like the strings of a column.

    Quick where few of them differ: finds those in a hash table, and sorts them.
    """
    if is_constant(column):
        return np.zeros(len(column), dtype=np.int64)
    words, codes = distinct(column)
    rank: Codes = pc.rank(words, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    return rank[codes]


def ranks_of_many(column: pa.ChunkedArray) -> Codes:
    """The same, quick where most of them differ: a hash table of a million misses the caches.

    Strings are padded with zeros to whole words of eight bytes, which compare as big-endian
    integers like their bytes do.
    """
    text = column.combine_chunks()
    if isinstance(text, pa.ChunkedArray) or not _may_be_padded(text):
        return ranks_of_few(column)
    width = -(-pc.max(pc.binary_length(text)).as_py() // _WORD)
    padded = pc.ascii_rpad(text, width=width * _WORD, padding="\0")
    table = np.frombuffer(padded.buffers()[2], dtype=">u8", count=len(text) * width)
    ranks: Codes | None = None
    for column_of_words in table.reshape(len(text), width).T:
        word = column_of_words.astype(np.uint64)
        if (word != word[0]).any():
            ranks = dense(word) if ranks is None else dense(combined([ranks, dense(word)]))
            if ranks.max() + 1 == len(ranks):
                break  # all differ: what follows decides nothing
    return np.zeros(len(text), dtype=np.int64) if ranks is None else ranks


def combined(codes: Sequence[Codes]) -> Codes:
    """One integer a row that compares like the rows of several columns, none of them negative."""
    total: Codes = np.zeros(len(codes[0]), dtype=np.int64)
    span = 1
    for code in codes if len(total) else ():
        size = int(code.max()) + 1
        if size == 1:
            continue
        if span * size >= 1 << 63:
            total = dense(total)
            span = int(total.max()) + 1
        total = total * size + code
        span *= size
    return total


def is_constant(column: pa.ChunkedArray) -> bool:
    """Whether all strings of a column are the same one; quick where they are not."""
    if not len(column):
        return True
    first = column[0]
    return bool(column[-1].equals(first) and pc.all(pc.equal(column, first)).as_py())


def dense(values: NDArray[np.int64] | NDArray[np.uint64]) -> Codes:
    """Integers from 0 without gaps that compare like ``values``."""
    order = np.argsort(values)
    ordered = values[order]
    changes = np.zeros(len(values), dtype=np.int64)
    changes[1:] = ordered[1:] != ordered[:-1]
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.cumsum(changes)
    return ranks


def _may_be_padded(text: pa.Array) -> bool:
    """Whether strings are short, and hold no zero, which padding consists of."""
    if not len(text) or pc.max(pc.binary_length(text)).as_py() > _MOST_PADDED:
        return False
    _, offsets, data = text.buffers()
    first, last = np.frombuffer(offsets, dtype=np.int32)[[text.offset, text.offset + len(text)]]
    return bool(first < last and np.frombuffer(data, dtype=np.uint8)[first:last].all())
