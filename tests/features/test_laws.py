"""What holds for every table."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import DataError
from gpuseg.features import Encoder, FeatureSettings, encode_features, prepare
from gpuseg.records import Table

BACKEND = NumPyBackend()

NUMBERS = st.one_of(
    st.none(),
    st.integers(-5, 5).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([float("nan"), float("inf"), -1e300, 1e-300, 2.0**60, 0.0, -0.0]),
)
TEXTS = st.sampled_from([None, "", " ?", "a", " a", "b", "c", "1", "1,5", "2024-01-31", "Ärger"])
COLUMNS = {
    "number": NUMBERS,
    "integer": st.one_of(st.none(), st.integers(-(2**62), 2**62)),
    "text": TEXTS,
    "boolean": st.sampled_from([None, True, False]),
    "date": st.one_of(st.none(), st.dates()),
    "time": st.one_of(st.none(), st.datetimes()),
}
SETTINGS = st.builds(
    FeatureSettings,
    transform=st.sampled_from(["auto", "none"]),
    scaling=st.sampled_from(["standard", "robust", "none"]),
    dimension_reduction_threshold=st.sampled_from([1, 3, 50]),
)


@st.composite
def tables(draw):
    n_rows = draw(st.integers(3, 40))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6))
    columns = {}
    for place, kind in enumerate(kinds):
        pool = draw(st.lists(COLUMNS[kind], min_size=1, max_size=12))
        picks = draw(st.lists(st.integers(0, len(pool) - 1), min_size=n_rows, max_size=n_rows))
        columns[f"{kind} {place}"] = [pool[pick] for pick in picks]
    return Table("drawn", pa.table(columns))


def prepare_or_skip(table, chosen):
    try:
        return prepare(BACKEND, table, chosen)
    except DataError:
        assume(False)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=60, deadline=None)
@given(tables(), SETTINGS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(table, chosen, random):
    matrix = prepare_or_skip(table, chosen)
    shuffled = list(range(table.n_rows))
    random.shuffle(shuffled)
    again = prepare(BACKEND, Table("drawn", table.arrow.take(shuffled)), chosen)
    assert same_bits(matrix.X, again.X)
    assert same_bits(matrix.encoded, again.encoded)
    assert matrix.decisions == again.decisions
    assert matrix.encoder.to_dict() == again.encoder.to_dict()


@settings(max_examples=60, deadline=None)
@given(tables(), SETTINGS, st.data())
def test_encoding_again_gives_the_same_bits_row_by_row(table, chosen, data):
    matrix = prepare_or_skip(table, chosen)
    stored = json.loads(json.dumps(matrix.encoder.to_dict(), allow_nan=False))
    encoder = Encoder.from_dict(stored, matrix.encoder.arrays())
    assert encoder.to_dict() == matrix.encoder.to_dict()
    X, encoded = encode_features(BACKEND, encoder, table)
    assert same_bits(X[matrix.order], matrix.X)
    assert same_bits(encoded[matrix.order], matrix.encoded)
    some = data.draw(st.lists(st.integers(0, table.n_rows - 1), max_size=5))
    rows = table.arrow.take(pa.array(some, pa.int64()))
    part, _ = encode_features(BACKEND, encoder, Table("part", rows))
    assert same_bits(part, X[some])


@settings(max_examples=60, deadline=None)
@given(tables(), SETTINGS)
def test_the_record_is_consistent(table, chosen):
    matrix = prepare_or_skip(table, chosen)
    assert [d.column for d in matrix.decisions] == table.arrow.column_names
    kept = tuple(d.column for d in matrix.decisions if d.decision == "kept")
    assert matrix.columns == kept
    assert all(d.reason for d in matrix.decisions)
    assert sorted(matrix.order.tolist()) == list(range(table.n_rows))
    assert matrix.encoded.shape == (table.n_rows, len(matrix.encoded_names))
    assert len(set(matrix.encoded_names)) == len(matrix.encoded_names)
    assert matrix.column_of.shape == (len(matrix.encoded_names),)
    for array in (matrix.X, matrix.encoded):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert matrix.X.shape[1] <= max(chosen.dimension_reduction_threshold, 1)


@pytest.mark.parametrize("seed", range(5))
def test_each_column_has_variance_one(seed):
    rng = np.random.default_rng(seed)
    n = 3000
    columns = {
        "normal": rng.normal(5, 100, n),
        "money": rng.lognormal(3, 2, n),
        "gappy": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        "flag": rng.random(n) < 0.3,
        "few": rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]),
        "many": np.char.add("c", rng.integers(0, 60, n).astype(str)),
        "day": (rng.integers(15000, 19000, n)).astype("datetime64[D]"),
    }
    matrix = prepare(BACKEND, Table("t", pa.table(columns)), FeatureSettings())
    variances = np.bincount(matrix.column_of, matrix.encoded.astype(np.float64).var(axis=0))
    assert matrix.columns == tuple(columns)
    np.testing.assert_allclose(variances, 1, atol=0.02)


def test_threads_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    n = 30_000
    columns = {f"c{i}": rng.normal(size=n) for i in range(12)}
    table = Table("t", pa.table(columns))
    chosen = FeatureSettings(dimension_reduction_threshold=8)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("GPUSEG_THREADS", threads)
        found.append(prepare(BACKEND, table, chosen).X)
    assert same_bits(*found)
