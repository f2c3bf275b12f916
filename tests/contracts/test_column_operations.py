"""Columns reach an engine with every bit, and are told apart there, against NumPy and Python."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pytest
from contracts.compare import assert_on_backend

from gpuseg.records import Table

BIG = [2**53, 2**53 + 1, 2**53 + 3, 2**62 + 2**9 + 1, -(2**53) - 1]

COLUMNS = {
    "int8": pa.array([1, None, -128, 127], pa.int8()),
    "int64 beyond 2**53": pa.array([*BIG, None], pa.int64()),
    "uint64 beyond 2**63": pa.array([2**64 - 1, 2**63 + 2**10 + 1, None, 0], pa.uint64()),
    "uint8": pa.array([255, 0, None], pa.uint8()),
    "float": pa.array([0.1, None, float("nan"), -0.0, 1e-40], pa.float32()),
    "double": pa.array([0.1, None, float("nan"), -0.0, 5e-324, float("-inf")], pa.float64()),
    "halffloat": pa.array(np.array([0.1, -2.5], np.float16)),
    "decimal": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(9, 2)),
    "all null": pa.nulls(5, pa.int64()),
    "no rows": pa.array([], pa.int64()),
}


def expected_floats(column):
    """Return what Python makes of each value."""
    return np.array([np.nan if v is None else float(v) for v in column.to_pylist()], np.float64)


@pytest.mark.parametrize("name", COLUMNS)
def test_numbers_arrive_with_every_bit(backend, name):
    column = pa.chunked_array([COLUMNS[name]])
    found = backend.numbers(column)
    assert_on_backend(backend, found, np.float64)
    expected = expected_floats(column)
    np.testing.assert_array_equal(backend.to_host(found), expected)
    signs = np.signbit(backend.to_host(found)), np.signbit(expected)
    present = ~np.isnan(expected)
    np.testing.assert_array_equal(signs[0][present], signs[1][present])


def test_numbers_come_from_chunks_and_slices(backend):
    values = pa.array([*range(9), None, 11])
    pieces = [values.slice(0, 3), values.slice(3, 0), values.slice(5, 5), values.slice(10)]
    column = pa.chunked_array(pieces).slice(1)
    found = backend.to_host(backend.numbers(column))
    np.testing.assert_array_equal(found, expected_floats(column))
    assert len(backend.numbers(pa.chunked_array([], pa.int32()))) == 0


def test_without_files_there_is_nothing_to_read(backend):
    assert dict(backend.read_columns(Table("t", pa.table({"a": [1, 2]})), ["a"])) == {}


def numbered(values):
    seen: dict[float, int] = {}
    return [-1 if v != v else seen.setdefault(v, len(seen)) for v in values]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [np.nan, np.nan],
        [3.0, 1.0, 3.0, np.nan, 2.0, 1.0],
        [0.0, -0.0, 1.0, np.inf, -np.inf, np.inf],
        np.random.default_rng(0).integers(-40, 40, 3000).astype(float).tolist(),
    ],
)
def test_codes_number_values_by_their_first_row(backend, values):
    codes = backend.codes(backend.from_host(np.array(values, np.float64)))
    assert_on_backend(backend, codes, np.int32)
    assert backend.to_host(codes).tolist() == numbered(values)


DIGESTED = [
    np.array([1.0, 2.0, np.nan]),
    np.array([2.0, 1.0, np.nan]),
    np.array([1.0, 2.0, 0.0]),
    np.array([1.0, 2.0, -0.0]),
    np.array([1.0, 2.0]),
    np.array([0.0, 0.0]),
    np.array([0.0, 0.0, 0.0]),
    np.array([], np.float64),
    np.array([0, 1, -1], np.int32),
    np.array([1, 0, -1], np.int32),
    np.array([True, False, True]),
    np.array([False, True, True]),
]


def test_digests_are_equal_for_equal_arrays_only(backend):
    digests = [backend.digest(backend.from_host(values)) for values in DIGESTED]
    again = [backend.digest(backend.from_host(values.copy())) for values in DIGESTED]
    assert digests == again
    assert len(set(digests)) == len(DIGESTED)


def test_digests_notice_one_number_and_two_that_change_places(backend):
    values = np.random.default_rng(0).integers(0, 3, 5000).astype(np.int32)
    digest = backend.digest(backend.from_host(values))
    place = int(np.flatnonzero(values[1:] != values[:-1])[-1])
    swapped, other = values.copy(), values.copy()
    swapped[[place, place + 1]] = values[[place + 1, place]]
    other[-1] += 1
    for changed in (swapped, other):
        assert backend.digest(backend.from_host(changed)) != digest
