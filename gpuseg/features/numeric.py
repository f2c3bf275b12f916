"""Numbers and dates as features: fill gaps, tame tails, scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpuseg.errors import ModelError
from gpuseg.features.columns import ascending, blocks_of, long_array
from gpuseg.features.reading import Cleaned, Reading
from gpuseg.features.settings import FeatureSettings
from gpuseg.features.stored import Stored
from gpuseg.records import Array

#: A column is skewed beyond this (an exponential distribution has skewness 2).
SKEWED = 2.0

#: The signed logarithm must leave at most this share of the skewness to be used.
STRAIGHTENED = 0.7

#: With transform auto, no value counts as more than this many deviations from the centre.
BOUND = 5.0

#: Without a transform, features are cut here, so that float32 can hold squared distances.
FLOAT32_BOUND = 1e15

#: Deviations below this have lost their digits to the end of float64.
_SMALLEST_SCALE = 1e-305

#: Below this the signed logarithm's unit is too small to divide by.
_SMALLEST_UNIT = 1e-150

#: Quartile distance of a normal distribution with deviation 1.
_IQR_OF_NORMAL = 1.349

DAYS_PER_YEAR = 365.2425
PERIODS = {"season": DAYS_PER_YEAR, "hour": 1.0}


class Cycle(NamedTuple):
    """The place of a date within a year or a day, as a point on a circle."""

    name: str  # a key of PERIODS
    sine_mean: float
    cosine_mean: float


@dataclass(frozen=True)
class NumericEncoder:
    """A fitted column of numbers or dates.

    A value x becomes ``weight * clip((t(x) - center) / scale, -bound, bound)``, where
    ``t(x) = sign(x) * log1p(|x| / log_unit)``, or x itself without a `log_unit`. A missing
    one counts as `fill`. Dates count in days before `reference`.

    Parameters
    ----------
    reference
        The latest date, as days since 1970-01-01; None for numbers.
    missing_share
        Share of missing values, when "is missing" is a feature of its own; else None.
    weight
        Common factor of all features of the column: together they weigh as much as one
        number of variance 1.
    """

    reading: Reading
    fill: float
    center: float
    scale: float
    bound: float
    log_unit: float | None = None
    reference: float | None = None
    missing_share: float | None = None
    cycles: tuple[Cycle, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse parameters that would divide by nothing."""
        positive = [self.scale, self.bound, self.weight]
        positive += [] if self.log_unit is None else [self.log_unit]
        if not all(math.isfinite(value) and value > 0 for value in positive):
            raise ModelError(
                f"the model's encoder is damaged: scale, bound, weight and log_unit of column "
                f"'{self.reading.column}' must be positive"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        name = self.reading.column
        missing = () if self.missing_share is None else (f"{name} is missing",)
        cycles = [f"{name} {c.name} {part}" for c in self.cycles for part in ("sine", "cosine")]
        return (name, *missing, *cycles)

    def encode(self, cleaned: Cleaned, xp: ModuleType) -> Array:
        """Return the features, shape (n_features, n_samples), float32."""
        features = long_array((len(self.names), len(cleaned.values)), np.float32, xp)
        for rows in blocks_of(len(cleaned.values)):
            self._encode(xp.asarray(cleaned.values[rows]), features[:, rows], xp)
        return features

    def _encode(self, values: Array, features: Array, xp: ModuleType) -> None:
        """Write the features of some rows."""
        missing = xp.isnan(values)
        filled = xp.where(missing, self.fill, values)
        features[0] = self.weight * self._scaled(filled, xp)
        row = 1
        if self.missing_share is not None:
            features[row] = self.weight * (missing - self.missing_share)
            row += 1
        for cycle in self.cycles:
            sine, cosine = _on_circle(values, PERIODS[cycle.name], xp)
            features[row] = self.weight * xp.where(missing, 0.0, sine - cycle.sine_mean)
            features[row + 1] = self.weight * xp.where(missing, 0.0, cosine - cycle.cosine_mean)
            row += 2

    def with_missing(self, share: float) -> NumericEncoder:
        """Return the same encoder with an "is missing" feature, of the same weight in all."""
        spread = 1 / self.weight**2 + share * (1 - share)
        return replace(self, missing_share=share, weight=1 / math.sqrt(spread))

    def _scaled(self, filled: Array, xp: ModuleType) -> Array:
        if self.reference is not None:
            filled = self.reference - filled
        if self.log_unit is not None:
            filled = signed_log(filled, self.log_unit, xp)
        # cut before the division, which could overflow
        reach = self.bound * self.scale
        return xp.clip(filled - self.center, -reach, reach) / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        data = {name: getattr(self, name) for name in _NUMBERS + _OPTIONAL_NUMBERS}
        cycles = [list(cycle) for cycle in self.cycles]
        return {"reading": self.reading.to_dict(), **data, "cycles": cycles}

    @classmethod
    def from_dict(cls, data: Any) -> NumericEncoder:
        """Rebuild what `to_dict` described; raises ModelError if it is damaged."""
        stored = Stored(data, "a column of numbers")
        values: dict[str, Any] = {name: stored.number(name) for name in _NUMBERS}
        values |= {name: stored.number_or_none(name) for name in _OPTIONAL_NUMBERS}
        reading = Reading.from_dict(stored.get("reading"))
        stored.expect(reading.kind in ("numeric", "datetime"), "the kind must be a number's")
        cycles = tuple(_cycle(item) for item in stored.items("cycles"))
        return cls(reading=reading, cycles=cycles, **values)


_NUMBERS = ("fill", "center", "scale", "bound", "weight")
_OPTIONAL_NUMBERS = ("log_unit", "reference", "missing_share")


def _cycle(data: Any) -> Cycle:
    parts = dict(zip(Cycle._fields, data, strict=False)) if isinstance(data, list) else data
    stored = Stored(parts, "a cycle")
    return Cycle(
        stored.one_of("name", tuple(PERIODS)),
        stored.number("sine_mean"),
        stored.number("cosine_mean"),
    )


class NumericFit(NamedTuple):
    """A fitted column, or None where the numbers turn out to be all the same."""

    encoder: NumericEncoder | None
    notes: tuple[str, ...]  # what was done and why, for the column's reason


def fit_numeric(
    reading: Reading, cleaned: Cleaned, settings: FeatureSettings, xp: ModuleType
) -> NumericFit:
    """Find the parameters of a column of numbers or dates.

    All statistics are taken from the sorted values, so that not even their last bits
    depend on the order of the rows. At least one value must be there.
    """
    values = xp.asarray(cleaned.values)
    present = ascending(values[~xp.isnan(values)], xp)
    fill = quantile(present, 0.5)
    filled = _with(present, fill, len(values) - len(present), xp)
    notes: tuple[str, ...] = ()
    log_unit = reference = None
    if reading.kind == "datetime":
        reference = float(present[-1])
        filled = xp.ascontiguousarray((reference - filled)[::-1])
    elif settings.transform == "auto":
        log_unit, filled, notes = _tamed(filled, xp)
    center, scale = _location(filled, settings.scaling, xp)
    if scale < _SMALLEST_SCALE:
        return NumericFit(None, ())
    cycles, spread = _cycles(present, xp) if reading.kind == "datetime" else ((), 0.0)
    encoder = NumericEncoder(
        reading=reading,
        fill=fill,
        center=center,
        scale=scale,
        bound=_bound(settings),
        log_unit=log_unit,
        reference=reference,
        cycles=cycles,
        weight=1 / math.sqrt(1 + spread) if settings.scaling != "none" else 1.0,
    )
    return NumericFit(encoder, notes + tuple(f"with its {cycle.name}" for cycle in cycles))


def _bound(settings: FeatureSettings) -> float:
    tamed = settings.transform == "auto" and settings.scaling != "none"
    return BOUND if tamed else FLOAT32_BOUND


def _with(ordered: Array, value: float, count: int, xp: ModuleType) -> Array:
    """Return the sorted values with one value put in so many times."""
    if count == 0:
        return ordered
    place = int((ordered < value).sum())
    return xp.concatenate([ordered[:place], xp.full(count, value), ordered[place:]])


def _tamed(ordered: Array, xp: ModuleType) -> tuple[float | None, Array, tuple[str, ...]]:
    """Decide on the signed logarithm; return its unit and the values that result."""
    before = skewness(ordered, xp)
    if abs(before) <= SKEWED:
        return None, ordered, ()
    unit = quantile(xp.sort(xp.abs(ordered[ordered != 0])), 0.5)
    if unit < _SMALLEST_UNIT:
        return None, ordered, ()
    tamed = signed_log(ordered, unit, xp)
    after = skewness(tamed, xp)
    if abs(after) > STRAIGHTENED * abs(before):
        return None, ordered, ()
    note = f"heavy tail (skewness {before:.1f}), so on a logarithmic scale ({after:.1f})"
    return unit, tamed, (note,)


def _location(ordered: Array, scaling: str, xp: ModuleType) -> tuple[float, float]:
    """Return center and scale; a scale of 0 means that all values are the same."""
    center, scale = moments(ordered, xp)
    if scaling == "none" and scale > 0:
        return 0.0, 1.0
    if scaling == "robust":
        quartiles = quantile(ordered, 0.75) - quantile(ordered, 0.25)
        if quartiles > 0:
            return quantile(ordered, 0.5), quartiles / _IQR_OF_NORMAL
    return center, scale


def _cycles(present: Array, xp: ModuleType) -> tuple[tuple[Cycle, ...], float]:
    """Return the cycles that the dates are long and fine enough for, and their variance."""
    shown = []
    if float(present[-1] - present[0]) >= 2 * DAYS_PER_YEAR:
        shown.append("season")
    if float(xp.mean(present != xp.floor(present))) >= 0.01:
        shown.append("hour")
    cycles, spread = [], 0.0
    for name in shown:
        sine, cosine = (xp.sort(part) for part in _on_circle(present, PERIODS[name], xp))
        (sine_mean, sine_dev), (cosine_mean, cosine_dev) = moments(sine, xp), moments(cosine, xp)
        cycles.append(Cycle(name, sine_mean, cosine_mean))
        spread += sine_dev**2 + cosine_dev**2
    return tuple(cycles), spread


def _on_circle(values: Array, period: float, xp: ModuleType) -> tuple[Array, Array]:
    turns = values / period
    angle = 2 * math.pi * (turns - xp.floor(turns))
    return xp.sin(angle), xp.cos(angle)


# -- statistics of sorted values ---------------------------------------------------


def signed_log(values: Array, unit: float, xp: ModuleType) -> Array:
    """Return ``sign(x) * log1p(|x| / unit)``: linear around 0, logarithmic far from it."""
    return xp.sign(values) * xp.log1p(xp.abs(values) / unit)


def quantile(ordered: Array, q: float) -> float:
    """Return a quantile of sorted values, linear between neighbours."""
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (high - low) * (position - below)


def moments(ordered: Array, xp: ModuleType) -> tuple[float, float]:
    """Return mean and population deviation, exact also for tiny and huge values."""
    first = float(xp.mean(ordered))
    mean = first + float(xp.mean(ordered - first))
    deviations = ordered - mean
    unit = _power_of_two(float(xp.abs(deviations).max()))
    deviation = unit * math.sqrt(float(xp.mean((deviations / unit) ** 2)))
    # equal numbers whose mean was rounded are still equal
    return mean, deviation if float(ordered[-1]) > float(ordered[0]) else 0.0


def skewness(ordered: Array, xp: ModuleType) -> float:
    """Return the third standardised moment; 0 for constant values."""
    mean, deviation = moments(ordered, xp)
    if deviation == 0.0:
        return 0.0
    standard = (ordered - mean) / deviation
    return float(xp.mean(standard * standard * standard))


def _power_of_two(size: float) -> float:
    """Return a power of two near `size`; dividing by it loses nothing."""
    return math.ldexp(1.0, max(math.frexp(size)[1], -1000)) if size > 0 else 1.0
