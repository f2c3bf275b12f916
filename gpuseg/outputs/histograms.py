"""Counts per cluster of one column's values, in bins that suit the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BINS = 24
#: Categories with a bar of their own; the rest share one.
CATEGORIES = 10
#: Longest text of a category that is kept, in characters.
_LONGEST_TEXT = 80

#: Whole numbers with at most so many steps from end to end get a bin each.
_MOST_STEPS = 30
#: Below this, float64 has every half between two whole numbers.
_HALVES_BELOW = 2.0**51
#: A range of so many typical deviations is a heavy tail, whose bins grow outwards.
_HEAVY_TAIL = 30.0

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]


def bin_edges(values: Floats) -> Floats:
    """Choose the bins of a histogram.

    Parameters
    ----------
    values : array of shape (n,), float64, finite, n > 0

    Returns
    -------
    array of shape (n_bins + 1,), float64, ascending
        Equal steps between the outer half percents, whose rows go into the outer bins; one
        bin for each whole number when there are few; and steps that grow with the distance
        from the median when a few values are very far out.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a range beyond float64 is one bin
        edges = np.unique(_edges(values))
    if len(edges) > 1 and np.isfinite(edges).all():
        return edges
    # so large that nothing lies between one number and the next
    ends = np.nextafter([values.min(), values.max()], [-np.inf, np.inf])
    return np.nan_to_num(ends)


def _edges(values: Floats) -> Floats:
    is_whole = (values == np.floor(values)).all() and np.abs(values).max() < _HALVES_BELOW
    if is_whole and np.ptp(values) <= _MOST_STEPS:
        return np.arange(values.min() - 0.5, values.max() + 1.0)
    low, middle, high = np.quantile(values, [0.005, 0.5, 0.995])
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    distances = np.abs(values - middle)
    typical = float(np.median(distances[distances > 0]))
    if high - low <= _HEAVY_TAIL * typical:
        return np.linspace(low, high, BINS + 1)
    steps = np.linspace(
        np.arcsinh((low - middle) / typical), np.arcsinh((high - middle) / typical), BINS + 1
    )
    spread: Floats = middle + typical * np.sinh(steps)
    return spread


def bin_counts(values: Floats, labels: Labels, edges: Floats, n_clusters: int) -> list[list[int]]:
    """Count each cluster's values in each bin; what lies outside goes into the outer bins."""
    n_bins = len(edges) - 1
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n_bins - 1)
    return _counted(labels, bins, n_clusters, n_bins)


def category_counts(values: pa.Array, labels: Labels, n_clusters: int) -> dict[str, Any]:
    """Count each cluster's rows of the most common values, and of all others together.

    Returns
    -------
    dict
        ``n_distinct``; ``values``: the most common first, ties by name; ``others``: how many
        values share the last bin; ``counts``.
    """
    encoded = _plain(values).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    present = ~encoded.indices.is_null().to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)[present]
    totals = np.bincount(codes, minlength=len(names)) if len(names) else np.zeros(0, np.int64)
    ranked = sorted(range(len(names)), key=lambda code: (-totals[code], names[code]))
    shown = ranked[: CATEGORIES if len(names) > CATEGORIES + 1 else len(names)]
    others = len(names) - len(shown)
    place = np.full(len(names), len(shown))
    place[shown] = np.arange(len(shown))
    n_bins = len(shown) + (others > 0)
    return {
        "n_distinct": len(names),
        "values": [names[code][:_LONGEST_TEXT] for code in shown],
        "others": others,
        "counts": _counted(labels[present], place[codes], n_clusters, n_bins),
    }


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return whole.cast(pa.string())


def _counted(labels: Labels, bins: Any, n_clusters: int, n_bins: int) -> list[list[int]]:
    flat = np.bincount(labels.astype(np.int64) * n_bins + bins, minlength=n_clusters * n_bins)
    counts: list[list[int]] = flat.reshape(n_clusters, n_bins).tolist()
    return counts
