"""How the values of one column are distributed: small enough to be kept with every run.

A `Distribution` remembers bins with their shares, for the population stability index, and
the means of equal slices of the sorted values, for the Wasserstein distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.features.encoder import ColumnValues

#: Bins of a column of numbers: deciles, the usual choice.
BINS = 10
#: Rows that are not in a value of its own bin are cut into so many bins at least, so that the
#: tail of a column that is mostly zero is seen too.
_LEAST_BINS = 4
#: Categories with a bin of their own; the rest share one.
CATEGORIES = 20
#: Equal slices of the sorted values.
SLICES = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """What is kept of a column's values.

    Parameters
    ----------
    kind
        ``numeric``, ``datetime`` (days since 1970-01-01, UTC) or ``categorical``.
    cuts
        Where the bins of numbers meet, ascending; a value on a cut belongs to the bin above.
    categories
        The most common texts, the most common first.
    shares
        Of all rows: in each bin (for texts: of each category, then of all others), and last
        of the rows without a value. They sum to 1.
    slices
        Numbers: means of `SLICES` equal slices of the sorted values, ascending; else empty.
    mean, std, median
        Of the rows that have a value; None for texts and where there is no value.
    """

    kind: str
    cuts: tuple[float, ...]
    categories: tuple[str, ...]
    shares: tuple[float, ...]
    slices: tuple[float, ...]
    mean: float | None = None
    std: float | None = None
    median: float | None = None

    @property
    def missing_share(self) -> float:
        """Share of rows without a value."""
        return self.shares[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Distribution:
        """Rebuild what `to_dict` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is damaged.
        """
        values = {field.name: data[field.name] for field in fields(cls)}
        for name in ("cuts", "shares", "slices"):
            values[name] = tuple(float(value) for value in values[name])
        values["categories"] = tuple(str(value) for value in values["categories"])
        found = cls(**values)
        n_bins = 1 + (len(found.categories) if found.kind == "categorical" else len(found.cuts))
        if len(found.shares) != n_bins + 1:
            raise ValueError(f"{len(found.shares)} shares for {n_bins} bins")
        return found


def distribution(found: ColumnValues) -> Distribution:
    """Look at a column for the first time: choose its bins and measure it."""
    if found.kind == "categorical":
        return _of_texts(found.values, _most_common(found.values))
    known = _sorted(found.values)
    return _of_numbers(found.kind, known, len(found.values), bin_cuts(known))


def distribution_as(before: Distribution, found: ColumnValues) -> Distribution:
    """Measure a column in the bins of an earlier look at it."""
    if before.kind == "categorical":
        return _of_texts(found.values, before.categories)
    return _of_numbers(before.kind, _sorted(found.values), len(found.values), before.cuts)


def nothing_as(before: Distribution) -> Distribution:
    """Return what is left of a column that is not there any more: all rows without a value."""
    shares = (*[0.0] * (len(before.shares) - 1), 1.0)
    return Distribution(before.kind, before.cuts, before.categories, shares, ())


def bin_cuts(known: Floats) -> tuple[float, ...]:
    """Choose where the bins of a column of numbers meet.

    Parameters
    ----------
    known : array of shape (n,), float64, ascending, finite

    Returns
    -------
    tuple of float
        A value that a tenth of the rows or more share has a bin of its own; the other rows
        are cut into bins of as equal a number of rows as their ties allow. No bin is empty.
    """
    if not len(known):
        return ()
    values, counts = np.unique(known, return_counts=True)
    own_bin = counts >= len(known) / BINS
    rest = np.where(own_bin, 0, counts)
    n_rest = int(rest.sum())
    n_bins = max(_LEAST_BINS, round(BINS * n_rest / len(known)))
    # the bin of each value by the middle of its rows, as if the bins were of equal size
    middle = np.cumsum(rest) - rest / 2
    slot = np.floor(middle * n_bins / max(n_rest, 1))
    apart = (slot[1:] != slot[:-1]) | own_bin[1:] | own_bin[:-1]
    first = np.flatnonzero(apart) + 1
    # what comes to lie between a value with its own bin and the next one is not that value
    cuts = np.where(own_bin[first - 1], np.nextafter(values[first - 1], np.inf), values[first])
    return tuple(cuts.tolist())


def slice_means(known: Floats, n_slices: int = SLICES) -> Floats:
    """Return the means of equal slices of sorted values; values are cut where slices meet.

    Parameters
    ----------
    known : array of shape (n,), float64, ascending, finite

    Returns
    -------
    array of shape (n_slices,), float64, ascending; empty when there are no values
    """
    n = len(known)
    if not n:
        return np.empty(0)
    base = known[n // 2]  # sums of what is left lose fewer digits
    sums = np.concatenate([[0.0], np.cumsum(known - base)])
    bounds = np.linspace(0, n, n_slices + 1)
    means: Floats = np.diff(np.interp(bounds, np.arange(n + 1), sums)) * (n_slices / n) + base
    return means


def _sorted(values: Any) -> Floats:
    known = np.asarray(values, dtype=np.float64)
    return np.sort(known[~np.isnan(known)])


def _of_numbers(kind: str, known: Floats, n_rows: int, cuts: tuple[float, ...]) -> Distribution:
    # the number of values below each cut, without a bin number for each row
    below = np.searchsorted(known, np.array(cuts), side="left")
    counts = np.diff(np.concatenate([[0], below, [len(known)]]))
    shares = np.append(counts, n_rows - len(known)) / max(n_rows, 1)
    measured = len(known) > 0
    return Distribution(
        kind=kind,
        cuts=cuts,
        categories=(),
        shares=tuple(shares.tolist()),
        slices=tuple(slice_means(known).tolist()),
        mean=float(known.mean()) if measured else None,
        std=float(known.std()) if measured else None,
        median=float(np.median(known)) if measured else None,
    )


def _most_common(values: pa.Array) -> tuple[str, ...]:
    counted = values.drop_null().value_counts()
    texts, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    ranked = sorted(zip(texts, counts, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(text for text, _count in ranked[:CATEGORIES])


def _of_texts(values: pa.Array, categories: tuple[str, ...]) -> Distribution:
    known = values.drop_null()
    counted = known.value_counts()
    texts, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    found = dict(zip(texts, counts, strict=True))
    own = [found.get(category, 0) for category in categories]
    everyone = max(len(values), 1)
    rows = (*own, len(known) - sum(own), len(values) - len(known))
    return Distribution("categorical", (), categories, tuple(n / everyone for n in rows), ())
