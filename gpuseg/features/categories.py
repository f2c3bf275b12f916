"""Categories as indicator columns that together weigh as much as one number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuseg.features.columns import blocks_of, long_array
from gpuseg.features.reading import Cleaned, Reading
from gpuseg.features.stored import Stored
from gpuseg.records import Array

#: At most this many categories get an indicator of their own.
MOST_CATEGORIES = 20

#: A category needs at least this share of the rows for an indicator of its own.
SMALLEST_SHARE = 0.01

#: … and this many rows: one row alone is no group.
SMALLEST_COUNT = 2

#: A column whose indicators vary less than this is not blown up to variance 1: where nearly
#: all rows agree, the few others would decide everything. (One value in 19 rows is 0.05.)
LEAST_VARIANCE = 0.05

#: In brackets, because a category of that very name may exist.
OTHER = "(other)"
MISSING = "(missing)"


@dataclass(frozen=True)
class CategoricalEncoder:
    """A fitted column of categories.

    Row i gets ``weight * ((its level is j) - center[j])`` for each level j. A level is one
    of `categories`, then "other" if `has_other`, then "missing" if `has_missing`; the last
    level has no indicator of its own when there are two. A value that belongs to no level
    gets zeros: it stands in the middle of all categories.

    Parameters
    ----------
    categories
        The frequent ones, most frequent first.
    centers
        Share of each level, among the rows that have one; zeros when nothing is scaled.
    weight
        ``1 / sqrt(sum p (1 - p))`` over the indicators: the column's total variance becomes
        1, and a rare category is not blown up as it would be if each indicator were scaled.
    """

    reading: Reading
    categories: tuple[str, ...]
    has_other: bool
    has_missing: bool
    centers: tuple[float, ...]
    weight: float

    @property
    def levels(self) -> tuple[str, ...]:
        """All levels, in the order of their codes."""
        extra = ((OTHER,) if self.has_other else ()) + ((MISSING,) if self.has_missing else ())
        return self.categories + extra

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        shown = self.levels[:1] if len(self.levels) == 2 else self.levels
        return tuple(f"{self.reading.column} = {level}" for level in shown)

    def encode(self, cleaned: Cleaned, xp: ModuleType) -> Array:
        """Return the features, shape (n_features, n_samples), float32."""
        held = cleaned.values
        other = len(self.categories) if self.has_other else -1
        missing = len(self.levels) - 1 if self.has_missing else -1
        known = {category: code for code, category in enumerate(self.categories)}
        level_of = [known.get(value, other) for value in held.values.to_pylist()]
        levels = xp.asarray(np.array([*level_of, missing], dtype=np.int32))
        table = xp.asarray(self._table())
        features = long_array((len(table), len(held.codes)), np.float32, xp)
        for rows in blocks_of(len(held.codes)):
            features[:, rows] = table[:, levels[xp.asarray(held.codes[rows])]]
        return features

    def _table(self) -> npt.NDArray[np.float32]:
        """Return the features of each level, and last, where -1 points at, those of none."""
        n_features, n_levels = len(self.names), len(self.levels)
        table = np.zeros((n_features, n_levels + 1))
        centers = np.array(self.centers[:n_features])[:, None]
        table[:, :n_levels] = self.weight * (np.eye(n_levels)[:n_features] - centers)
        return table.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "reading": self.reading.to_dict(),
            "categories": list(self.categories),
            "has_other": self.has_other,
            "has_missing": self.has_missing,
            "centers": list(self.centers),
            "weight": self.weight,
        }

    @classmethod
    def from_dict(cls, data: Any) -> CategoricalEncoder:
        """Rebuild what `to_dict` described; raises ModelError if it is damaged."""
        stored = Stored(data, "a column of categories")
        encoder = cls(
            reading=Reading.from_dict(stored.get("reading")),
            categories=stored.texts("categories"),
            has_other=stored.flag("has_other"),
            has_missing=stored.flag("has_missing"),
            centers=stored.numbers("centers"),
            weight=stored.number("weight"),
        )
        stored.expect(encoder.reading.kind == "categorical", "the kind must be categorical")
        stored.expect(len(encoder.levels) >= 2, "there must be two levels")
        stored.expect(len(encoder.centers) == len(encoder.levels), "each level has one center")
        stored.expect(len(set(encoder.categories)) == len(encoder.categories), "no level twice")
        stored.expect(encoder.weight > 0, "weight must be positive")
        return encoder


def fit_categories(reading: Reading, cleaned: Cleaned, scaling: str) -> CategoricalEncoder | None:
    """Choose the levels of a column of categories; None where there are fewer than two.

    Ties between equally frequent categories go to the smaller text, so that the levels do
    not depend on the order of the rows.
    """
    held = cleaned.values
    n_rows, counts = len(held.codes), held.counts()
    least = max(SMALLEST_SHARE * n_rows, SMALLEST_COUNT)
    frequent = np.flatnonzero(counts >= least)
    named = [(-int(counts[i]), held.values[int(i)].as_py()) for i in frequent]
    named = sorted(named)[:MOST_CATEGORIES]
    n_missing = n_rows - int(counts.sum())
    n_other = int(counts.sum()) + sum(count for count, _ in named)
    has_missing = n_missing > 0 and n_missing >= least
    sizes = [-count for count, _ in named]
    sizes += [n_other] * (n_other > 0) + [n_missing] * has_missing
    if len(sizes) < 2 or not named:
        return None
    shares = [size / sum(sizes) for size in sizes]
    indicators = shares[:1] if len(shares) == 2 else shares
    variance = sum(share * (1 - share) for share in indicators)
    scaled = scaling != "none"
    return CategoricalEncoder(
        reading=reading,
        categories=tuple(category for _, category in named),
        has_other=n_other > 0,
        has_missing=has_missing,
        centers=tuple(shares) if scaled else (0.0,) * len(shares),
        weight=1 / math.sqrt(max(variance, LEAST_VARIANCE)) if scaled else 1.0,
    )
