"""Where the search for good runs looks next: starts made from what other k have found.

A run of k-means ends in the nearest local optimum. Two kinds of change lead out of it: the
centroids of a larger k with some merged, and those of a smaller k with some added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpuseg.clustering.seeding import Seeder

#: Which merge is taken where not the cheapest: ranks 1, 2, 3, … with probabilities that
#: fall by this factor.
RANK_DECAY = 0.6

#: How much larger a k may be that another one takes clusters from: each of them is a merge.
FARTHEST = 8


class Centres(NamedTuple):
    """Centroids and the rows of each cluster; host arrays."""

    centroids: Any  # (k, n_features) float32
    sizes: Any  # (k,) int64


def propose(
    best: Mapping[int, Centres], seeder: Seeder, rng: np.random.Generator
) -> dict[int, list[Any]]:
    """Return new starts for each k.

    Parameters
    ----------
    best
        The best run of each k so far.

    Returns
    -------
    dict of int to list of arrays of shape (k, n_features), float32
        From k - 1 by adding a centroid, from k by merging two and adding one, from k + 1 by
        merging two, from a larger k by merging more: once with the cheapest merge, once
        with another one.
    """
    cheapest = {k: merged(own, k - 1) for k, own in best.items() if k > 1}
    starts = {}
    for k, own in best.items():
        fewer = [best[k - 1].centroids] if k - 1 in best else []
        if k > 1:
            fewer += [cheapest[k], merged(own, k - 1, rank=_rank(rng))]
        starts[k] = [seeder.sequence(k, centroids=centroids) for centroids in fewer]
        if k + 1 in best:
            starts[k] += [cheapest[k + 1], merged(best[k + 1], k, rank=_rank(rng))]
        beyond = [larger for larger in best if k + 1 < larger <= k + FARTHEST]
        if beyond:
            source = best[beyond[rng.integers(len(beyond))]]
            starts[k].append(merged(source, k, rank=_rank(rng) - 1))
    return starts


def merged(centres: Centres, n_clusters: int, *, rank: int = 0) -> Any:
    """Merge pairs of clusters until `n_clusters` are left, each time the cheapest pair.

    Parameters
    ----------
    rank
        How many cheaper pairs the first merge passes over.

    Returns
    -------
    centroids : array of shape (n_clusters, n_features), float32

    Notes
    -----
    Merging clusters of n and m rows whose centroids are at distance r raises the inertia by
    ``n m / (n + m) r**2``.

    References
    ----------
    Ward, J. H. (1963). Hierarchical grouping to optimize an objective function. Journal of
    the American Statistical Association 58.
    """
    centroids = centres.centroids.astype(np.float64)
    sizes = centres.sizes.astype(np.float64)
    while len(sizes) > n_clusters:
        i, j = _pair_to_merge(centroids, sizes, rank)
        rank = 0
        together = sizes[i] + sizes[j]
        if together > 0:
            centroids[i] += sizes[j] / together * (centroids[j] - centroids[i])
        sizes[i] = together
        centroids, sizes = np.delete(centroids, j, axis=0), np.delete(sizes, j)
    return centroids.astype(np.float32)


def _pair_to_merge(centroids: Any, sizes: Any, rank: int) -> tuple[int, int]:
    """Return the pair, the smaller number first, that `rank` pairs are cheaper than."""
    n_clusters = len(sizes)
    differences = centroids[:, None] - centroids
    sq_distances = (differences**2).sum(axis=2)
    costs = sizes[:, None] * sizes / np.maximum(sizes[:, None] + sizes, 1.0) * sq_distances
    costs[np.tri(n_clusters, dtype=bool)] = np.inf
    n_pairs = n_clusters * (n_clusters - 1) // 2
    pair = np.argsort(costs, axis=None, kind="stable")[min(rank, n_pairs - 1)]
    i, j = divmod(int(pair), n_clusters)
    return i, j


def _rank(rng: np.random.Generator) -> int:
    return int(rng.geometric(1 - RANK_DECAY))
