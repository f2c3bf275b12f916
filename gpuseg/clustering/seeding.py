"""Where k-means starts: k-means++ sequences, drawn on the host so that all backends agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: Rows that a sequence is drawn from, at least, and per cluster. Seeds only have to fall
#: into different clusters, which a few thousand rows show as well as a million do.
SEEDING_ROWS = 4096
SEEDING_ROWS_PER_CLUSTER = 64


class Seeder:
    """Chooses rows that lie far apart, one after another (greedy k-means++).

    Each next row is the best of ``2 + log(n_clusters)`` candidates, drawn with probability
    proportional to the squared distance to what was chosen before. The first k rows of a
    sequence are themselves a k-means++ start for k clusters, so that one sequence serves
    every k of a sweep.

    Parameters
    ----------
    X : host array of shape (n_samples, n_features), finite
        The first ``max(4096, 64 * most_clusters)`` rows are used: their order has to be
        random.
    most_clusters : int
        Length of the longest sequence.
    rng : numpy.random.Generator

    References
    ----------
    Arthur, D. and Vassilvitskii, S. (2007). k-means++: the advantages of careful seeding.
    SODA. The greedy variant is named in its section 5.
    """

    def __init__(self, X: Any, most_clusters: int, rng: np.random.Generator) -> None:
        from gpuseg.backends.cpu.seeding_kernel import PARTS

        rows = X[: max(SEEDING_ROWS, SEEDING_ROWS_PER_CLUSTER * most_clusters)]
        self._n_rows = len(rows)
        self._pool = np.zeros((rows.shape[1], -(-len(rows) // PARTS) * PARTS), np.float32)
        self._pool[:, : len(rows)] = rows.T
        self._rng = rng

    def sequence(self, n_clusters: int, *, centroids: Any = None) -> Any:
        """Return a sequence.

        Parameters
        ----------
        n_clusters : int
        centroids : host array of shape (k, n_features), optional
            What the sequence begins with, instead of one row at random.

        Returns
        -------
        sequence : array of shape (n_clusters, n_features), float32
            Rows of `X` after the given centroids. Rows repeat only when there are too few
            distinct ones.
        """
        from gpuseg.backends.cpu.seeding_kernel import grow

        if centroids is None:
            centroids = self._pool[:, self._rng.integers(self._n_rows, size=1)].T
        sequence = np.empty((n_clusters, len(self._pool)), np.float32)
        sequence[: len(centroids)] = centroids
        draws = self._rng.random((n_clusters - len(centroids), 2 + int(math.log(n_clusters))))
        grow(self._pool, self._n_rows, sequence, len(centroids), draws)
        return sequence
