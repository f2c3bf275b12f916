from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpuseg.features.text import date_style, number_style, read_dates, read_numbers


def read(texts):
    values = pa.array(texts)
    found = number_style(values, np.ones(len(texts), dtype=np.int64))
    return None if found is None else read_numbers(values, found[0]).tolist()


def read_days(texts):
    values = pa.array(texts)
    found = date_style(values, np.ones(len(texts), dtype=np.int64))
    return None if found is None else read_dates(values, found[0]).tolist()


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1", "2.5", "-3", "+4.5", "1e5", ".5", "5."], [1, 2.5, -3, 4.5, 1e5, 0.5, 5]),
        (["1.234,56", "2"], [1234.56, 2]),
        (["1,234.56", "12"], [1234.56, 12]),
        (["1,5", "2"], [1.5, 2]),
        (["1 234,5", "7,25"], [1234.5, 7.25]),
        (["1\u00a0234", "1\u202f234\u202f567"], [1234, 1234567]),
        (["1'000.5", "3"], [1000.5, 3]),
        (["1.234.567", "5"], [1234567, 5]),
        (["$5", "$-5", "-$5", "$ 1,234.50"], [5, -5, -5, 1234.5]),
        (["5 €", "1.000,50 €"], [5, 1000.5]),
        (["5%", "6.5 %"], [5, 6.5]),
        # one notation for the whole column: what "1.234" means is told by the others
        (["1.234", "950"], [1234, 950]),
        (["1.234", "12.5"], [1.234, 12.5]),
        (["1.234", "0.950"], [1.234, 0.95]),
        (["1.234", "2.345"], [1.234, 2.345]),
        (["1,234", "2,345"], [1234, 2345]),
        (["1,234", "1234"], [1.234, 1234]),
        (["1,234", "0,950"], [1.234, 0.95]),
    ],
)
def test_reads_numbers(texts, numbers):
    assert read(texts) == numbers


@pytest.mark.parametrize(
    "texts",
    [
        ["00123", "12345"],  # codes
        ["5%", "6"],  # is 6 six or six hundred percent?
        ["$5", "€5"],
        ["1.2", "3,4"],
        ["1,2,3", "4"],
        ["12 34", "5"],
        ["a", "b"],
        ["1.2.2020", "2.2.2020"],
        ["-", "+"],
        ["1e5x", "2"],
    ],
)
def test_leaves_what_is_no_number_or_ambiguous(texts):
    assert read(texts) is None


def test_one_in_a_hundred_may_be_unreadable():
    values = pa.array(["x", "1"])
    assert number_style(values, np.array([1, 99])) is not None
    assert number_style(values, np.array([2, 98])) is None
    assert np.isnan(read_numbers(values, number_style(values, np.array([1, 99]))[0])[0])


@pytest.mark.parametrize(
    ("texts", "days"),
    [
        (["1970-01-01", "1970-01-31", "1969-12-31"], [0, 30, -1]),
        (["1.2.1970", "31.12.1970"], [31, 364]),
        (["12/31/1970", "1/2/1970"], [364, 1]),
        (["31/12/1970", "1/2/1970"], [364, 31]),
        (["1/2/1970", "3/4/1970"], [1, 62]),  # nothing to tell: month first
        (["1970-01-01 12:00", "1970-01-02T06:00:00.000Z"], [0.5, 1.25]),
        (["1970-01-01T12:00:00+01:00", "1970-01-01T00:00:00-0600"], [11 / 24, 0.25]),
        (["9999-12-31", "1970-01-02"], [2932896, 1]),
    ],
)
def test_reads_dates(texts, days):
    assert read_days(texts) == pytest.approx(days)


@pytest.mark.parametrize(
    "texts",
    [["1970-02-30"], ["1970-13-01"], ["1970-01-01 25:00"], ["1.234"], ["13/13/1970"], ["x"]],
)
def test_leaves_what_is_no_date(texts):
    assert read_days(texts) is None
