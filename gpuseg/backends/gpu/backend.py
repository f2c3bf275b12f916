"""The operations of the seam on a CUDA device; each imports what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuseg.backends.base import Backend, Farthest, LloydSums
from gpuseg.backends.content_order import content_order
from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.libraries import Libraries
from gpuseg.backends.gpu.memory import told_clearly
from gpuseg.backends.gpu.rows import check_residence
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.explained import Forest, ShapMeans
from gpuseg.records import Array, Assignment, KMeansFit, Progress, Table

if TYPE_CHECKING:
    import pyarrow as pa


class GpuBackend:
    """The GPU engine; see `gpuseg.backends.base.Backend` for what each operation is.

    Parameters
    ----------
    device
        Where kernels run.
    libraries
        How cuML and cuDF are called; by default the installed ones.
    streams
        Whether arrays are kept in host memory, and blocks of rows pass through the device.
        By default they are kept on the device, and `matrix` refuses what does not fit.
    """

    name: str = "gpu"

    def __init__(
        self, device: Device, libraries: Libraries | None = None, *, streams: bool = False
    ) -> None:
        self._device = device
        self._libraries = libraries or Libraries()
        self._streams = streams
        self.xp: ModuleType = np if streams else device.xp

    def in_host_memory(self) -> Backend:
        """Return the engine that keeps arrays in host memory; itself if it does."""
        return self if self._streams else GpuBackend(self._device, self._libraries, streams=True)

    def numbers(self, column: pa.ChunkedArray) -> Array:
        """Return an Arrow column of numbers as float64, (n,), NaN where there is none."""
        if self._streams:
            return NumPyBackend().numbers(column)
        from gpuseg.backends.gpu.columns import numbers

        return numbers(self._device, column)

    def read_columns(self, table: Table, names: Sequence[str]) -> Mapping[str, Array]:
        """Read columns of numbers from the files of a table, with cuDF."""
        if self._streams:
            return NumPyBackend().read_columns(table, names)
        from gpuseg.backends.gpu.reading import read_columns

        return read_columns(self._device, self._libraries, table, names)

    def codes(self, values: Array) -> Array:
        """Number different numbers in the order in which they first appear."""
        if self._streams:
            return NumPyBackend().codes(values)
        from gpuseg.backends.gpu.columns import codes

        return codes(self._device, values)

    def digest(self, values: Array) -> bytes:
        """Return bytes that are the same for arrays of the same bits, in practice only then."""
        if self._streams:
            return NumPyBackend().digest(values)
        from gpuseg.backends.gpu.columns import digest

        return digest(self._device, values)

    def row_order(self, features: Sequence[Array]) -> Array:
        """Return an order of the rows that depends on their content alone."""
        if self._streams:
            return NumPyBackend().row_order(features)
        with told_clearly(self._device, "order of rows"):
            return self.to_host(content_order(features, self.xp))

    def matrix(self, features: Sequence[Array], order: Any | None = None) -> Array:
        """Return features as an array of shape (n_samples, n_features), float32, C order."""
        if self._streams:
            return NumPyBackend().matrix(features, order)
        check_residence(self._device, features)
        with told_clearly(self._device, "matrix"):
            return self._matrix(features, order)

    def _matrix(self, features: Sequence[Array], order: Any | None) -> Array:
        rows = slice(None) if order is None else self.xp.asarray(order)
        n_samples = features[0].shape[1] if features else 0
        X = self.xp.empty((n_samples, sum(len(block) for block in features)), dtype=np.float32)
        first = 0
        for block in features:
            X[:, first : first + len(block)] = block.T[rows]
            first += len(block)
        return X

    def to_host(self, array: Array) -> Any:
        """Return the array as a NumPy array."""
        return self._device.xp.asnumpy(array)

    def from_host(self, array: Any) -> Array:
        """Return the NumPy array as an array of this backend."""
        with told_clearly(self._device, "copy to the device"):
            return self.xp.asarray(array)

    def covariance(self, X: Array) -> tuple[Array, Array]:
        """Return mean (d,) and population covariance (d, d), float64, on the host."""
        from gpuseg.backends.gpu.sums import covariance

        with told_clearly(self._device, "covariance"):
            return covariance(self._device, X)

    def project(self, X: Array, mean: Any, components: Any) -> Array:
        """Return ``(X - mean) @ components.T`` as float32, each row for itself."""
        from gpuseg.backends.gpu.projection import project

        with told_clearly(self._device, "projection"):
            return project(self._device, X, mean, components)

    def lloyd(
        self,
        X: Array,
        starts: Sequence[Any],
        *,
        max_iter: int,
        tol: float,
        progress: Progress,
    ) -> list[KMeansFit]:
        """Run k-means from each start, with cuML and then steps of our own."""
        from gpuseg.backends.gpu.lloyd import lloyd

        with told_clearly(self._device, "k-means"):
            return lloyd(
                self._device,
                self._libraries,
                X,
                starts,
                max_iter=max_iter,
                tol=tol,
                progress=progress,
            )

    def lloyd_sums(self, X: Array, many: Sequence[Any]) -> list[LloydSums]:
        """See the rows once for each set of centroids."""
        from gpuseg.backends.gpu.passes import lloyd_sums

        with told_clearly(self._device, "k-means"):
            return lloyd_sums(self._device, X, many)

    def farthest(self, X: Array, centroids: Any) -> Farthest:
        """Find the row that is farthest from its nearest centroid."""
        from gpuseg.backends.gpu.passes import farthest

        with told_clearly(self._device, "k-means"):
            return farthest(self._device, X, centroids)

    def assign(self, X: Array, centroids: Any, *, progress: Progress) -> Assignment:
        """Find the nearest and second nearest centroid of every row."""
        from gpuseg.backends.gpu.nearest import assign

        with told_clearly(self._device, "assignment"):
            return assign(self._device, X, centroids, progress=progress)

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
        from gpuseg.backends.cuda_silhouette import distance_sums

        with told_clearly(self._device, "silhouette"):
            return distance_sums(
                X, labels, n_clusters, rows=rows, progress=progress, device=self._device
            )

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
        from gpuseg.backends.gpu.forest import fit_forest

        with told_clearly(self._device, "forest"):
            return fit_forest(
                self._device,
                self._libraries,
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
        from gpuseg.backends.gpu.shap_means import shap_means

        with told_clearly(self._device, "SHAP"):
            return shap_means(
                self._device,
                self._libraries,
                forest,
                X,
                labels,
                column_of,
                n_columns,
                rows=rows,
                progress=progress,
            )
