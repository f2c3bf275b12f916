"""Exact k-means on a line: the best partition of sorted values, and its silhouette.

On a line, clusters are intervals, so the best k of them follow from the best k - 1 of every
prefix (Wang and Song, Ckmeans.1d.dp, The R Journal 3(2), 2011). The cost of an interval comes
from prefix sums of w, w·x and w·x². A difference of such sums loses the digits that they have
in common, all of them where one far value stands beside many near ones; so each sum is two
float64, of which the second holds what the first has rounded away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from gpuseg.backends.cpu.compile import jit

#: Starts that are tried before the least is looked for: costs are computed four at a time,
#: a minimum only one by one.
_TRIED = 256


def _fma(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once, which shows what ``a * b`` alone has lost."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, b, c), generate


# Annotated, because mypy takes a call of an intrinsic for a call of the function above.
fma: Any = intrinsic(_fma)


@jit(inline="always")
def _difference(a, b, a_low, b_low):  # type: ignore[no-untyped-def]
    """Subtract two sums: the difference and what it has lost (Knuth's TwoSum)."""
    high = a - b
    taken = high - a
    return high, (a - (high - taken)) + (-b - taken) + (a_low - b_low)


@jit()
def prefix_sums(values, middle, unit, weights):  # type: ignore[no-untyped-def]
    """Centre and scale values, and add up weights, w·x and w·x².

    Parameters
    ----------
    values : array of shape (n,), float64
    middle, unit : float
        x is ``(value - middle) / unit``, at most about 1 in size; `unit` is a power of two.
    weights : array of shape (n,), float64, whole numbers from 1

    Returns
    -------
    x : array of shape (2, n), float64
        High and low part: a value near 0 would lose its digits to a distant middle.
    sums : array of shape (5, n + 1), float64
        W, then high and low part of Σw·x, then those of Σw·x²; column 0 is 0.
    """
    x, sums = np.empty((2, len(values))), np.zeros((5, len(values) + 1))
    for i in range(len(values)):
        high, low = _difference(values[i] / unit, middle / unit, 0.0, 0.0)
        x[0, i], x[1, i] = high, low
        weight = weights[i]
        sums[0, i + 1] = sums[0, i] + weight
        first = weight * high
        first_low = fma(weight, high, -first) + weight * low
        second = first * high
        second_low = fma(first, high, -second) + first_low * high + first * low
        for row, term, term_low in ((1, first, first_low), (3, second, second_low)):
            high, low = _difference(sums[row, i], -term, sums[row + 1, i], -term_low)
            sums[row, i + 1] = high + low
            sums[row + 1, i + 1] = (high - sums[row, i + 1]) + low
    return x, sums


@jit()
def _costs(sums, first, end, stop, costs):  # type: ignore[no-untyped-def]
    """Write the sum of squared deviations of the intervals from `first`, …, `end` - 1 to `stop`.

    Σw(x - m)² = Σwx² - m (2 Σwx - m W) for any m that is as good as the mean.
    """
    n = end - first
    w, s, s_low = sums[0, first:end], sums[1, first:end], sums[2, first:end]
    q, q_low = sums[3, first:end], sums[4, first:end]
    w_stop, s_stop, s_stop_low = sums[0, stop], sums[1, stop], sums[2, stop]
    q_stop, q_stop_low = sums[3, stop], sums[4, stop]
    for t in range(n):
        weight = w_stop - w[t]
        total, total_low = _difference(s_stop, s[t], s_stop_low, s_low[t])
        square, square_low = _difference(q_stop, q[t], q_stop_low, q_low[t])
        mean = total / weight
        part = mean * weight
        rest = (total - part) + (total_low - fma(mean, weight, -part))
        product = mean * total
        lost = fma(mean, total, -product) + mean * (total_low + rest)
        costs[t] = max((square - product) + (square_low - lost), 0.0)
    if end == stop:
        costs[n - 1] = 0.0  # one value: without the last digits of sums


@jit()
def interval_costs(sums, bounds):  # type: ignore[no-untyped-def]
    """Return the sum of squared deviations of each interval, (len(bounds) - 1,) float64."""
    costs = np.empty(len(bounds) - 1)
    for c in range(len(costs)):
        _costs(sums, bounds[c], bounds[c] + 1, bounds[c + 1], costs[c : c + 1])
    return costs


@jit()
def best_starts(sums, n_clusters):  # type: ignore[no-untyped-def]
    """Find where the last of the best 1, …, `n_clusters` intervals of every prefix starts.

    Parameters
    ----------
    n_clusters : int, at most n

    Returns
    -------
    starts : array of shape (n_clusters, n + 1), int32
        ``starts[k - 1, j]`` for the first j values in k intervals; the smallest one where
        several are best. Of the last row only the last entry is set.
    """
    n = sums.shape[1] - 1
    starts = np.zeros((n_clusters, n + 1), np.int32)
    before, best = np.empty(n + 1), np.empty(n + 1)
    for j in range(1, n + 1):
        _costs(sums, 0, 1, j, before[j : j + 1])
    buffer = np.empty(_TRIED)
    for k in range(1, n_clusters):
        if k == n_clusters - 1:
            _least(sums, before, k, n, n, starts[k], best, buffer)
            break
        step = 1
        while 2 * step <= n:
            step *= 2
        # The best start never moves left when a value is added: rows that are done narrow
        # the search for those between them, n steps for each halving of the distance.
        while step > 0:
            for j in range(step, n + 1, 2 * step):
                if j > k:
                    low = max(starts[k, j - step], k)
                    high = starts[k, j + step] + 1 if j + step <= n else j
                    _least(sums, before, low, min(high, j), j, starts[k], best, buffer)
            step //= 2
        before, best = best, before
    return starts


@jit()
def _least(sums, before, low, end, j, starts, best, buffer):  # type: ignore[no-untyped-def]
    """Try the starts from `low` to `end` - 1 for the last interval of the first `j` values."""
    least, place = np.inf, low
    for first in range(low, end, _TRIED):
        n = min(_TRIED, end - first)
        _costs(sums, first, first + n, j, buffer)
        for t in range(n):
            cost = before[first + t] + buffer[t]
            if cost < least:
                least, place = cost, first + t
    starts[j], best[j] = place, least


@jit()
def mean_silhouette(x, weights, sums, bounds):  # type: ignore[no-untyped-def]
    """Return the mean silhouette of a partition into at least two intervals, exactly.

    All distances of x to an interval that lies on one side add up to |W x - Σwx|, and no
    interval is nearer on average than the neighbours: so one pass is enough.
    """
    n_clusters = len(bounds) - 1
    means = np.empty((2, n_clusters))
    for c in range(n_clusters):
        weight = sums[0, bounds[c + 1]] - sums[0, bounds[c]]
        total, low = _between(sums, bounds[c], bounds[c + 1])
        means[0, c] = total / weight
        means[1, c] = (low - fma(means[0, c], weight, -total)) / weight
    total = 0.0
    for c in range(n_clusters):
        first, end = bounds[c], bounds[c + 1]
        others = sums[0, end] - sums[0, first] - 1
        for i in range(first, end):
            if others < 1:
                continue  # alone: 0
            high, low = x[0, i], x[1, i]
            own = _distances(sums, first, i, high, low) - _distances(sums, i, end, high, low)
            a, b = own / others, np.inf
            if c > 0:
                b = (high - means[0, c - 1]) + (low - means[1, c - 1])
            if c < n_clusters - 1:
                b = min(b, (means[0, c + 1] - high) + (means[1, c + 1] - low))
            total += weights[i] * (b - a) / max(a, b)
    return total / sums[0, -1]


@jit(inline="always")
def _between(sums, first, end):  # type: ignore[no-untyped-def]
    """Return Σw·x of an interval in two parts."""
    return _difference(sums[1, end], sums[1, first], sums[2, end], sums[2, first])


@jit(inline="always")
def _distances(sums, first, end, high, low):  # type: ignore[no-untyped-def]
    """Return Σw (x - y) over an interval of y: positive where it lies below x."""
    weight = sums[0, end] - sums[0, first]
    total, total_low = _between(sums, first, end)
    product = weight * high
    lost = fma(weight, high, -product) + weight * low
    return (product - total) + (lost - total_low)
