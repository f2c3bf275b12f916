"""The engine that runs on any machine: NumPy, with Numba for the hot loops.

Compiled modules are imported by the operation that needs them, so that a command which
computes nothing does not pay for the compiler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from gpuseg.backends.base import Backend, Farthest, LloydSums
from gpuseg.backends.content_order import content_order
from gpuseg.backends.cpu import by_buckets
from gpuseg.backends.cpu.threads import in_threads
from gpuseg.explained import Forest, ShapMeans
from gpuseg.memory import room
from gpuseg.records import Array, Assignment, KMeansFit, Progress, Table, no_progress

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows in a block: small enough for the cache, and part of the result, because sums of
#: floats are added block by block. Never derived from the machine.
BLOCK_ROWS = 4096


class NumPyBackend:
    """The reference engine; see `gpuseg.backends.base.Backend` for what each operation is."""

    name: str = "numpy"
    xp: ModuleType = np

    def in_host_memory(self) -> Backend:
        """Return itself: its arrays are there."""
        return self

    def numbers(self, column: pa.ChunkedArray) -> Array:
        """Return an Arrow column of numbers as float64, (n,), NaN where there is none."""
        return np.asarray(column.cast("float64", safe=False).to_numpy(), dtype=np.float64)

    def read_columns(self, table: Table, names: Sequence[str]) -> Mapping[str, Array]:  # noqa: ARG002
        """Read nothing: all rows are on the host already, where this engine works."""
        return {}

    def codes(self, values: Array) -> Array:
        """Number different numbers in the order in which they first appear."""
        import pyarrow as pa

        # adding 0 makes one zero of the two
        encoded = pa.array(values + 0.0, from_pandas=True).dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return codes.astype(np.int32, copy=False)

    def digest(self, values: Array) -> bytes:
        """Return bytes that are the same for arrays of the same bits, in practice only then."""
        return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()

    def row_order(self, features: Sequence[Array]) -> Array:
        """Return an order of the rows that depends on their content alone."""
        if features and features[0].shape[1] >= by_buckets.MANY_ROWS:
            return by_buckets.content_order_by_buckets(features)
        order: Array = content_order(features, np)
        return order

    def matrix(self, features: Sequence[Array], order: Any | None = None) -> Array:
        """Return features as an array of shape (n_samples, n_features), float32, C order."""
        n_samples = features[0].shape[1] if features else 0
        if order is not None:
            if n_samples >= by_buckets.MANY_ROWS:
                return by_buckets.matrix_by_buckets(features, order)
            features = [block[:, order] for block in features]
        X = room().empty((n_samples, sum(len(block) for block in features)), np.float32)
        # block by block, so that the rows being filled stay in the cache
        for rows in _blocks(n_samples, 1024):
            first = 0
            for block in features:
                X[rows, first : first + len(block)] = block[:, rows].T
                first += len(block)
        return X

    def to_host(self, array: Array) -> Any:
        """Return the array as a NumPy array."""
        return np.asarray(array)

    def from_host(self, array: Any) -> Array:
        """Return the NumPy array as an array of this backend."""
        return np.asarray(array)

    def covariance(self, X: Array) -> tuple[Array, Array]:
        """Return mean (d,) and population covariance (d, d), float64, on the host."""
        n_samples, n_features = X.shape
        blocks = list(_blocks(n_samples))
        mean = sum((X[rows].sum(axis=0, dtype=np.float64) for rows in blocks), start=0.0)
        mean = mean / n_samples
        total = np.zeros((n_features, n_features))

        def products(rows: slice) -> Array:
            centred = X[rows] - mean
            return centred.T @ centred

        # one thread for each product: a library's own threads would change the last bits
        with threadpool_limits(limits=1, user_api="blas"):
            for part in in_threads(products, blocks):
                total += part
        return mean, total / n_samples

    def project(self, X: Array, mean: Any, components: Any) -> Array:
        """Return ``(X - mean) @ components.T`` as float32, each row for itself."""
        from gpuseg.backends.cpu.projection import project_rows

        scores = room().empty((len(X), len(components)), np.float32)
        by_feature = np.ascontiguousarray(components.T, dtype=np.float64)

        def project_block(rows: slice) -> None:
            project_rows(X[rows], mean, by_feature, scores[rows])

        for _done in in_threads(project_block, _blocks(len(X))):
            pass
        return scores

    def lloyd(
        self,
        X: Array,
        starts: Sequence[Any],
        *,
        max_iter: int,
        tol: float,
        progress: Progress,
    ) -> list[KMeansFit]:
        """Run Lloyd's iterations from each start, all runs together."""
        from gpuseg.backends.cpu.lloyd import lloyd

        return lloyd(X, starts, max_iter=max_iter, tol=tol, progress=progress)

    def lloyd_sums(self, X: Array, many: Sequence[Any]) -> list[LloydSums]:
        """See the rows once for each set of centroids."""
        from gpuseg.backends.cpu.lloyd import lloyd_sums

        return lloyd_sums(X, many)

    def farthest(self, X: Array, centroids: Any) -> Farthest:
        """Find the row that is farthest from its nearest centroid."""
        sq_distances = self.assign(X, centroids, progress=no_progress).sq_distances
        place = int(sq_distances.argmax())
        return Farthest(float(sq_distances[place]), X[place].copy())

    def assign(self, X: Array, centroids: Any, *, progress: Progress) -> Assignment:
        """Find the nearest and second nearest centroid of every row."""
        from gpuseg.backends.cpu.lloyd import assign

        return assign(X, centroids, progress=progress)

    def distance_sums(
        self,
        X: Array,
        labels: Array,
        n_clusters: Sequence[int],
        *,
        rows: Array | None,
        progress: Progress,
    ) -> Array:
        """Sum each row's Euclidean distances to every cluster of every k, in one pass."""
        from gpuseg.backends.cpu.distance_sums import distance_sums

        return distance_sums(X, labels, n_clusters, rows=rows, progress=progress)

    def forest(
        self,
        X: Array,
        labels: Array,
        n_clusters: int,
        *,
        n_trees: int,
        max_depth: int,
        max_rows: int,
        random_state: int,
        progress: Progress,
    ) -> Forest:
        """Fit a random forest that predicts the labels."""
        from gpuseg.backends.cpu.forest import fit_forest

        return fit_forest(
            X,
            labels,
            n_clusters,
            n_trees=n_trees,
            max_depth=max_depth,
            max_rows=max_rows,
            random_state=random_state,
            progress=progress,
        )

    def shap_means(
        self,
        forest: Forest,
        X: Array,
        labels: Array,
        column_of: Any,
        n_columns: int,
        *,
        rows: Array | None,
        progress: Progress,
    ) -> ShapMeans:
        """Reduce TreeSHAP values to means per cluster and original column."""
        from gpuseg.backends.cpu.treeshap import shap_means

        return shap_means(forest, X, labels, column_of, n_columns, rows=rows, progress=progress)


def _blocks(n_rows: int, length: int = BLOCK_ROWS) -> Iterator[slice]:
    return (slice(first, first + length) for first in range(0, n_rows, length))
