from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpuseg.errors import DataError


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": pa.array([], pa.int64())}, "has no rows"),
        ({}, "has no rows"),
        ({"a": [1], "b": ["x"]}, "has 1 row; two clusters need at least three"),
        ({"a": [1, 1, 1], "b": ["x"] * 3}, "no column of orders can be used: 'a' .constant.: the"),
        ({"a": [None, None]}, "'a' .empty.: no value in 2 rows"),
        ({"id": [1, 2, 3]}, "Name columns in --numeric-columns"),
        ({f"c{i}": [1, 1] for i in range(9)}, "; and 4 more"),
    ],
)
def test_tables_that_cannot_be_used(prepared, columns, message):
    with pytest.raises(DataError, match=message):
        prepared(columns)


def test_one_column_and_two_rows(prepared):
    matrix = prepared({"a": [1, 2]})
    assert sorted(matrix.X[:, 0].tolist()) == [-1.0, 1.0]


def test_odd_numbers(prepared):
    matrix = prepared(
        {
            "huge": [1e300, -1e300, 0.0, 1e-300, 5.0],
            "tiny": [1e-300, 2e-300, 3e-300, 4e-300, 0.0],
            "smallest": [0.0, 5e-324, 0.0, 5e-324, 0.0],
            "near": [1e12, 1e12 + 1, 1e12 + 2, 1e12, 1e12],
            "endless": [float("inf"), 1.0, 2.0, float("-inf"), float("nan")],
            "zeros": [0.0, -0.0, 0.0, -0.0, 0.0],
        }
    )
    assert matrix.columns == ("huge", "tiny", "near", "endless")
    variances = np.bincount(matrix.column_of, matrix.X.astype(np.float64).var(axis=0))
    np.testing.assert_allclose(variances, 1, rtol=1e-5)
    assert matrix.warnings == (
        "column 'huge': 2 values beyond 1e+150 cut to that",
        "column 'endless': 2 values infinite, treated as missing",
    )


def test_integers_beyond_float64(prepared):
    base = 2**53
    matrix = prepared({"key": [base + i for i in range(100)], "a": list(range(50)) * 2})
    assert matrix.decisions[0].role == "id"
    assert "100 different" in matrix.decisions[0].reason
    # as float64, all the same
    matrix = prepared({"b": [2**62, 2**62 + 1, 2**62], "a": [1, 2, 4]})
    assert matrix.decisions[0].role == "constant"
    matrix = prepared({"u": pa.array([0, 2**64 - 1, 2**63], pa.uint64())})
    assert matrix.columns == ("u",)


def test_huge_raw_values_stay_squarable(prepared):
    matrix = prepared({"a": [1e300, -1e300, 3.0], "b": [1, 2, 4]}, scaling="none")
    assert np.isfinite((matrix.X.astype(np.float32) ** 2).sum(axis=1)).all()


@pytest.mark.parametrize(
    "names",
    [
        ["", " ", "\n"],
        ["^.*$", "*", "a|b"],
        ["'; drop table x; --", "<script>", "{0}"],
        ["顧客", "é", "e\u0301"],
        ["%s", "\\d", "x" * 10_000],
    ],
)
def test_odd_names(prepared, names):
    columns = {name: np.arange(9) % (i + 2) * 1.5 for i, name in enumerate(names)}
    matrix = prepared(columns)
    assert matrix.columns == tuple(names)
    assert tuple(d.column for d in matrix.decisions) == tuple(names)


def test_chunks_and_slices_do_not_matter(prepared):
    text = ["a", "b", None, "a", "c", "b"] * 30
    whole = prepared({"c": text, "n": list(range(60)) * 3})
    chunked = pa.chunked_array([text[:50], [], text[50:]])
    sliced = pa.array([0, *list(range(60)) * 3]).slice(1)
    again = prepared({"c": chunked, "n": sliced})
    assert again.X.tobytes() == whole.X.tobytes()


def test_very_wide_tables(prepared):
    rng = np.random.default_rng(0)
    columns = {f"c{i}": rng.normal(size=120) for i in range(1000)}
    matrix = prepared(columns)
    assert matrix.encoded.shape == (120, 1000)
    assert matrix.X.shape == (120, 50)
