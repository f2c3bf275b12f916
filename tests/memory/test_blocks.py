"""What is done in blocks, buckets and pieces is what would be done at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.backends import sample
from gpuseg.backends.content_order import content_order
from gpuseg.backends.cpu import by_buckets
from gpuseg.backends.cpu import distance_sums as sums
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import DataError
from gpuseg.features import FeatureSettings, encode_features, prepare
from gpuseg.memory import Room, working_within
from gpuseg.records import Table
from gpuseg.settings import Settings
from gpuseg.tables import delimited
from gpuseg.tables.delimited import read_delimited
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.exact_types import exact, exact_in_pieces

# -- order -------------------------------------------------------------------------------


@given(
    n_rows=st.integers(1, 400),
    n_values=st.integers(1, 50),
    block=st.integers(1, 150),
    bucket=st.integers(1, 60),
    seed=st.integers(0, 10),
)
@settings(max_examples=40, deadline=None)
def test_rows_are_ordered_in_buckets_as_at_once(n_rows, n_values, block, bucket, seed):
    rng = np.random.default_rng(seed)
    features = [
        rng.integers(0, n_values, (1, n_rows)).astype(np.float32),
        rng.integers(0, 2, (2, n_rows)).astype(np.float32),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_buckets, "BLOCK_ROWS", block)
        patch.setattr(by_buckets, "BUCKET_ROWS", bucket)
        patch.setattr(by_buckets, "BUCKET_BYTES", bucket * 12)
        order = by_buckets.content_order_by_buckets(features)
        X = by_buckets.matrix_by_buckets(features, order)
    np.testing.assert_array_equal(order, content_order(features, np))
    np.testing.assert_array_equal(X, np.concatenate(features).T[order])


# -- labels ------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 4), max_size=60), label=st.integers(0, 4), n=st.integers(0, 9)
)
def test_labels_are_counted_and_found_in_blocks(labels, label, n):
    held = np.array(labels, dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "BLOCK_ROWS", 7)
        assert sample.count_labels(held, 5).tolist() == [labels.count(c) for c in range(5)]
        found = sample.first_members(held, label, n).tolist()
    assert found == [i for i, own in enumerate(labels) if own == label][:n]


def test_chosen_rows_meet_all_others_chunk_by_chunk(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 5)).astype(np.float32)
    labels = rng.integers(0, 4, (2, 900)).astype(np.uint8)
    rows = np.sort(rng.choice(900, 60, replace=False))
    monkeypatch.setattr(sums, "CHUNK_ROWS", 128)
    found = sums.distance_sums(X, labels, (4, 4), rows=rows)
    distances = np.linalg.norm(X[rows, None].astype(float) - X[None], axis=2)
    expected = [distances[:, of_k == c].sum(axis=1) for of_k in labels for c in range(4)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=2e-6)


# -- tables ------------------------------------------------------------------------------


@given(data=st.data(), lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6))
@settings(deadline=None)
def test_rows_are_taken_from_their_batches(data, lengths):
    n_rows = sum(lengths)
    starts = np.cumsum([0, *lengths])
    chunks = [pa.array(range(a, a + n), pa.int64()) for a, n in zip(starts, lengths, strict=False)]
    table = Table("t", pa.table({"a": pa.chunked_array(chunks, pa.int64())}))
    rows = sorted(data.draw(st.sets(st.integers(0, max(n_rows - 1, 0)))) if n_rows else [])
    assert table.take(np.array(rows, dtype=np.int64)).arrow["a"].to_pylist() == rows


TEXTS = st.one_of(
    st.none(),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(["nan", "inf", "1,5", "1.5", ".5", "007", "true", "FALSE", "x", "", "1e5"]),
    st.sampled_from(["2024-02-29", "2024-02-30", "2024-01-01 10:00", "2024-01-01T10:00:00Z"]),
    st.sampled_from(["2024-01-01 10:00:00.123456789", "2024-01-01 10:00+00:00"]),
)


@given(
    texts=st.one_of(
        st.lists(TEXTS, max_size=12),
        st.lists(st.sampled_from(["nan", "1.5", None, "2"]), max_size=12),
        st.lists(st.sampled_from(["2024-01-01 10:00", "2024-01-01 10:00:00.123456789", None])),
        st.lists(st.sampled_from(["2024-01-01 10:00Z", "2024-01-01 10:00", None]), max_size=9),
    ),
    length=st.integers(1, 5),
    decimal=st.sampled_from([".", ","]),
)
@settings(max_examples=400, deadline=None)
def test_a_column_is_typed_in_pieces_as_at_once(texts, length, decimal):
    whole = pa.array(texts, pa.string())
    expected = exact(pa.chunked_array([whole]), decimal=decimal)
    pieces = [whole.slice(a, length) for a in range(0, len(whole), length)]
    convert = exact_in_pieces(pieces, decimal=decimal)
    found = [convert(piece) for piece in pieces]
    assert {piece.type for piece in found} <= {expected.type}
    values = [value for piece in found for value in piece.to_pylist()]
    assert repr(values) == repr(expected.to_pylist())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n" + "1,2\n" * 50 + "1,2,3\n" + "1,2\n" * 50, "line 52 has 3 of 2 values"),
        ("a,b\n" + "1,2\n" * 50 + '1,"2\n' + "1,2\n" * 50, "quote"),
    ],
)
def test_a_damaged_file_is_told_as_clearly_in_blocks(text, words, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    said = []
    for budget in (None, 1):
        with (
            working_within(None, of=Room(budget, tmp_path)),
            pytest.raises(DataError, match=words) as caught,
        ):
            read_delimited(path, CsvOptions())
        said.append(str(caught.value))
    assert said[0] == said[1]


# -- columns that are judged by a sample ---------------------------------------------------


def test_where_not_even_one_column_fits_a_sample_judges_and_all_rows_are_encoded(tmp_path):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 5000)
    written = np.where(np.arange(5000) < 2500, "unknown", (groups * 10).astype(str))
    columns = {
        "amount": rng.normal(size=5000) + 5 * groups,
        "kind": np.array(["a", "b", "c"])[groups],
        "written": np.where(np.arange(5000) % 2, (groups * 10).astype(str), written),
    }
    table = Table("t", pa.table(columns))
    settings = FeatureSettings.of(Settings(numeric_columns=("written",)))
    with working_within(None, of=Room(112_000, tmp_path)) as room:
        assert room.column_rows() == 1000
        features = prepare(NumPyBackend(), table, settings)
        X, _encoded = encode_features(NumPyBackend(), features.encoder, table)
    assert features.X.shape == (5000, 5)
    # each row is what the encoder says of it
    np.testing.assert_array_equal(features.X, X[features.order])
    kept = [d for d in features.decisions if d.decision == "kept"]
    assert all("by a fair sample of 1,000 rows" in d.reason for d in kept)
    [words] = [w for w in features.warnings if "fair sample" in w]
    assert "1,000 rows of 5,000" in words
    whole = prepare(NumPyBackend(), table, settings)
    assert np.abs(features.X.mean(axis=0)).max() < 0.1
    assert abs(features.X[:, 0].std() - whole.X[:, 0].std()) < 0.05
