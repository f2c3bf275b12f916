"""What workers do with a part of the rows: small functions over the seam.

Each gets its part and what all share, and returns something small, or a part of the same
rows that stays on the worker. All of them are deterministic: a worker that is lost is
replaced by doing its tasks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gpuseg.backends.base import Farthest, LloydSums
from gpuseg.backends.content_order import repetitions, row_hashes, spread_keys
from gpuseg.clustering.kmeans import distinct_rows
from gpuseg.distributed.facts import backend_of
from gpuseg.errors import DeviceMemoryError
from gpuseg.explain.profiles import Profiles, profiles
from gpuseg.features import Encoder
from gpuseg.records import (
    Array,
    Assignment,
    ColumnDecision,
    FeatureMatrix,
    Table,
    no_progress,
)
from gpuseg.tables.pieces import Piece, read_pieces

# -- rows as features --------------------------------------------------------------------


class Encoded(NamedTuple):
    """A part of the rows as numbers, and what was turned into missing values on the way."""

    block: Array  # (n, n_encoded) float32
    warnings: tuple[str, ...]


def read(pieces: Sequence[Piece], *, schema: pa.Schema, names: Sequence[str]) -> pa.Table:
    """Read a partition."""
    return read_pieces(pieces, schema, names)


def encode(rows: pa.Table, *, encoder: Encoder, on: str, name: str) -> Encoded:
    """Encode rows as `features.encode_features` does, without a projection."""
    backend, warnings = backend_of(on), list[str]()
    features = encoder.features(backend, Table(name, rows), warn=warnings.append)
    try:
        block = backend.matrix(features)
    except DeviceMemoryError:  # then it passes through the device, block by block
        block = backend.in_host_memory().matrix([backend.to_host(part) for part in features])
    return Encoded(block, tuple(warnings))


def block_of(encoded: Encoded) -> Array:
    """Return the numbers."""
    return encoded.block


def warnings_of(encoded: Encoded) -> tuple[str, ...]:
    """Return what was said."""
    return encoded.warnings


def project(block: Array, *, mean: Any, components: Any, on: str) -> Array:
    """Project rows onto principal components."""
    return backend_of(on).project(block, mean, components)


def covariance(block: Array, *, on: str) -> tuple[int, Any, Any]:
    """Return number of rows, mean and covariance."""
    mean, covariance = backend_of(on).covariance(block)
    return len(block), mean, covariance


def extremes(block: Array) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN if there is one."""
    return float(block.min()), float(block.max())


def few_distinct(block: Array, *, at_most: int, on: str) -> Any:
    """Return the first distinct rows, on the host."""
    rows = distinct_rows(block, at_most)
    return np.stack([backend_of(on).to_host(row) for row in rows])


def take(block: Array, places: Any, *, on: str) -> Any:
    """Return some rows, on the host."""
    backend = backend_of(on)
    there = places if isinstance(block, np.ndarray) else backend.from_host(places)
    return backend.to_host(block[there])


# -- the order that depends on content alone -----------------------------------------------


class Counted(NamedTuple):
    """Different hashes of a part of the rows, sorted, and how many rows have each."""

    hashes: Any  # (m,) uint64
    counts: Any  # (m,) int64


def hashes(block: Array, *, on: str) -> Any:
    """Return a hash of each row, (n,), uint64, on the host."""
    backend = backend_of(on)
    return backend.to_host(row_hashes([backend.xp.ascontiguousarray(block.T)], backend.xp))


