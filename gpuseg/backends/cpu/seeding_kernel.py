"""The compiled half of k-means++: greedy choice of rows that lie far apart."""

from __future__ import annotations

import numpy as np

from gpuseg.backends.cpu.compile import jit

#: Partial sums, so that adding up a column of numbers is not one long chain.
PARTS = 64


@jit()
def grow(pool, sequence, n_given, draws):  # type: ignore[no-untyped-def]
    """Add rows to a sequence, each the best of some candidates.

    Parameters
    ----------
    pool : array of shape (n_features, n_rows), float32
    sequence : array of shape (n_clusters, n_features), float32
        The first `n_given` are given, at least one; the others are written.
    draws : array of shape (n_clusters - n_given, n_trials), float64, in [0, 1)
        A candidate is drawn with probability proportional to its squared distance from the
        sequence so far; any row if all are 0.
    """
    n_rows = pool.shape[1]
    nearest = np.full(n_rows, np.inf, np.float32)
    option, best = np.empty_like(nearest), np.empty_like(nearest)
    cumulative = np.empty(n_rows)
    for given in range(n_given):
        _fold(pool, sequence[given], nearest, nearest)
    for position in range(n_given, len(sequence)):
        total = 0.0
        for row in range(n_rows):
            total += nearest[row]
            cumulative[row] = total
        least = np.inf
        for draw in draws[position - n_given]:
            row = np.searchsorted(cumulative, draw * total, side="right")
            if total == 0:
                row = np.int64(draw * n_rows)
            # weights far beyond 1 can round the last draw up to the total itself
            candidate = pool[:, min(row, n_rows - 1)].copy()
            _fold(pool, candidate, nearest, option)
            left = _sum(option)
            if left < least:
                least = left
                sequence[position] = candidate
                best, option = option, best
        nearest[:] = best


@jit()
def _fold(pool, row, before, after):  # type: ignore[no-untyped-def]
    """Write the smaller of `before` and the squared distance to `row`."""
    n_rows = pool.shape[1]
    sq = np.empty(PARTS, np.float32)
    for start in range(0, n_rows, PARTS):
        length = min(PARTS, n_rows - start)
        sq[:] = 0
        for j in range(len(row)):
            here, coordinate = pool[j, start : start + length], row[j]
            for t in range(length):
                sq[t] += (here[t] - coordinate) ** 2
        for t in range(length):
            after[start + t] = min(before[start + t], sq[t])


@jit()
def _sum(values):  # type: ignore[no-untyped-def]
    parts = np.zeros(PARTS)
    whole = len(values) // PARTS * PARTS
    for start in range(0, whole, PARTS):
        for t in range(PARTS):
            parts[t] += values[start + t]
    return parts.sum() + values[whole:].sum()
