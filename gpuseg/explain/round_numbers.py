"""Thresholds that people would have chosen: the roundest number, or date, of an interval."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import numpy as np

#: More digits than any float64 between two others needs.
_CONTEXT = Context(prec=60)

_DATE_UNITS = ("Y", "M", "D", "h", "m", "s", "ms", "us", "ns")


def roundest_number(low: float, high: float, *, include: str) -> float:
    """Return the number with the fewest digits between two others.

    Parameters
    ----------
    low, high
        Finite, ``low < high``.
    include
        ``"high"`` looks in (low, high], ``"low"`` in [low, high): which of the two may
        itself be the answer.

    Examples
    --------
    >>> roundest_number(41, 42, include="high"), roundest_number(1187.4, 1212.9, include="low")
    (42.0, 1200.0)
    """
    middle = _CONTEXT.divide(_CONTEXT.add(Decimal(low), Decimal(high)), Decimal(2))
    gap = _CONTEXT.subtract(Decimal(high), Decimal(low))
    coarsest = max(Decimal(low).adjusted(), Decimal(high).adjusted()) + 1
    for power in range(coarsest, gap.adjusted() - 2, -1):
        steps = _CONTEXT.scaleb(middle, -power)
        multiples = (
            float(steps.to_integral_value(rounding).scaleb(power))
            for rounding in (ROUND_FLOOR, ROUND_CEILING)
        )
        # compared as floats: the nearest float of a number inside may lie outside
        fitting = [m + 0.0 for m in multiples if _inside(m, low, high, include)]
        if fitting:
            return min(fitting, key=lambda m: abs(Decimal(m) - middle))
    return high if include == "high" else low  # neighbouring floats


def _inside(value: float, low: float, high: float, include: str) -> bool:
    return low < value <= high if include == "high" else low <= value < high


def roundest_date(low: np.datetime64, high: np.datetime64) -> np.datetime64:
    """Return the first moment of a year, else month, day, hour, …, in (low, high].

    Examples
    --------
    >>> roundest_date(np.datetime64("2013-11-30T22:15"), np.datetime64("2013-12-03T07:00"))
    np.datetime64('2013-12')
    """
    for unit in _DATE_UNITS:
        start: np.datetime64 = high.astype(f"datetime64[{unit}]")
        if start > low:
            return start
    raise AssertionError(f"no moment between {low!r} and {high!r}")
