"""Looks at a part of the rows that bring a few numbers home; they run on workers, like `steps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuseg.clustering.screen import rough_silhouettes
from gpuseg.distributed.steps import assigned, take
from gpuseg.records import Array


class Screened(NamedTuple):
    """Rough silhouettes of a part; see `clustering.screen`."""

    totals: Any  # (m,) float64, over all rows
    values: Any  # (m, r) float64, of the rows that were asked for


def screens(
    block: Array, places: Any, *, many: Sequence[Any], spreads: Sequence[Any], on: str
) -> Screened:
    """Look at all rows in every segmentation, block by block."""
    totals, values = np.zeros(len(many)), np.empty((len(many), len(places)))
    for i, (centroids, of_k) in enumerate(zip(many, spreads, strict=True)):
        rough = rough_silhouettes(assigned(block, centroids=centroids, on=on), of_k)
        totals[i], values[i] = rough.sum(), rough[places]
    return Screened(totals, values)


def group_sums(block: Array, groups: Any, *, n_groups: int, on: str) -> Any:
    """Add up the rows of each group, (n_groups, d), float64, on the host.

    Parameters
    ----------
    groups : host array of shape (n,), int
        Group of each row; -1 for rows of none.
    """
    sums = np.zeros((n_groups, block.shape[1]))
    for group in np.unique(groups[groups >= 0]).tolist():
        own = take(block, np.flatnonzero(groups == group), on=on)
        sums[group] = own.sum(axis=0, dtype=np.float64)
    return sums


#: Distances are told apart to so many bits: within a share of 2**-7 of themselves.
_REACH_BITS = 15


def distance_counts(block: Array, *, centroids: Any, on: str) -> Any:
    """Count each cluster's rows by how far they are from its centroid, (k, 2**15), int64.

    Positive float32 numbers are in the order of their bits, of which the first ones suffice.
    """
    found = assigned(block, centroids=centroids, on=on)
    bins = np.sqrt(found.sq_distances).astype(np.float32).view(np.uint32) >> (31 - _REACH_BITS)
    cells = found.labels.astype(np.int64) << _REACH_BITS | bins
    n_cells = len(centroids) << _REACH_BITS
    return np.bincount(cells, minlength=n_cells).reshape(len(centroids), -1)


def reach_of_counts(counts: Any, share: float) -> list[float]:
    """Return the distance within which that share of each cluster's rows is, rounded up."""
    reach = []
    for of_cluster in counts:
        total = np.cumsum(of_cluster)
        if not total[-1]:
            reach.append(0.0)
            continue
        last = int(np.searchsorted(total, share * total[-1]))
        end = np.array([(last + 1) << (31 - _REACH_BITS)], np.uint32).view(np.float32)
        reach.append(float(end[0]) if np.isfinite(end[0]) else float(np.finfo(np.float32).max))
    return reach
