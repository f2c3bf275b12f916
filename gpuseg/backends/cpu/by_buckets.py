"""Order rows by content, and put them in that order, bucket by bucket.

Sorting or gathering millions of rows at random leaves every cache, and where they lie in a
file it leaves memory. So rows are first parted, block by block and in their order, into
buckets that follow one another in the result; then each bucket is finished by itself. All
that is read and written lies in a few long runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gpuseg.backends.content_order import GOLDEN, mix
from gpuseg.backends.cpu.threads import in_threads
from gpuseg.memory import room
from gpuseg.records import Array

#: From so many rows on this is quicker than sorting all at once, which gives the same order.
MANY_ROWS = 1 << 22

#: Rows that are parted at a time, and about what a bucket holds.
BLOCK_ROWS = 1 << 18
BUCKET_ROWS = 1 << 20
BUCKET_BYTES = 64 << 20

_BITS = np.uint64(64)


def content_order_by_buckets(features: Sequence[Array]) -> Array:
    """Return the order of the rows, the very one that `content_order` gives.

    Parameters
    ----------
    features
        Arrays of shape (k, n_samples), float32; k may differ.

    Returns
    -------
    order : array of shape (n_samples,), int64
    """
    n_rows = features[0].shape[1]
    hashes = room().empty(n_rows, np.uint64)
    for _done in in_threads(lambda rows: _hash(features, rows, hashes), _blocks(n_rows)):
        pass
    spread = _spread_out(hashes)
    order, edges = _parted(spread)

    def sort(bucket: slice) -> None:
        own = order[bucket]
        keys = spread[own]
        by_key = np.argsort(keys, kind="stable")
        keys = keys[by_key]
        if (keys[1:] == keys[:-1]).any():  # as good as never
            by_key = np.lexsort((hashes[own], spread[own]))
        order[bucket] = own[by_key]

    for _done in in_threads(sort, edges):
        pass
    return order


def _hash(features: Sequence[Array], rows: slice, hashes: Array) -> None:
    """Hash some rows, as `content_order` does."""
    own = np.zeros(len(hashes[rows]), np.uint64)
    for block in features:
        for feature in block:
            own += feature[rows].view(np.uint32)
            own *= GOLDEN
            own ^= own >> np.uint64(32)
    hashes[rows] = own


def _spread_out(hashes: Array) -> Array:
    """Return what the rows are sorted by: `_spread` of all, which is that of each bucket."""
    spread = room().empty(len(hashes), np.uint64)
    rows, edges = _parted(hashes)

    def fill(bucket: slice) -> None:
        own = rows[bucket]
        spread[own] = _spread(hashes[own])

    for _done in in_threads(fill, edges):
        pass
    return spread


def _spread(hashes: Array) -> Array:
    """Give equal hashes, which stand in the order of their rows, different ones."""
    by_hash = np.argsort(hashes, kind="stable")
    ordered = hashes[by_hash]
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    repetition = np.arange(len(ordered)) - starts
    result = np.empty_like(hashes)
    result[by_hash] = mix(ordered + repetition.astype(np.uint64) * GOLDEN)
    return result


def _parted(keys: Array) -> tuple[Array, list[slice]]:
    """Part the rows by the highest bits of their keys; within a bucket their order stays.

    Returns
    -------
    rows : array of shape (n,), int64
    buckets
        Where each one's rows stand.
    """
    n_bits = max(1, min(16, (len(keys) // BUCKET_ROWS).bit_length()))
    shift, n_buckets = _BITS - np.uint64(n_bits), 1 << n_bits
    blocks = list(_blocks(len(keys)))

    def number(block: slice) -> Array:
        return (keys[block] >> shift).astype(np.uint16)

    sizes = np.zeros(n_buckets, np.int64)
    for block in blocks:
        sizes += np.bincount(number(block), minlength=n_buckets)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    rows, place = room().empty(len(keys), np.int64), edges[:-1].copy()
    for block in blocks:
        buckets = number(block)
        by_bucket = np.argsort(buckets, kind="stable")
        _append(rows, by_bucket + block.start, buckets, place)
    return rows, [slice(a, b) for a, b in itertools.pairwise(edges.tolist()) if a < b]


def _append(into: Array, sorted_values: Array, buckets: Array, place: Array) -> None:
    """Append values, sorted by bucket, to their buckets, whose next places move on."""
    counts = np.bincount(buckets, minlength=len(place))
    first = 0
    for bucket in np.flatnonzero(counts):
        count = counts[bucket]
        into[place[bucket] : place[bucket] + count] = sorted_values[first : first + count]
        first += count
    place += counts


def matrix_by_buckets(features: Sequence[Array], order: Array) -> Array:
    """Return features as a matrix whose row i is row ``order[i]`` of them.

    Parameters
    ----------
    features
        Arrays of shape (k, n_samples), float32; k may differ.
    order : array of shape (n_samples,), int64
        A permutation.

    Returns
    -------
    X : array of shape (n_samples, n_features), float32, C order
    """
    n_rows, n_features = len(order), sum(len(block) for block in features)
    place_of = room().empty(n_rows, np.uint32 if n_rows < 2**32 else np.int64)
    for block in _blocks(n_rows):
        place_of[order[block]] = np.arange(block.start, block.stop, dtype=place_of.dtype)
    X = room().empty((n_rows, n_features), np.float32)
    places = room().empty(n_rows, place_of.dtype)
    length = max(1, BUCKET_BYTES // (4 * n_features))
    starts = np.arange(0, n_rows, length)
    next_row, next_place = starts.copy(), starts.copy()
    for block in _blocks(n_rows):
        where = place_of[block]
        buckets = (where // length).astype(np.uint16 if len(starts) < 2**16 else np.int64)
        by_bucket = np.argsort(buckets, kind="stable")
        _append(X, _rows(features, block)[by_bucket], buckets, next_row)
        _append(places, where[by_bucket], buckets, next_place)

    def finish(start: int) -> None:
        bucket = slice(start, min(start + length, n_rows))
        arrived = X[bucket].copy()
        X[places[bucket].astype(np.int64)] = arrived

    for _done in in_threads(finish, starts.tolist()):
        pass
    return X


def _rows(features: Sequence[Array], block: slice) -> Array:
    """Return a block of rows as a matrix."""
    rows = np.empty((block.stop - block.start, sum(map(len, features))), np.float32)
    for start in range(0, len(rows), 1024):  # what is being filled stays in the cache
        here, first = slice(start, start + 1024), 0
        there = slice(block.start + start, min(block.start + start + 1024, block.stop))
        for columns in features:
            rows[here, first : first + len(columns)] = columns[:, there].T
            first += len(columns)
    return rows


def _blocks(n_rows: int) -> Iterator[slice]:
    return (slice(a, min(a + BLOCK_ROWS, n_rows)) for a in range(0, n_rows, BLOCK_ROWS))
