"""Cuts of a column that tell given segments apart best.

What a bucketing says about segments is the uncertainty coefficient (Theil, 1970): the share
of the entropy of a row's segment that is gone once its bucket is known. 0: it says nothing;
1: the bucket names the segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpuseg.explain.line import Bounds, Floats

#: Cuts are looked for between so many cells of about equally many rows.
MAX_CELLS = 300


@dataclass(frozen=True, eq=False)
class SegmentCounts:
    """How many rows of each segment lie below each distinct value.

    Parameters
    ----------
    below
        (n_distinct + 1, n_segments) int64: row i counts the rows of the first i values.
    """

    below: npt.NDArray[np.int64]

    @classmethod
    def of(cls, places: npt.NDArray[np.int64], labels: npt.NDArray[np.int32]) -> SegmentCounts:
        """Count from the place of each row's value among the distinct ones, and its segment."""
        n_values, n_segments = int(places.max()) + 1, int(labels.max()) + 1
        counts = np.bincount(places * n_segments + labels, minlength=n_values * n_segments)
        below = np.zeros((n_values + 1, n_segments), dtype=np.int64)
        np.cumsum(counts.reshape(n_values, n_segments), axis=0, out=below[1:])
        return cls(below)

    def separation(self, bounds: Bounds) -> float:
        """Return the uncertainty coefficient of the segments given intervals; 0 to 1."""
        whole = _entropies(self.below[-1:])[0]
        left = _entropies(np.diff(self.below[bounds], axis=0)).sum()
        return max(0.0, 1 - float(left) / float(whole)) if whole > 0 else 0.0

    def best_bounds(self, max_intervals: int) -> list[Bounds]:
        """Return the bounds that separate best into 1, …, `max_intervals` intervals.

        Exact where there are at most `MAX_CELLS` distinct values; else of all cuts between
        cells of about equally many rows.
        """
        edges = self._cell_edges()
        # left[i, j]: entropy, in nats times rows, within cells i to j - 1
        n = len(edges) - 1
        left = np.full((n + 1, n + 1), np.inf)
        for i in range(n):
            left[i, i + 1 :] = _entropies(self.below[edges[i + 1 :]] - self.below[edges[i]])
        best = left[0].copy()
        starts = [np.zeros(n + 1, dtype=np.int64)]
        for _ in range(1, min(max_intervals, n)):
            totals = best[:, None] + left
            starts.append(totals.argmin(axis=0))
            best = totals.min(axis=0)
        return [edges[_walk(starts, k, n)] for k in range(1, len(starts) + 1)]

    def _cell_edges(self) -> Bounds:
        n_values = len(self.below) - 1
        if n_values <= MAX_CELLS:
            return np.arange(n_values + 1)
        n_below = self.below.sum(axis=1)
        wanted = np.linspace(0, n_below[-1], MAX_CELLS + 1)
        edges = np.searchsorted(n_below, wanted)
        # on both sides of the value that crosses a line: it may be a heavy one
        return np.unique([0, *edges.tolist(), *np.maximum(edges - 1, 0).tolist(), n_values])


def _walk(starts: list[npt.NDArray[np.int64]], k: int, n: int) -> Bounds:
    bounds = [n]
    for row in range(k - 1, -1, -1):
        bounds.append(int(starts[row][bounds[-1]]))
    return np.array(bounds[::-1], dtype=np.int64)


def _entropies(counts: npt.NDArray[np.int64]) -> Floats:
    """Return rows times entropy of their segments, for each row of counts."""
    rows = counts.sum(axis=-1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    logs = np.log(shares, out=np.zeros(shares.shape), where=shares > 0)
    entropies: Floats = -(counts * logs).sum(axis=-1)
    return np.maximum(entropies, 0.0)
