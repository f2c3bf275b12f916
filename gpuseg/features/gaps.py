"""Do missing values say something? Then "is missing" becomes a feature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.features.columns import blocks_of
from gpuseg.records import Array

#: Rows with and without a value must differ by this many deviations in another column, …
TELLING = 0.2

#: … and by this many standard errors, because among fifty columns some differ by chance.
SURE = 4.0

#: Gaps in fewer rows, or values in fewer, are not judged.
SMALLEST_SHARE = 0.01

#: Gaps are compared with this many columns of numbers at most.
MOST_COMPARED = 50

#: Features are rounded to this fraction of a deviation, so that sums are exact integers and
#: do not depend on the order of the rows.
_STEPS = 4096


class Gap(NamedTuple):
    """A column whose missing values say something."""

    share: float  # of the rows, missing
    reason: str


class GapSums(NamedTuple):
    """Of one feature, rounded to steps: exact sums over all rows and over gaps."""

    total: int
    squares: int
    within: Mapping[str, int]  # column with gaps -> sum over the rows where it is missing

    def plus(self, other: GapSums) -> GapSums:
        """Add the sums over other rows."""
        within = {name: part + other.within[name] for name, part in self.within.items()}
        return GapSums(self.total + other.total, self.squares + other.squares, within)


def telling_gaps(
    backend: Backend, scaled: Mapping[str, Array], missing: Mapping[str, Array]
) -> dict[str, Gap]:
    """Find the columns whose missing values go with other values in another column.

    Parameters
    ----------
    scaled
        Column of numbers -> its feature, array of shape (n_samples,), float32, of variance
        about 1 and cut to a few deviations.
    missing
        Column -> array of shape (n_samples,), bool. Columns that are missing in the
        same rows are judged once.
    """
    facts = {name: gap_fact(backend, rows) for name, rows in missing.items()}
    judged = names_to_judge(facts)
    if not judged:
        return {}
    gaps = {name: missing[name] for name in judged}
    compared = list(scaled)[:MOST_COMPARED]
    sums = {name: gap_sums(backend, scaled[name], gaps) for name in compared}
    return judge(sums, {name: facts[name] for name in judged})


class GapFact(NamedTuple):
    """How many values a column lacks, and which, as a digest."""

    n_missing: int
    n_samples: int
    digest: bytes

    @property
    def share(self) -> float:
        """Share of the rows."""
        return self.n_missing / self.n_samples


def gap_fact(backend: Backend, missing: Array) -> GapFact:
    """Look at where a column has no value, array of shape (n_samples,), bool."""
    return GapFact(int(missing.sum()), len(missing), backend.digest(missing))


def names_to_judge(facts: Mapping[str, GapFact]) -> list[str]:
    """Return the columns with enough gaps, and not those of an earlier column."""
    seen: dict[bytes, str] = {}
    for name, fact in facts.items():
        if SMALLEST_SHARE <= fact.share <= 1 - SMALLEST_SHARE:
            seen.setdefault(fact.digest, name)
    return list(seen.values())


def gap_sums(backend: Backend, feature: Array, gaps: Mapping[str, Array]) -> GapSums:
    """Sum a feature over all rows and over the rows that lack a value in another column.

    Parameters
    ----------
    gaps
        Column with gaps -> where it has no value, (n_samples,), bool.
    """
    total = squares = 0
    within = dict.fromkeys(gaps, 0)
    for rows in blocks_of(len(feature)):
        steps = backend.xp.rint(feature[rows] * _STEPS).astype(np.int64)
        total += int(steps.sum())
        squares += int((steps * steps).sum())
        for name, gap in gaps.items():
            within[name] += int(steps[gap[rows]].sum())
    return GapSums(total, squares, within)


def judge(sums: Mapping[str, GapSums], facts: Mapping[str, GapFact]) -> dict[str, Gap]:
    """Tell which columns' gaps say something, from exact sums.

    Parameters
    ----------
    sums
        One for each column that gaps are compared with.
    facts
        One for each column that is judged.
    """
    best: dict[str, tuple[float, str]] = {}
    for other, (total, squares, within) in sums.items():
        for name, fact in facts.items():
            if name != other:
                effect = _effect(within[name], fact.n_missing, total, squares, fact.n_samples)
                best[name] = max(best.get(name, (0.0, "")), (effect, other))
    return {
        name: Gap(
            share=facts[name].share,
            reason=f"'is missing' is a feature too, because such rows differ by {effect:.1f} "
            f"deviations in '{other}'",
        )
        for name, (effect, other) in best.items()
        if effect > TELLING
    }


def _effect(part: int, n_part: int, total: int, squares: int, n: int) -> float:
    """Return the difference of two means in pooled deviations, from exact sums.

    It is 0 when it may well be chance.
    """
    n_rest = n - n_part
    mean, mean_rest = part / n_part, (total - part) / n_rest
    within = (squares - n_part * mean**2 - n_rest * mean_rest**2) / n
    if within <= 0:
        return math.inf if mean != mean_rest else 0.0
    effect = abs(mean - mean_rest) / math.sqrt(within)
    return effect if effect > SURE * math.sqrt(1 / n_part + 1 / n_rest) else 0.0
