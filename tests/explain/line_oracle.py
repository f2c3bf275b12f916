"""Partitions of a line, slow and exact: rational numbers, every start tried."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise


def inertia(values, bounds):
    """Return the sum of squared deviations from the means of intervals, as a fraction."""
    total = Fraction(0)
    for first, end in pairwise(bounds):
        part = [Fraction(value) for value in values[first:end]]
        mean = sum(part) / len(part)
        total += sum((value - mean) ** 2 for value in part)
    return total


def least_inertia(values, k):
    """Return the least inertia of k intervals of sorted values: O(k n²) steps."""
    n = len(values)
    cost = {(i, j): inertia(values, [i, j]) for i in range(n) for j in range(i + 1, n + 1)}
    best = [None, *(cost[0, j] for j in range(1, n + 1))]
    for _ in range(1, k):
        best = [
            min(
                (best[i] + cost[i, j] for i in range(j) if best[i] is not None),
                default=None,
            )
            for j in range(n + 1)
        ]
    return best[n]


def partitions(n, k):
    """Yield the bounds of every partition of n values into k intervals."""
    for inner in combinations(range(1, n), k - 1):
        yield [0, *inner, n]
