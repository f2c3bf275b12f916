"""A run that memory does not hold gives the very results of one that it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuseg import pipeline
from gpuseg.backends.cpu import by_buckets, lloyd
from gpuseg.memory import Room, working_within
from gpuseg.settings import Settings
from gpuseg.tables import delimited, files

DATA = Path(__file__).parents[1] / "data"
GLUON = Path(__file__).parents[2] / "examples" / "gluon_train.parquet"

#: Of a table in memory a run would take a hundred times as much.
TINY = 200_000


@pytest.fixture
def in_small_pieces(monkeypatch):
    """Let small tables take the way of large ones, with and without enough memory."""
    monkeypatch.setattr(by_buckets, "MANY_ROWS", 1)
    monkeypatch.setattr(by_buckets, "BLOCK_ROWS", 700)
    monkeypatch.setattr(by_buckets, "BUCKET_ROWS", 300)
    monkeypatch.setattr(by_buckets, "BUCKET_BYTES", 40_000)
    monkeypatch.setattr(lloyd, "CACHED_VALUES", 0)
    monkeypatch.setattr(lloyd, "PIECE_TILES", 3)
    monkeypatch.setattr(files, "BATCH_ROWS", 500)
    monkeypatch.setattr(delimited, "BATCH_ROWS", 500)
    # else a column would be judged by a sample, which is another result
    monkeypatch.setattr(Room, "column_rows", lambda _self: None)


def run(source: Path, folder: Path, **more):
    return pipeline.run(
        Settings(
            input_table=str(source),
            output_table=str(folder / "out.parquet"),
            runs_dir=str(folder / "runs"),
            backend="numpy",
            max_clusters=5,
            n_init=3,
            **more,
        )
    )


def assert_same(one, other):
    np.testing.assert_array_equal(one.labels, other.labels)
    for name in ("k_scores", "columns", "rules"):
        assert getattr(one, name).equals(getattr(other, name)), name
    assert one.tree == other.tree
    for name in ("feature_importance", "shap_values", "profiles"):
        mine, others = (getattr(each.explanation, name) for each in (one, other))
        assert mine.equals(others), name
    np.testing.assert_array_equal(one.model.centroids, other.model.centroids)
    assert one.model.encoder_dict == other.model.encoder_dict
    assert one.segments == other.segments
    assert one.table.equals(other.table)
    assert one.warnings == other.warnings


def compare(source: Path, tmp_path: Path, **more) -> Room:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    held = run(source, tmp_path / "a", **more)
    with working_within(None, of=Room(TINY, tmp_path)) as room:
        streamed = run(source, tmp_path / "b", **more)
    assert_same(held, streamed)
    files_of_both = [tmp_path / name / "out.parquet" for name in "ab"]
    written, again = map(pq.read_table, files_of_both)
    assert written.equals(again)
    assert list(tmp_path.glob("gpuseg-*")) == []
    return room


@pytest.mark.parametrize("name", ["CC GENERAL.csv", "Telco-Customer-Churn.csv"])
@pytest.mark.usefixtures("in_small_pieces")
def test_a_csv_file(name, tmp_path):
    room = compare(DATA / name, tmp_path)
    assert room.in_files_bytes > 5 * (DATA / name).stat().st_size


@pytest.mark.usefixtures("in_small_pieces")
def test_a_parquet_file_with_dates_scores_and_a_projection(tmp_path):
    rows = pq.read_table(GLUON).slice(0, 6000)
    source = tmp_path / "rows.parquet"
    pq.write_table(rows, source, row_group_size=1700)
    compare(source, tmp_path, row_scores=True, dimension_reduction_threshold=10)


@pytest.mark.usefixtures("in_small_pieces")
def test_few_rows_are_scored_of_many(tmp_path):
    rows = pq.read_table(GLUON).slice(0, 4000)
    source = tmp_path / "rows.parquet"
    pq.write_table(rows, source)
    compare(source, tmp_path, sample_size=500)
