"""The seam: the few coarse operations that NumPy and the GPU each do their own way.

Everything above this file is written once. Every operation has one contract test
(``tests/contracts``) which all backends pass, compared with an oracle that imports
nothing from gpuseg. Random numbers are drawn on the host, above the seam, so that
all backends start alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gpuseg.explained import Forest, ShapMeans
from gpuseg.records import Array, Assignment, KMeansFit, Progress, Table

if TYPE_CHECKING:
    import pyarrow as pa


class LloydSums(NamedTuple):
    """What one step of k-means sees of some rows: enough to move the centroids. On the host."""

    sums: Array  # (n_clusters, n_features) float64, of the rows nearest to each centroid
    counts: Array  # (n_clusters,) int64
    inertia: float  # sum of squared distances to the nearest centroid, float64

    def plus(self, other: LloydSums) -> LloydSums:
        """Add what was seen of other rows."""
        return LloydSums(
            self.sums + other.sums, self.counts + other.counts, self.inertia + other.inertia
        )


class Farthest(NamedTuple):
    """The row that is farthest from its nearest centroid. On the host."""

    sq_distance: float
    row: Array  # (n_features,) float32


class Backend(Protocol):
    """What an engine must be able to do.

    Arrays named `X` have shape (n_samples, n_features), float32, C order, finite, and
    live where the backend lives. ``xp`` is the array library of that place.
    """

    name: str
    xp: ModuleType

    def in_host_memory(self) -> Backend:
        """Return the engine that keeps its arrays in host memory; itself if it does.

        A GPU lets blocks of rows pass through the device then: for tables that it cannot hold.
        """

    def numbers(self, column: pa.ChunkedArray) -> Array:
        """Return an Arrow column of numbers as float64, (n,), NaN where there is none.

        Parameters
        ----------
        column
            Whole numbers, floats or decimals; each is rounded once, to the nearest float64.
        """

    def read_columns(self, table: Table, names: Sequence[str]) -> Mapping[str, Array]:
        """Read columns of numbers from the files of a table, past the host.

        Parameters
        ----------
        names
            Columns whose numbers will be asked for.

        Returns
        -------
        columns
            Of those names that the backend can read to the very bits which `numbers` gives
            for the table's rows: what that is. It may be empty.
        """

    def codes(self, values: Array) -> Array:
        """Number different numbers in the order in which they first appear.

        Parameters
        ----------
        values : Array of shape (n,), float64

        Returns
        -------
        codes : Array of shape (n,), int32
            Equal for equal numbers; -1 for NaN.
        """

    def digest(self, values: Array) -> bytes:
        """Return bytes that are the same for arrays of the same bits, in practice only then.

        Parameters
        ----------
        values : Array of shape (n,), of numbers or bool
        """

    def row_order(self, features: Sequence[Array]) -> Array:
        """Return an order of the rows that depends on their content alone.

        Parameters
        ----------
        features
            Arrays of shape (k, n_samples), float32, finite; k may differ.

        Returns
        -------
        order : host array of shape (n_samples,), int64
            A permutation that sorts the rows by a hash of their values, so that it looks
            random. Equal rows are spread as if they were different, so that the first
            rows are a fair sample also of a table with many repetitions.
        """

    def matrix(self, features: Sequence[Array], order: Any | None = None) -> Array:
        """Return features as an array of shape (n_samples, n_features), float32, C order.

        Parameters
        ----------
        features
            Arrays of shape (k, n_samples), float32; k may differ.
        order : host array of shape (n_samples,), int64, optional
            A permutation: row i of the result is row ``order[i]`` of the features.

        Raises
        ------
        DeviceMemoryError
            If rows of this size cannot stay where the backend lives for a whole run. Then
            `in_host_memory` can do it.
        """

    def to_host(self, array: Array) -> Any:
        """Return the array as a NumPy array; what is on the host already stays as it is."""

    def from_host(self, array: Any) -> Array:
        """Return the NumPy array as an array of this backend."""

    def covariance(self, X: Array) -> tuple[Array, Array]:
        """Return mean (d,) and population covariance (d, d), float64, on the host."""

    def project(self, X: Array, mean: Any, components: Any) -> Array:
        """Return ``(X - mean) @ components.T`` as float32.

        The result of a row does not depend on which other rows are in `X`.
        """

    def lloyd(
        self,
        X: Array,
        starts: Sequence[Any],
        *,
        max_iter: int,
        tol: float,
        progress: Progress,
    ) -> list[KMeansFit]:
        """Run Lloyd's iterations from each start, all runs together.

        Parameters
        ----------
        starts
            Host arrays of shape (k, d), float32, one for each run; k may differ.
        tol
            A run stops when its squared centroid shift, summed over centroids, is at most
            `tol` times the mean variance of the features, or when no label changes.

        Notes
        -----
        An empty cluster takes the row that is farthest from its centroid. Labels are
        those of the returned centroids, which may lie on either side: see `to_host`.
        Results do not depend on the number of threads.
        """

    def lloyd_sums(self, X: Array, many: Sequence[Any]) -> list[LloydSums]:
        """See the rows once for each set of centroids: one step of `lloyd`, on a part of rows.

        What is seen of several parts adds up to what is seen of all rows.

        Parameters
        ----------
        many
            Host arrays of shape (k, d), float32; k may differ. A cluster may stay empty.
        """

    def farthest(self, X: Array, centroids: Any) -> Farthest:
        """Find the row that is farthest from its nearest centroid; of equals the first."""

    def assign(self, X: Array, centroids: Any, *, progress: Progress) -> Assignment:
        """Find the nearest and second nearest centroid of every row.

        The result of a row does not depend on which other rows are in `X`, nor on the
        backend: a model gives a row the same cluster everywhere.

        Parameters
        ----------
        centroids : Array of shape (k, d), float32, on the host or where the backend lives
        """

    def distance_sums(
        self,
        X: Array,
        labels: Array,
        n_clusters: Sequence[int],
        *,
        rows: Array | None,
        progress: Progress,
    ) -> Array:
        """Sum each row's Euclidean distances to every cluster of every k, in one pass.

        Parameters
        ----------
        labels : Array of shape (m, n_samples), int32
            Labels of m segmentations, each in ``[0, n_clusters[i])``.
        rows : Array of shape (r,), int64, or None for all rows
            Rows whose sums are wanted; the sums still run over all rows.

        Returns
        -------
        sums : Array of shape (r, sum(n_clusters)), float64
            The columns of segmentation i follow those of i - 1.
        """

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
        """Fit a random forest that predicts the labels; rows beyond `max_rows` are left out.

        Only `shap_means` of the same backend can explain its trees.
        """

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
        """Reduce path-dependent TreeSHAP values to means per cluster and original column.

        Parameters
        ----------
        column_of : host array of shape (n_encoded,), int32
            Original column of each encoded feature. The SHAP value of a column is the sum
            over its encoded features, taken row by row before the absolute value.
        rows : Array of shape (r,), int64, or None for all rows
            Rows to explain, stratified by cluster.
        """
