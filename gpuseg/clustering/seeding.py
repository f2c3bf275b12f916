"""Where k-means starts: k-means++ sequences, drawn on the host so that all backends agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: Rows that a sequence is drawn from, at least, and per cluster. Seeds only have to fall
#: into different clusters, which a few thousand rows show as well as a million do.
SEEDING_ROWS = 4096
SEEDING_ROWS_PER_CLUSTER = 64


def kmeans_plus_plus(
    X: Any, n_clusters: int, rng: np.random.Generator, *, centroids: Any = None
) -> Any:
    """Choose rows that lie far apart, one after another (greedy k-means++).

    Each next row is the best of ``2 + log(n_clusters)`` candidates, drawn with probability
    proportional to the squared distance to what was chosen before. The first k rows of the
    result are themselves a k-means++ start for k clusters, so that one sequence serves
    every k of a sweep.

    Parameters
    ----------
    X : host array of shape (n_samples, n_features), finite
        The first ``max(4096, 64 * n_clusters)`` rows are used: their order has to be random.
    n_clusters : int
    rng : numpy.random.Generator
    centroids : host array of shape (k, n_features), optional
        What the sequence begins with, instead of one row at random.

    Returns
    -------
    sequence : array of shape (n_clusters, n_features), float32
        Rows of `X` after the given centroids. Rows repeat only when there are too few
        distinct ones.

    References
    ----------
    Arthur, D. and Vassilvitskii, S. (2007). k-means++: the advantages of careful seeding.
    SODA. The greedy variant is named in its section 5.
    """
    n_pool = max(SEEDING_ROWS, SEEDING_ROWS_PER_CLUSTER * n_clusters)
    pool = np.ascontiguousarray(np.asarray(X[:n_pool], np.float32).T)
    n_trials = 2 + int(math.log(n_clusters))
    if centroids is None:
        centroids = pool[:, rng.integers(pool.shape[1], size=1)].T
    sequence = list(centroids)
    sq_distances = np.min([_sq_distances(pool, c) for c in sequence], axis=0)
    while len(sequence) < n_clusters:
        candidates = pool[:, _draw(sq_distances, n_trials, rng)].T
        options = [np.minimum(sq_distances, _sq_distances(pool, row)) for row in candidates]
        best = int(np.argmin([option.sum() for option in options]))
        sequence.append(candidates[best])
        sq_distances = options[best]
    return np.stack(sequence)


def _sq_distances(pool: Any, row: Any) -> Any:
    """Squared distances of the columns of `pool` to a row, without a threaded product."""
    differences = pool - row[:, None]
    np.square(differences, out=differences)
    return differences.sum(axis=0)


def _draw(weights: Any, n_draws: int, rng: np.random.Generator) -> Any:
    """Draw indices with probability proportional to the weights; any index if all are 0."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    if cumulative[-1] == 0:
        return rng.integers(len(weights), size=n_draws)
    # Weights far beyond 1 can round the last draw up to the total itself.
    draws = np.searchsorted(cumulative, rng.random(n_draws) * cumulative[-1], side="right")
    return np.minimum(draws, len(weights) - 1)