def counted(of_rows: Any, *, n_shares: int) -> list[Counted]:
    """Count equal hashes, and cut them by their first bits into so many shares."""
    values, counts = np.unique(of_rows, return_counts=True)
    edges = [int(share * 2**64 // n_shares) for share in range(1, n_shares)]
    cuts = np.searchsorted(values, np.array(edges, dtype=np.uint64))
    shares = zip(np.split(values, cuts), np.split(counts, cuts), strict=True)
    return [Counted(*share) for share in shares]


def pick(items: Sequence[Any], number: int) -> Any:
    """Return one of several results of a task."""
    return items[number]


def earlier(parts: Sequence[Counted]) -> list[Counted]:
    """Count for each part how often its hashes come in earlier ones; where they do."""
    values = np.concatenate([part.hashes for part in parts])
    order = np.argsort(values, kind="stable")  # equal ones stay in the order of the parts
    counts = np.concatenate([part.counts for part in parts])[order]
    before = np.cumsum(counts) - counts
    first = repetitions(values[order], np)
    before -= before[np.arange(len(order)) - first]
    result = np.empty_like(before)
    result[order] = before
    edges = np.cumsum([len(part.hashes) for part in parts])[:-1]
    return [
        Counted(part.hashes[there > 0], there[there > 0])
        for part, there in zip(parts, np.split(result, edges), strict=True)
    ]


def keys(of_rows: Any, before: Sequence[Counted]) -> Any:
    """Return what rows are ordered by, (n,), uint64; see `content_order`.

    Parameters
    ----------
    before
        How often the hashes come in earlier parts, sorted by hash.
    """
    order = np.argsort(of_rows, kind="stable")
    ordered = of_rows[order]
    repetition = repetitions(ordered, np)
    known = np.concatenate([share.hashes for share in before])
    if len(known):
        counts = np.concatenate([share.counts for share in before])
        place = np.minimum(np.searchsorted(known, ordered), len(known) - 1)
        repetition += np.where(known[place] == ordered, counts[place], 0)
    result = np.empty_like(of_rows)
    result[order] = spread_keys(ordered, repetition)
    return result


class Places(NamedTuple):
    """Rows of a part, by the order of their content."""

    keys: Any  # (m,) uint64, ascending
    places: Any  # (m,) int64, row of the part


def smallest(of_rows: Any, *, below: int) -> Places:
    """Return the rows whose key is below a limit."""
    places = np.flatnonzero(of_rows <= np.uint64(min(below, 2**64 - 1)))
    return _by_key(of_rows, places)


def _by_key(of_rows: Any, places: Any) -> Places:
    places = places[np.argsort(of_rows[places], kind="stable")]
    return Places(of_rows[places], places)


# -- clusters ------------------------------------------------------------------------------


def lloyd_sums(block: Array, *, many: Sequence[Any], on: str) -> list[LloydSums]:
    """See the rows once for each set of centroids."""
    return backend_of(on).lloyd_sums(block, many)


def add_sums(one: list[LloydSums], other: list[LloydSums]) -> list[LloydSums]:
    """Add up what was seen of two parts."""
    return [a.plus(b) for a, b in zip(one, other, strict=True)]


def farthest(block: Array, *, centroids: Any, on: str) -> Farthest:
    """Find the row that is farthest from its nearest centroid."""
    return backend_of(on).farthest(block, centroids)


def farther(one: Farthest, other: Farthest) -> Farthest:
    """Return the farther one; of equals the first."""
    return other if other.sq_distance > one.sq_distance else one


def assigned(block: Array, *, centroids: Any, on: str) -> Assignment:
    """Assign rows to centroids; all on the host."""
    backend = backend_of(on)
    found = backend.assign(block, centroids, progress=no_progress)
    return Assignment(*(backend.to_host(array) for array in found))


class Labelled(NamedTuple):
    """Labels of rows in several segmentations, and what they add up to."""

    labels: Any  # (m, n) uint8 or int32, host
    sizes: list[Any]  # for each segmentation: (k,) int64
    distances: list[Any]  # for each: sums of distances to the own centroid, (k,) float64


def labelled(block: Array, *, many: Sequence[Any], on: str) -> Labelled:
    """Label rows by each set of centroids."""
    short = all(len(centroids) < 256 for centroids in many)
    labels = np.empty((len(many), len(block)), np.uint8 if short else np.int32)
    sizes, distances = [], []
    for row, centroids in zip(labels, many, strict=True):
        found = assigned(block, centroids=centroids, on=on)
        row[:] = found.labels
        own = np.sqrt(found.sq_distances.astype(np.float64))
        sizes.append(np.bincount(found.labels, minlength=len(centroids)))
        distances.append(np.bincount(found.labels, weights=own, minlength=len(centroids)))
    return Labelled(labels, sizes, distances)


def without_labels(part: Labelled) -> Labelled:
    """Return the sums alone."""
    return part._replace(labels=None)


def add_labelled(one: Labelled, other: Labelled) -> Labelled:
    """Add up the sums of two parts."""
    return Labelled(
        None,
        [a + b for a, b in zip(one.sizes, other.sizes, strict=True)],
        [a + b for a, b in zip(one.distances, other.distances, strict=True)],
    )


def sum_of(values: Any) -> float:
    """Add up the values of a part."""
    return float(values.sum(dtype=np.float64))


def pick_labels(part: Labelled) -> Any:
    """Return the labels of the first segmentation, (n,)."""
    return part.labels[0]


def measured(block: Array, *, centroids: Any, on: str, name: str) -> Any:
    """Return one column of the assignment, on the host."""
    return getattr(assigned(block, centroids=centroids, on=on), name)


def take_rows(
    pieces: Sequence[Piece], places: Any, *, schema: pa.Schema, names: Sequence[str] | None = None
) -> pa.Table:
    """Read some rows of a partition."""
    return read_pieces(pieces, schema, names).take(pa.array(places))


def take_labels(part: Labelled, places: Any) -> Any:
    """Return the labels of some rows, (m, r)."""
    return part.labels[:, places]


def first_of_each(part: Labelled, of_rows: Any, *, n_rows: int) -> list[list[Places]]:
    """Return for each segmentation and cluster its first rows, by the order of content."""
    found = []
    for labels, sizes in zip(part.labels, part.sizes, strict=True):
        members = [np.flatnonzero(labels == cluster) for cluster in range(len(sizes))]
        found.append([_first(of_rows, places, n_rows) for places in members])
    return found


def _first(of_rows: Any, places: Any, n_rows: int) -> Places:
    if len(places) > n_rows:
        places = places[np.argpartition(of_rows[places], n_rows - 1)[:n_rows]]
    return _by_key(of_rows, places)


def sums_to_part(block: Array, part: Labelled, *, rows: Any, on: str) -> Any:
    """Sum the distances of given rows to the clusters of this part, (r, sum of k), float64.

    Parameters
    ----------
    rows : host array of shape (r, n_features), float32
        From any part. They are put before the part's own, in a cluster of their own whose
        sums are left out.
    """
    backend, xp = backend_of(on), backend_of(on).xp
    n_rows, widths = len(rows), [len(sizes) for sizes in part.sizes]
    if isinstance(block, np.ndarray):
        xp = np
    together = xp.ascontiguousarray(xp.concatenate([xp.asarray(rows), block]))
    labels = np.empty((len(widths), len(together)), np.int32)
    labels[:, n_rows:] = part.labels
    labels[:, :n_rows] = np.array(widths)[:, None]
    sums = backend.distance_sums(
        together,
        xp.asarray(labels),
        [width + 1 for width in widths],
        rows=xp.arange(n_rows),
        progress=no_progress,
    )
    ends = np.cumsum([width + 1 for width in widths])
    return np.delete(backend.to_host(sums), ends - 1, axis=1)


def sums_within(blocks: Sequence[Array], parts: Sequence[Labelled], number: int, *, on: str) -> Any:
    """Sum the distances of one part's rows to the clusters of all parts: for small tables."""
    backend, xp = backend_of(on), backend_of(on).xp
    if all(isinstance(block, np.ndarray) for block in blocks):
        xp = np
    labels = np.concatenate([part.labels for part in parts], axis=1).astype(np.int32)
    first = sum(len(block) for block in blocks[:number])
    sums = backend.distance_sums(
        xp.concatenate([xp.asarray(block) for block in blocks]),
        xp.asarray(labels),
        [len(sizes) for sizes in parts[0].sizes],
        rows=xp.arange(first, first + len(blocks[number])) if len(blocks) > 1 else None,
        progress=no_progress,
    )
    return backend.to_host(sums)


def is_done(_result: Any) -> bool:
    """Say that a task has come to its end, without bringing its result."""
    return True


def add(one: Any, other: Any) -> Any:
    """Add two arrays."""
    return one + other


# -- what is fitted column by column, on any worker -----------------------------------------


class WholeTable(NamedTuple):
    """Where a task that looks at a column finds all of its rows."""

    name: str
    pieces: tuple[Piece, ...]
    schema: pa.Schema

    def columns(self, names: Sequence[str]) -> Table:
        """Read columns."""
        return Table(self.name, read_pieces(self.pieces, self.schema, names))


def profile(
    column: str,
    parts: Sequence[Labelled],
    *,
    whole: WholeTable,
    encoder: Encoder,
    decisions: Sequence[ColumnDecision],
    n_clusters: int,
) -> Profiles:
    """Describe the clusters by one column, over all rows."""
    labels = np.concatenate([part.labels[0] for part in parts]).astype(np.int32)
    own = Encoder(tuple(c for c in encoder.columns if c.reading.column == column))
    features = FeatureMatrix(
        X=None,
        encoded=None,
        encoded_names=own.feature_names,
        columns=(column,),
        column_of=own.column_of,
        decisions=tuple(decisions),
        order=np.arange(len(labels)),
        encoder=own,
    )
    return profiles(features, whole.columns([column]), labels, n_clusters)
