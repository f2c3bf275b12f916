"""Do missing values say something? Then "is missing" becomes a feature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    candidates = _different(backend, missing)
    best: dict[str, tuple[float, str]] = {}
    gaps = {name: missing[name] for name in candidates}
    n_missing = {name: int(rows.sum()) for name, rows in gaps.items()}
    for other, feature in list(scaled.items())[:MOST_COMPARED] if gaps else ():
        total, squares, parts = _sums(backend, feature, gaps)
        for name in gaps:
            if name != other:
                effect = _effect(parts[name], n_missing[name], total, squares, len(feature))
                best[name] = max(best.get(name, (0.0, "")), (effect, other))
    return {
        name: Gap(
            share=n_missing[name] / len(missing[name]),
            reason=f"'is missing' is a feature too, because such rows differ by {effect:.1f} "
            f"deviations in '{other}'",
        )
        for name, (effect, other) in best.items()
        if effect > TELLING
    }


def _sums(
    backend: Backend, feature: Array, gaps: Mapping[str, Array]
) -> tuple[int, int, dict[str, int]]:
    """Return the exact sum of a feature, of its squares, and its sum over the rows of each gap."""
    total = squares = 0
    parts = dict.fromkeys(gaps, 0)
    for rows in blocks_of(len(feature)):
        steps = backend.xp.rint(feature[rows] * _STEPS).astype(np.int64)
        total += int(steps.sum())
        squares += int((steps * steps).sum())
        for name, gap in gaps.items():
            parts[name] += int(steps[gap[rows]].sum())
    return total, squares, parts


def _different(backend: Backend, missing: Mapping[str, Array]) -> Sequence[str]:
    """Return the columns to judge: enough gaps, and not those of an earlier column."""
    seen: dict[bytes, str] = {}
    for name, rows in missing.items():
        if SMALLEST_SHARE <= float(rows.mean()) <= 1 - SMALLEST_SHARE:
            seen.setdefault(backend.digest(rows), name)
    return list(seen.values())


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
