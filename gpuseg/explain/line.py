"""One column of numbers on a line: its best partitions into intervals, and how good any is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: Where intervals of the distinct values begin: 0, …, n; (n_clusters + 1,), int64, ascending.
Bounds = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Line:
    """Distinct values in ascending order, and how often each one comes.

    Parameters
    ----------
    values
        (n,) float64, finite, ascending, all different.
    counts
        (n,) int64, from 1.
    x
        (2, n) float64, high and low part: the values seen from their median in units that
        make the farthest one about 1, so that no square is too small or too large.
    unit
        The size of 1 in `x`, a power of two.
    sums
        Prefix sums over `x`, see `line_kmeans.prefix_sums`.
    """

    values: Floats
    counts: npt.NDArray[np.int64]
    x: Floats
    unit: float
    sums: Any

    @classmethod
    def of(cls, values: Floats, counts: npt.NDArray[np.int64]) -> Line:
        """Prepare distinct, ascending values; there must be one at least."""
        from gpuseg.backends.cpu.line_kmeans import prefix_sums

        middle = values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]
        reach = float(max(middle - values[0], values[-1] - middle))
        unit = math.ldexp(1.0, math.frexp(reach)[1]) if reach > 0 else 1.0
        x, sums = prefix_sums(values, middle, unit, counts.astype(np.float64))
        return cls(values, counts, x, unit, sums)

    @property
    def n_rows(self) -> int:
        """Number of values, repetitions included."""
        return int(self.counts.sum())

    def partitions(self, max_clusters: int) -> list[Bounds]:
        """Return the partition with the least inertia into 1, …, `max_clusters` intervals.

        There are at most as many intervals as distinct values.

        References
        ----------
        H. Wang, M. Song, Ckmeans.1d.dp: optimal k-means clustering in one dimension by
        dynamic programming, The R Journal 3(2), 2011.
        """
        from gpuseg.backends.cpu.line_kmeans import best_starts

        n = len(self.values)
        starts = best_starts(self.sums, min(max_clusters, n))
        found = []
        for k in range(1, len(starts) + 1):
            bounds = [n]
            for row in range(k - 1, -1, -1):
                bounds.append(int(starts[row, bounds[-1]]))
            found.append(np.array(bounds[::-1], dtype=np.int64))
        return found

    def inertia(self, bounds: Bounds) -> float:
        """Return the sum of squared distances to the mean of the own interval."""
        return self._scaled_inertia(bounds) * self.unit * self.unit

    def explained(self, bounds: Bounds) -> float:
        """Return the share of the variance that lies between intervals; 1 where there is none."""
        whole = self._scaled_inertia(np.array([0, len(self.values)]))
        return 1 - self._scaled_inertia(bounds) / whole if whole > 0 else 1.0

    def silhouette(self, bounds: Bounds) -> float | None:
        """Return the exact mean silhouette of a partition; None for a single interval."""
        from gpuseg.backends.cpu.line_kmeans import mean_silhouette

        if len(bounds) <= 2:
            return None
        weights = self.counts.astype(np.float64)
        return float(mean_silhouette(self.x, weights, self.sums, bounds))

    def _scaled_inertia(self, bounds: Bounds) -> float:
        from gpuseg.backends.cpu.line_kmeans import interval_costs

        return float(interval_costs(self.sums, bounds).sum())
