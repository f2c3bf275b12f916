"""KSweep: the sweep over k as a scikit-learn estimator."""

from __future__ import annotations

import math
import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.kmeans import count_distinct_rows, sweep_kmeans
from gpuseg.clustering.silhouette import silhouette_sweep
from gpuseg.errors import DataError, SettingsError
from gpuseg.records import Array, no_progress


class KSweep(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    ClusterMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """k-means with the number of clusters that has the highest mean silhouette.

    Every k from `min_clusters` to `max_clusters` is fitted and scored in one job. The
    columns are taken as they are: scale them first if their units differ.

    Parameters
    ----------
    min_clusters, max_clusters : int, default 2 and 9
        Both are tried. Cut, with a warning, where the data cannot fill so many clusters.
    n_clusters : int, optional
        Fit this k alone. 1 is possible, and has no silhouette (nan).
    n_init : int, default 10
        k-means++ restarts of each k.
    max_iter : int, default 300
        Iterations of a single run.
    tol : float, default 1e-4
        A run stops when its squared centroid shift is at most `tol` times the mean
        variance of the features.
    sample_size : int, optional
        Rows whose silhouette is computed, each against all rows. All of them by default,
        which takes time proportional to the squared number of rows.
    random_state : int, RandomState or None, default 0
        Equal integers give equal results, on any number of threads.

    Attributes
    ----------
    n_clusters_ : int
    labels_ : array of shape (n_samples,), int32
    cluster_centers_ : array of shape (n_clusters_, n_features), type of `X`
    inertia_ : float
        Sum of squared distances of the rows to their centres.
    n_iter_ : int
    silhouette_ : float
        Mean Euclidean silhouette of `labels_`.
    silhouette_scores_ : dict of int to float
        Of every k that was tried. Ties go to the smaller k.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0], [1.1], [5.0], [5.1], [9.0], [9.1]])
    >>> KSweep(max_clusters=4).fit(X).n_clusters_
    3
    """

    def __init__(
        self,
        min_clusters: int = 2,
        max_clusters: int = 9,
        *,
        n_clusters: int | None = None,
        n_init: int = 10,
        max_iter: int = 300,
        tol: float = 1e-4,
        sample_size: int | None = None,
        random_state: Any = 0,
    ) -> None:
        self.min_clusters = min_clusters
        self.max_clusters = max_clusters
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.sample_size = sample_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Fit every k and keep the best.

        Parameters
        ----------
        X : array of shape (n_samples, n_features), finite
        y : ignored

        Raises
        ------
        DataError
            If the rows cannot make the clusters that were asked for.
        SettingsError
            If a parameter is out of range.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        rng = check_random_state(self.random_state)
        shuffled = rng.permutation(len(X))
        self._scale, self._centre = _frame(X)
        rows = self._to_rows(X)[shuffled]
        fits = sweep_kmeans(
            NumPyBackend(),
            rows,
            self._k_values(rows),
            n_init=self.n_init,
            random_state=int(rng.randint(2**31 - 1)),
            max_iter=self.max_iter,
            tol=self.tol,
        )
        self.silhouette_scores_ = self._scores(rows, {k: fits[k].fit.labels for k in fits})
        # max keeps the first of equals, which is the smallest k
        self.n_clusters_ = max(self.silhouette_scores_, key=self.silhouette_scores_.__getitem__)
        self.silhouette_ = self.silhouette_scores_[self.n_clusters_]
        best = fits[self.n_clusters_].fit
        self._centroids = best.centroids
        self.labels_ = np.empty(len(X), np.int32)
        self.labels_[shuffled] = best.labels
        self.cluster_centers_ = ((best.centroids + self._centre) * self._scale).astype(X.dtype)
        self.inertia_ = best.inertia * self._scale * self._scale
        self.n_iter_ = best.n_iter
        return self

    def predict(self, X: Any) -> Array:
        """Return the nearest cluster of each row; on the rows of `fit`, exactly `labels_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        found = NumPyBackend().assign(self._to_rows(X), self._centroids, progress=no_progress)
        return found.labels

    def transform(self, X: Any) -> Array:
        """Return the Euclidean distances to all centres, of shape (n_samples, n_clusters_)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        rows, backend = self._to_rows(X), NumPyBackend()
        distances = np.empty((len(X), self.n_clusters_), X.dtype)
        for c in range(self.n_clusters_):
            found = backend.assign(rows, self._centroids[c : c + 1], progress=no_progress)
            distances[:, c] = np.sqrt(found.sq_distances) * self._scale
        return distances

    def _to_rows(self, X: Any) -> Any:
        """Return the rows, centred and scaled, as float32."""
        return np.ascontiguousarray(X / self._scale - self._centre, np.float32)

    def _k_values(self, rows: Any) -> list[int]:
        """Return the k to try, as far as the rows can fill them."""
        if self.n_clusters is not None:
            asked, least = (self.n_clusters, self.n_clusters), 1
        else:
            asked, least = (self.min_clusters, self.max_clusters), 2
        if not least <= asked[0] <= asked[1]:
            raise SettingsError(
                f"clusters are asked for from {asked[0]} to {asked[1]}; "
                f"expected at least {least}, and the minimum not above the maximum"
            )
        possible = min(count_distinct_rows(rows, asked[1]), len(rows) - 1)
        if possible < asked[0]:
            raise DataError(
                f"{asked[0]} clusters need as many distinct rows and one row more; "
                f"X has n_samples = {len(rows)}, enough for at most {possible}"
            )
        if possible < asked[1]:
            warnings.warn(
                f"only up to {possible} clusters can be filled; {asked[1]} were asked for",
                stacklevel=3,
            )
        return list(range(asked[0], possible + 1))

    def _scores(self, rows: Any, labels: dict[int, Array]) -> dict[int, float]:
        """Return the mean silhouette of every k."""
        if list(labels) == [1]:
            return {1: math.nan}
        scored = None if self.sample_size is None else np.arange(min(len(rows), self.sample_size))
        scores = silhouette_sweep(rows, labels, rows=scored).scores
        return {k: float(scores[k]) for k in labels}

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`."""
        return int(self.n_clusters_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _frame(X: Any) -> tuple[float, Any]:
    """Return a power of two above all values, and the mean of the scaled columns.

    In this frame float32 neither overflows nor loses digits to a common offset.
    """
    _, exponent = np.frexp(float(np.abs(X).max()))
    scale = float(np.ldexp(1.0, int(min(exponent, 1023))))
    return scale, (X / scale).mean(axis=0, dtype=np.float64)
