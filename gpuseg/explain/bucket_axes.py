"""What a column is measured in: its values on an axis, cuts in words, and cuts in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from gpuseg.explain.conditions import threshold_sql, threshold_text
from gpuseg.explain.round_numbers import roundest_number

Floats = npt.NDArray[np.float64]

#: At most this many buckets are made of round numbers.
MOST_ROUND_BUCKETS = 10

_MONTHS_PER_YEAR = 12
#: Whole months are looked at as multiples of these, from the most to the least familiar.
_MONTH_STEPS = (12, 6, 3, 1)
_ROUND_STEPS = (1, 3, 6, 12, 24, 60, 120, 240, 600)


@dataclass(frozen=True)
class NumberAxis:
    """Numbers as they are.

    Parameters
    ----------
    sql
        Expression that yields the numbers, NULL for missing ones; None if there is none.
    is_whole
        Whether all values are whole numbers.
    log_unit
        Where the scale turns from linear to logarithmic; None for a linear one.
    """

    sql: str | None
    is_whole: bool
    log_unit: float | None = None

    unit = ""
    reference = None

    @property
    def scale(self) -> str:
        """What distances are measured on: ``linear`` or ``logarithmic``."""
        return "linear" if self.log_unit is None else "logarithmic"

    def positions(self, values: Floats) -> Floats:
        """Return places on the scale that distances are measured on."""
        if self.log_unit is None:
            return values
        from gpuseg.features.numeric import signed_log

        return np.asarray(signed_log(values, self.log_unit, np))

    def cut_between(self, low: float, high: float) -> float:
        """Return the roundest cut above `low` and not above `high`."""
        return roundest_number(low, high, include="high")

    def round_cuts(self, low: float, high: float) -> list[float]:
        """Return cuts at round numbers: powers of ten on a logarithmic scale, else even steps."""
        if self.log_unit is not None:
            return _powers_of_ten(low, high)
        return _even_steps(low, high, smallest=1.0 if self.is_whole else 0.0)

    def even_cuts(self, low: float, high: float, n_buckets: int) -> list[float]:
        """Return cuts at equal distances, written with three digits of the width."""
        width = high / n_buckets - low / n_buckets
        digits = 2 - int(np.floor(np.log10(width)))
        return [round(low + i * width, digits) + 0.0 for i in range(1, n_buckets)]

    def below_sql(self, cut: float) -> str:
        """Return the condition that a value lies below the cut."""
        return f"{self.sql} < {threshold_sql(cut)}"

    def from_sql(self, cut: float) -> str:
        """Return the condition that a value is the cut or lies above it."""
        return f"{self.sql} >= {threshold_sql(cut)}"

    def known_sql(self) -> str:
        """Return the condition that there is a value."""
        return f"{self.sql} IS NOT NULL"

    def text(self, cut: float) -> str:
        """Return a cut in words."""
        return threshold_text(cut)

    def label(self, low: float | None, high: float | None) -> str:
        """Return the name of the bucket from `low` to below `high`."""
        if low is None or high is None:
            return _open_label(self, low, high)
        if not self.is_whole or not float(low).is_integer() or not float(high).is_integer():
            return f"{self.text(low)} to under {self.text(high)}"
        return self.text(low) if high - low == 1 else f"{self.text(low)} to {self.text(high - 1)}"


@dataclass(frozen=True)
class DateAxis:
    """Dates as whole days before a reference day; in words also as months.

    Parameters
    ----------
    sql
        Expression that yields the dates, or moments, NULL for missing ones; or None.
    reference
        The latest day of the column.
    """

    sql: str | None
    reference: date

    unit = "days before"
    scale = "linear"

    def positions(self, values: Floats) -> Floats:
        """Return places on the scale that distances are measured on."""
        return values

    def cut_between(self, low: float, high: float) -> float:
        """Return the roundest cut above `low` and not above `high`: months, else days."""
        middle = (low + high) / 2
        for step in _MONTH_STEPS:
            fitting = [cut for cut in self._months(step, high) if low < cut <= high]
            if fitting:
                return min(fitting, key=lambda cut: abs(cut - middle))
        # between two whole days a cut is rounded up to a day, which parts the same rows
        return float(np.ceil(roundest_number(low, high, include="high")))

    def round_cuts(self, low: float, high: float) -> list[float]:
        """Return cuts at even steps of months, or of days and weeks where dates are near."""
        for step in _ROUND_STEPS:
            cuts = [cut for cut in self._months(step, high) if low < cut <= high]
            if len(cuts) < MOST_ROUND_BUCKETS:
                break
        return cuts or _even_steps(low, high, smallest=1.0)

    def even_cuts(self, low: float, high: float, n_buckets: int) -> list[float]:
        """Return cuts at equal distances, in whole days."""
        width = (high - low) / n_buckets
        return [float(np.ceil(low + i * width)) for i in range(1, n_buckets)]

    def below_sql(self, cut: float) -> str:
        """Return the condition that a date is nearer than the cut."""
        return f"{self._day_sql()} > {self._cut_sql(cut)}"

    def from_sql(self, cut: float) -> str:
        """Return the condition that a date is the cut or longer ago."""
        return f"{self._day_sql()} <= {self._cut_sql(cut)}"

    def known_sql(self) -> str:
        """Return the condition that there is a date."""
        return f"{self.sql} IS NOT NULL"

    def text(self, cut: float) -> str:
        """Return a cut in words: ``3 months``, ``45 days``."""
        months = self._as_months(cut)
        number, unit = (int(cut), "day") if months is None else (months, "month")
        return f"{number:,} {unit}{'' if number == 1 else 's'}"

    def label(self, low: float | None, high: float | None) -> str:
        """Return the name of the bucket from `low` to below `high`."""
        if low is not None and high is not None:
            begin, end = self.text(low), self.text(high)
            if begin.split()[1][:5] == end.split()[1][:5]:
                begin = begin.split()[0]  # 3 to under 6 months
            return f"{begin} to under {end} ago"
        return f"{_open_label(self, low, high)} ago"

    def _day_sql(self) -> str:
        return f"CAST({self.sql} AS DATE)"

    def _cut_sql(self, cut: float) -> str:
        months = self._as_months(cut)
        past = f"{int(cut)} DAY" if months is None else f"{months} MONTH"
        return f"DATE '{self.reference.isoformat()}' - INTERVAL {past}"

    def _months(self, step: int, high: float) -> list[float]:
        """Return how many days ago every `step` months were, as far as `high` days."""
        most = int(high / 28) // step + 1
        found = (self._days_of(months) for months in range(step, step * most + 1, step))
        return [days for days in found if days is not None]

    def _days_of(self, months: int) -> float | None:
        """Return the days since the same day so many months ago, or the last of that month."""
        index = self.reference.year * _MONTHS_PER_YEAR + self.reference.month - 1 - months
        year, month = divmod(index, _MONTHS_PER_YEAR)
        if year < 1:
            return None
        following = date(year + (month == _MONTHS_PER_YEAR - 1), (month + 1) % 12 + 1, 1)
        last = (following - timedelta(days=1)).day
        then = date(year, month + 1, min(self.reference.day, last))
        return float((self.reference - then).days)

    def _as_months(self, cut: float) -> int | None:
        near = round(cut / 30.436875)
        found = (m for m in (near - 1, near, near + 1) if m > 0 and self._days_of(m) == cut)
        return next(found, None)


Axis = NumberAxis | DateAxis


def _open_label(axis: Axis, low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "any"
    return f"under {axis.text(high)}" if high is not None else f"{axis.text(low or 0.0)} or more"


def _even_steps(low: float, high: float, smallest: float) -> list[float]:
    """Return the multiples of the smallest step 1, 2 or 5 times 10ⁿ that are few enough."""
    least = max(high / MOST_ROUND_BUCKETS - low / MOST_ROUND_BUCKETS, smallest, 1e-300)
    power = int(np.floor(np.log10(least)))
    cuts: list[float] = []
    for exponent in (power, power + 1):
        for digit in (1, 2, 5):
            # a product of whole numbers where the step is one: 30, not 30.000000000000004
            step = float(f"{digit}e{exponent}")
            first, last = int(np.floor(low / step)) + 1, int(np.floor(high / step))
            multiples = range(first, min(last, first + MOST_ROUND_BUCKETS) + 1)
            cuts = [float(f"{digit * multiple}e{exponent}") for multiple in multiples]
            if len(cuts) < MOST_ROUND_BUCKETS:
                return cuts
    return cuts


def _powers_of_ten(low: float, high: float) -> list[float]:
    largest = max(abs(low), abs(high))
    top = int(np.floor(np.log10(largest))) if largest > 0 else 0
    powers = [float(f"1e{p}") for p in range(top - MOST_ROUND_BUCKETS + 3, top + 1)]
    both = [*(-p for p in reversed(powers)), 0.0, *powers]
    return [cut for cut in both if low < cut <= high]
