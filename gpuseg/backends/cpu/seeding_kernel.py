"""The compiled half of k-means++: greedy choice of rows that lie far apart."""

from __future__ import annotations

import numpy as np

from gpuseg.backends.cpu.compile import jit

#: Partial sums, so that adding up a column of numbers is not one long chain.
PARTS = 256


@jit()
def grow(pool, n_rows, sequence, n_given, draws):  # type: ignore[no-untyped-def]
    """Add rows to a sequence, each the best of some candidates.

    Parameters
    ----------
    pool : array of shape (n_features, n_places), float32
        A row in each column; `n_places` is a multiple of `PARTS`.
    n_rows : int
        How many columns hold a row; the others are never chosen.
    sequence : array of shape (n_clusters, n_features), float32
        The first `n_given` are given, at least one; the others are written.
    draws : array of shape (n_clusters - n_given, n_trials), float64, in [0, 1)
        A candidate is drawn with probability proportional to its squared distance from the
        sequence so far; any row if all are 0.
    """
    nearest = np.full(pool.shape[1], np.inf, np.float32)
    nearest[n_rows:] = 0
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
            row = draw * n_rows
            if total > 0:
                row = np.searchsorted(cumulative, draw * total, side="right")
            # weights far beyond 1 can round the last draw up to the total itself
            candidate = pool[:, min(int(row), n_rows - 1)].copy()
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
    sq = np.empty(PARTS, np.float32)
    for start in range(0, pool.shape[1], PARTS):
        sq[:] = 0
        for j in range(len(row)):
            here, coordinate = pool[j, start : start + PARTS], row[j]
            for t in range(len(here)):  # a slice: of indices into `pool` no vectors are made
                sq[t] += (here[t] - coordinate) ** 2
        for t in range(PARTS):
            after[start + t] = min(before[start + t], sq[t])


@jit()
def _sum(values):  # type: ignore[no-untyped-def]
    parts = np.zeros(PARTS)
    for start in range(0, len(values), PARTS):
        part = values[start : start + PARTS]
        for t in range(len(part)):
            parts[t] += part[t]
    return parts.sum()
