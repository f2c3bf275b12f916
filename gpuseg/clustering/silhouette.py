"""The silhouette, for one segmentation or for a whole sweep, exact and in one pass.

The distances between rows do not depend on the number of clusters, so the sums that all
silhouettes need are gathered together: see ``Backend.distance_sums``.

References
----------
Rousseeuw (1987), "Silhouettes: a graphical aid to the interpretation and validation of
cluster analysis", Journal of Computational and Applied Mathematics 20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.backends.base import Backend
from gpuseg.clustering.estimation import Sample, estimate
from gpuseg.clustering.scores import cluster_sizes, side_by_side
from gpuseg.errors import DataError, SettingsError, ShapeError
from gpuseg.records import Array, Progress, no_progress

#: Rows whose sums are turned into silhouettes at a time, so that what is made on the way
#: stays in the cache.
CHUNK_ROWS = 1 << 13


@dataclass(frozen=True)
class SilhouetteSweep:
    """Silhouettes of several segmentations of the same rows.

    Parameters
    ----------
    scores
        Mean silhouette of each k, in [-1, 1].
    samples
        Silhouette of each scored row for each k: host array of shape (n_scored,), float64.
    stderr
        Standard error of each mean; 0.0 when every row was scored.
    """

    scores: Mapping[Any, float]
    samples: Mapping[Any, npt.NDArray[np.float64]]
    stderr: Mapping[Any, float]


class Segmentations(NamedTuple):
    """Several segmentations of the same rows.

    Parameters
    ----------
    labels : Array of shape (m, n_samples), int32, or uint8 where memory is short
    sizes
        Length m: rows of each cluster, host array of shape (n_clusters,), int64; the number
        of a cluster that is not there has size 0.
    """

    labels: Array
    sizes: tuple[npt.NDArray[np.int64], ...]

    @classmethod
    def of(cls, backend: Backend, labels: Mapping[Any, Array]) -> Segmentations:
        """Put labels, each of shape (n_samples,), side by side."""
        xp = backend.xp
        matrix = side_by_side(backend, labels.values())
        widths = [int(of_k.max()) + 1 for of_k in matrix]
        return cls(matrix, tuple(map(cluster_sizes, [xp] * len(widths), matrix, widths)))

    def clusters(self, backend: Backend, rows: npt.NDArray[np.int64] | None) -> Any:
        """Return the labels of some rows on the host, (m, r), int32; or all, as they are."""
        if rows is None:
            return backend.to_host(self.labels)
        of_rows = self.labels[:, backend.from_host(rows)]
        return backend.to_host(of_rows).astype(np.int32, copy=False)


def silhouettes(
    backend: Backend,
    X: Array,
    of: Segmentations,
    rows: npt.NDArray[np.int64] | None,
    *,
    progress: Progress = no_progress,
) -> npt.NDArray[np.float64]:
    """Return the exact silhouettes of some rows in all segmentations, in one pass.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32
    rows : host array of shape (r,), int64, or None for all
        Their distances run to all rows.

    Returns
    -------
    silhouettes : host array of shape (m, r), float64
    """
    chosen = None if rows is None else backend.from_host(rows)
    n_clusters = [len(sizes) for sizes in of.sizes]
    sums = backend.distance_sums(X, of.labels, n_clusters, rows=chosen, progress=progress)
    return silhouettes_of_sums(backend, sums, of.clusters(backend, rows), of.sizes)


def silhouettes_of_sums(
    backend: Backend,
    sums: Array,
    clusters: npt.NDArray[np.int32],
    sizes: Sequence[npt.NDArray[np.int64]],
) -> npt.NDArray[np.float64]:
    """Return silhouettes, (m, r), from what the scored rows' distances add up to.

    Parameters
    ----------
    sums : Array of shape (r, sum of the numbers of clusters), float64
        See ``Backend.distance_sums``.
    clusters : host array of shape (m, r), int
    sizes
        Length m: rows of each cluster, scored or not, (n_clusters,), int64.
    """
    values, first = np.empty(clusters.shape), 0
    for i, of_k in enumerate(sizes):
        own = sums[:, first : first + len(of_k)]
        values[i] = _silhouettes(backend, own, clusters[i], of_k)
        first += len(of_k)
    return values


def score_sweep(
    backend: Backend,
    X: Array,
    labels: Mapping[Any, Array],
    *,
    rows: npt.NDArray[np.int64] | None = None,
    progress: Progress = no_progress,
) -> SilhouetteSweep:
    """Score several segmentations in one pass over the pairs of rows.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32
    labels
        For each k, an array of shape (n_samples,), int32, in ``[0, max + 1)``; a number
        without rows is a cluster that is not there.
    rows : host array of shape (r,), int64, or None for all
        Rows to score, ascending. Their distances still run to all rows, so each
        silhouette is exact; only the mean is estimated, stratified by cluster.

    Raises
    ------
    DataError
        If no row of a cluster is among `rows`.
    """
    of = Segmentations.of(backend, labels)
    values = silhouettes(backend, X, of, rows, progress=progress)
    if rows is None or len(rows) == len(X):
        means, stderr = values.mean(axis=1), np.zeros(len(values))
    else:
        found = estimate(
            [
                Sample(own, clusters, np.ones(len(rows), bool), sizes, np.zeros(len(rows)), 0.0)
                for own, clusters, sizes in zip(
                    values, of.clusters(backend, rows), of.sizes, strict=True
                )
            ]
        )
        means, stderr = found.means, found.stderr
    return SilhouetteSweep(
        dict(zip(labels, means.tolist(), strict=True)),
        dict(zip(labels, values, strict=True)),
        dict(zip(labels, stderr.tolist(), strict=True)),
    )


def silhouette_sweep(
    X: Any, labels: Mapping[Any, Any], *, rows: Any | None = None
) -> SilhouetteSweep:
    """Score several segmentations of the same rows in one pass, on the CPU.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
    labels
        For each k (or any other key), labels of the rows: array-like of shape
        (n_samples,), of any type.
    rows : array-like of int, optional
        Score these rows only, against all rows; the means are then estimates.

    Returns
    -------
    SilhouetteSweep
        ``.scores``: {k: mean}, ``.samples``: {k: array}, ``.stderr``: {k: float}.

    Raises
    ------
    DataError
        If `X` is not finite, or a segmentation has fewer than 2 or more than
        n_samples - 1 clusters.
    ShapeError
        If lengths disagree.

    Examples
    --------
    >>> X = [[0.0], [1.0], [10.0], [11.0]]
    >>> sweep = silhouette_sweep(X, {2: [0, 0, 1, 1], 3: ["a", "a", "b", "c"]})
    >>> {k: round(score, 3) for k, score in sweep.scores.items()}
    {2: 0.9, 3: 0.447}
    """
    from gpuseg.backends.numpy import NumPyBackend

    if not hasattr(labels, "items"):
        raise ShapeError(
            f"labels are {type(labels).__name__}; expected a mapping of k to labels, such as "
            "{2: labels}"
        )
    matrix = _checked_matrix(X)
    codes = {k: _codes(of_k, len(matrix)) for k, of_k in labels.items()}
    if not codes:
        return SilhouetteSweep({}, {}, {})
    chosen = None if rows is None else _checked_rows(rows, len(matrix))
    return score_sweep(NumPyBackend(), matrix, codes, rows=chosen)


def silhouette_samples(
    X: Any, labels: Any, *, metric: str = "euclidean", **kwds: Any
) -> npt.NDArray[np.float64]:
    """Return the silhouette of each row: scikit-learn's function, exact and faster.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
    labels : array-like of shape (n_samples,)
    metric
        ``euclidean`` only.

    Returns
    -------
    samples : array of shape (n_samples,), float64
        To about 1e-7, and 1e-5 at worst: distances are float32 where that is enough.
        (b - a) / max(a, b), with a the mean distance to the other rows of the own cluster
        and b the smallest mean distance to another cluster; 0 for a cluster of one row.

    Raises
    ------
    SettingsError
        For another metric.
    DataError, ShapeError
        As `silhouette_sweep`.
    """
    _check_metric(metric, kwds)
    return silhouette_sweep(X, {"": labels}).samples[""]


def silhouette_score(
    X: Any,
    labels: Any,
    *,
    metric: str = "euclidean",
    sample_size: int | None = None,
    random_state: Any = None,
    **kwds: Any,
) -> float:
    """Return the mean silhouette: scikit-learn's function, exact and faster.

    Parameters
    ----------
    sample_size
        Score a random part of the table alone, as scikit-learn does: the other rows are
        not looked at. (`silhouette_sweep` with `rows` gives the better estimate.)
    random_state
        Seed or generator of that part.

    Raises
    ------
    SettingsError, DataError, ShapeError
        As `silhouette_samples`.
    """
    _check_metric(metric, kwds)
    matrix, of_rows = _checked_matrix(X), np.asarray(labels)
    if sample_size is not None:
        if sample_size != int(sample_size) or sample_size < 1:
            raise SettingsError(f"sample_size is {sample_size}; expected a whole number from 1")
        from sklearn.utils import check_random_state

        part = check_random_state(random_state).permutation(len(matrix))[: int(sample_size)]
        matrix, of_rows = matrix[part], of_rows[part]
    return silhouette_sweep(matrix, {"": of_rows}).scores[""]


# -- from sums to silhouettes --------------------------------------------------------


def _silhouettes(
    backend: Backend, sums: Array, own: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    xp = backend.xp
    on_device = backend.from_host(sizes)
    rows_of = xp.maximum(on_device, 1)[:, None]
    absent = xp.where(on_device > 0, 0.0, xp.inf)[:, None]
    result = np.empty(len(own), dtype=np.float64)
    for begin in range(0, len(own), CHUNK_ROWS):
        part = slice(begin, begin + CHUNK_ROWS)
        cluster = backend.from_host(own[part])
        here = xp.arange(len(cluster))
        mean = xp.ascontiguousarray(sums[part].T)
        others = on_device[cluster] - 1
        a = mean[cluster, here] / xp.maximum(others, 1)
        mean = mean / rows_of + absent
        mean[cluster, here] = xp.inf
        b = mean.min(axis=0)
        b = xp.where(xp.isfinite(b), b, a)  # a stored model may find all rows in one cluster
        larger = xp.maximum(a, b)
        # all distances 0 (only duplicates around) says nothing: 0, as for a single row
        says = (others > 0) & (larger > 0)
        values = xp.where(says, (b - a) / xp.where(says, larger, 1.0), 0.0)
        result[part] = backend.to_host(values)
    return result


# -- what the public functions accept ------------------------------------------------


def _checked_matrix(X: Any) -> npt.NDArray[Any]:
    matrix = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ShapeError(f"X has shape {matrix.shape}; expected (n_samples, n_features), not 0")
    if matrix.dtype.kind == "c":
        raise DataError("X holds complex numbers; distances between rows need real ones")
    if matrix.dtype not in (np.float32, np.float64):
        try:
            matrix = matrix.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"X is of type {matrix.dtype}; numbers were expected") from error
    if not np.isfinite(matrix).all():
        raise DataError("X holds NaN or infinity; fill or drop such rows first")
    return matrix


def _codes(labels: Any, n_samples: int) -> npt.NDArray[np.int32]:
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:  # a column of a table
        values = values[:, 0]
    if values.ndim != 1 or len(values) != n_samples:
        raise ShapeError(f"labels have shape {values.shape}; expected ({n_samples},), one per row")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("labels hold NaN or infinity; every row needs a cluster")
    try:
        names, codes = np.unique(values, return_inverse=True)
    except TypeError as error:
        raise DataError(f"labels cannot be compared with each other: {error}") from error
    if not 2 <= len(names) <= n_samples - 1:
        raise DataError(
            f"Number of labels is {len(names)}. Valid values are 2 to n_samples - 1 (inclusive), "
            f"here {n_samples - 1}"
        )
    return codes.astype(np.int32)


def _checked_rows(rows: Any, n_samples: int) -> npt.NDArray[np.int64]:
    chosen = np.unique(np.asarray(rows, dtype=np.int64))
    if len(chosen) == 0 or chosen[0] < 0 or chosen[-1] >= n_samples:
        raise ShapeError(f"rows must be some of 0 to {n_samples - 1}")
    return chosen


def _check_metric(metric: str, options: Mapping[str, Any]) -> None:
    if metric == "precomputed":
        raise SettingsError(
            "gpuseg's silhouette computes the distances itself and keeps none; pass the rows "
            "(for metric='precomputed' use scikit-learn's)"
        )
    if metric != "euclidean" or options:
        asked = f"metric='{metric}'" if metric != "euclidean" else f"{next(iter(options))}"
        raise SettingsError(
            f"gpuseg's silhouette is Euclidean; {asked} is not supported (use scikit-learn's)"
        )
