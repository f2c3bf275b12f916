"""Text becomes a type only where no value changes; the oracle goes by Python's Decimal."""

import datetime as dt
import re
from decimal import Decimal, localcontext

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.tables.exact_types import decimal_sign, exact


def column(*texts):
    return pa.chunked_array([pa.array(texts, pa.string())])


def oracle(texts):
    """Name the type by looking at one value after the other."""
    values = [text for text in texts if text is not None]
    if not values:
        return "string"
    if all(re.fullmatch("0|-?[1-9][0-9]*", v) and abs(int(v) + 0.5) < 2**63 for v in values):
        return "int64"
    if all(map(is_double, values)) and any(
        v.strip("-") not in ("nan", "NaN", "inf") for v in values
    ):
        return "double"
    if all(v in ("true", "false", "True", "False", "TRUE", "FALSE") for v in values):
        return "bool"
    if all(map(is_date, values)):
        return "date32[day]"
    return "string"


def is_double(text):
    if text in ("nan", "NaN", "inf", "-inf"):
        return True
    if not re.fullmatch(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return False
    if abs(float(text)) == float("inf"):
        return False
    with localcontext() as context:
        context.prec = 2000
        number = Decimal(text).normalize()
        digits = len(number.as_tuple().digits)
        back = Decimal(f"{float(text):.{digits - 1}e}")
        shortest = Decimal(repr(float(text)))
        return number in (back, shortest)


def is_date(text):
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


NUMBERS = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.16e}"),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.from_regex(r"\A-?[0-9]{0,20}\.?[0-9]{0,20}(e-?[0-9]{1,3})?\Z"),
    st.sampled_from(["nan", "inf", "-inf", "-0", "+1", "007", "1e400", "0x1F", "1_0", " 1", ""]),
)
OTHERS = st.one_of(
    st.dates().map(str), st.sampled_from(["true", "FALSE", "20200101", "2020-02-30", "x"])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), NUMBERS), max_size=4))
def test_numbers_agree_with_the_oracle(texts):
    assert str(exact(column(*texts)).type) == oracle(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), OTHERS), max_size=3))
def test_other_types_agree_with_the_oracle(texts):
    assert str(exact(column(*texts)).type) == oracle(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(), min_size=1))
def test_every_double_comes_back_from_its_text(values):
    typed = exact(column("0.5", *map(repr, values))).to_pylist()[1:]
    assert list(map(repr, typed)) == list(map(repr, values))


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["00123", "1"], "string"),
        (["12345678901234567890"], "string"),
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["9007199254740993", "0.5"], "string"),
        (["1.50", "2"], "double"),
        ([" ", "1.5"], "string"),
        (["", "1"], "string"),
        ([" Private"], "string"),
        ([None, None], "string"),
        (["+3912345"], "string"),
        (["2020-01-01", "2020-01-01 10:00"], "string"),
        (["2020-01-01 10:00", "2020-01-01T10:00:00.123456"], "timestamp[us]"),
        (["2020-01-01 10:00:00.123456789"], "timestamp[ns]"),
        (["2020-01-01T10:00:00Z", "2020-01-01 10:00:00+00", "2020-01-01 10:00:00.5+00:00"],
         "timestamp[us, tz=UTC]"),
        (["2020-01-01T10:00:00+02:00"], "string"),
        (["2020-01-01 10:00", "2020-01-01 24:00"], "string"),
        (["0001-01-01", "9999-12-31"], "date32[day]"),
        (["True", "false"], "bool"),
        (["yes", "no"], "string"),
        (["10:00:00"], "string"),
    ],
)  # fmt: skip
def test_rules(texts, kind):
    typed = exact(column(*texts))
    assert str(typed.type) == kind
    if kind == "string":
        assert typed.to_pylist() == texts


def test_a_type_needs_all_rows():
    texts = ["1"] * 100_000
    assert exact(column(*texts)).type == pa.int64()
    assert exact(column(*texts, "one")).type == pa.string()


@pytest.mark.parametrize(
    ("columns", "sign"),
    [
        ([["1,5", "2,25"]], ","),
        ([["1,234", "2,345"]], None),
        ([["1,234", "2,34"]], ","),
        ([["0,234"]], ","),
        ([["1,5"], ["1.5"]], "."),
        ([["1,5"], ["2020-01-01"], ["12"]], ","),
        ([["1.234,5"]], None),
        ([["a"], ["1"]], None),
    ],
)
def test_the_decimal_sign_is_told_by_the_columns(columns, sign):
    assert decimal_sign([column(*texts) for texts in columns]) == sign


def test_with_a_decimal_comma_a_point_is_no_number():
    assert exact(column("1,5", "2"), decimal=",").to_pylist() == [1.5, 2.0]
    assert exact(column("1.234"), decimal=",").to_pylist() == ["1.234"]
    assert exact(column("1234"), decimal=",").type == pa.int64()
