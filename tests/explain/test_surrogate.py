"""The tree for all segments: planted segments come back, and DuckDB finds the same rows."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from explain.by_hand import categorical, datetimes, numeric, shuffled, some_table

from gpuseg.explain.surrogate import segment_tree


def assert_duckdb_agrees(tree, table, labels):
    """The CASE expression gives every row its leaf's segment; each leaf counts its rows."""
    with duckdb.connect() as connection:
        connection.register("source", table)
        connection.register("labels", pa.table({"gpuseg label": labels}))
        connection.execute(
            f'CREATE TABLE placed AS SELECT *, {tree.sql} AS "found" '
            "FROM source POSITIONAL JOIN labels"
        )
        [(right, n_rows)] = connection.execute(
            'SELECT count(*) FILTER (WHERE "found" = "gpuseg label"), count(*) FROM placed'
        ).fetchall()
        assert n_rows == len(labels)
        assert tree.fidelity == right / n_rows
        for leaf in tree.leaves.to_pylist():
            member = f'"gpuseg label" = {leaf["cluster_id"]}'
            counts = ", ".join(
                f"count(*) FILTER (WHERE {condition})"
                for condition in (leaf["sql"], f"({leaf['sql']}) AND {member}", member)
            )
            segments = f'list(DISTINCT "found") FILTER (WHERE {leaf["sql"]})'
            [(reached, hits, members, found)] = connection.execute(
                f"SELECT {counts}, {segments} FROM placed"
            ).fetchall()
            assert found == [leaf["cluster_id"]]
            assert leaf["n_rows"] == reached
            assert leaf["precision"] == hits / reached
            assert leaf["coverage"] == hits / members
    assert sum(tree.leaves["n_rows"].to_pylist()) == len(labels)


def test_tells_planted_segments_in_words():
    age = np.repeat(np.arange(18, 78), 10)
    city = np.tile(["Rome", "Oslo", "Oslo", "Oslo", "Oslo"], 120)
    labels = np.where(city == "Rome", 2, age >= 42).astype(np.int32)
    tree = segment_tree([numeric("age", age), categorical("city", city)], labels)
    assert tree.fidelity == 1.0
    assert tree.depth == 2
    assert tree.text.splitlines() == [
        "if age >= 42:",
        "  if city is Rome:",
        "    segment 2 (100% of 72 rows)",
        "  otherwise:",
        "    segment 1 (100% of 288 rows)",
        "otherwise:",
        "  if city is Rome:",
        "    segment 2 (100% of 48 rows)",
        "  otherwise:",
        "    segment 0 (100% of 192 rows)",
    ]
    assert tree.leaves["rule"].to_pylist()[1] == "age >= 42 and not (city is Rome)"
    assert tree.leaves["coverage"].to_pylist() == [0.6, 1.0, 0.4, 1.0]
    assert_duckdb_agrees(tree, pa.table({"age": age, "city": city}), labels)


@pytest.mark.parametrize("max_rows", [10_000, 500])
def test_the_same_rows_in_words_and_in_sql(max_rows):
    columns, labels = some_table(5000)
    tree = segment_tree(columns, labels, max_rows=max_rows)
    assert tree.fidelity > 0.95
    amount, city, since = columns
    texts = [None if code < 0 else city.categories[code] for code in city.values]
    table = pa.table(
        {
            "amount": pa.array(amount.values, from_pandas=True),
            "city": texts,
            "since": since.values,
        }
    )
    assert_duckdb_agrees(tree, table, labels)
    moved, moved_labels, _ = shuffled(columns, labels, 4)
    assert segment_tree(moved, moved_labels, max_rows=max_rows) == tree


def test_missing_values_go_to_one_side_and_it_says_which():
    income = np.where(np.arange(300) % 3 == 0, np.nan, np.arange(300))
    labels = (np.isnan(income) | (np.nan_to_num(income) >= 150)).astype(np.int32)
    tree = segment_tree([numeric("income", income)], labels)
    assert tree.fidelity == 1.0
    assert tree.text.startswith("if income >= 150 (or missing):\n  segment 1")
    table = pa.table({"income": pa.array(income, from_pandas=True)})
    assert_duckdb_agrees(tree, table, labels)
    missing = np.isnan(income).astype(np.int32)
    tree = segment_tree([numeric("income", income)], missing)
    assert tree.text.startswith("if income is missing:\n  segment 1 (100% of 100 rows)")
    assert_duckdb_agrees(tree, table, missing)


def test_a_question_about_what_is_missing_is_answered_no():
    """NULL is neither yes nor no in SQL; the tree sends it to the other side."""
    day = np.array(["2020-01-01", "2022-01-01", "NaT"] * 50, dtype="datetime64[us]")
    labels = np.tile(np.array([0, 1, 0], dtype=np.int32), 50)
    tree = segment_tree([datetimes("day", day)], labels)
    assert tree.fidelity == 1.0
    assert_duckdb_agrees(tree, pa.table({"day": day}), labels)


def test_it_is_as_shallow_as_it_can_be_without_saying_much_less():
    rng = np.random.default_rng(0)
    a, b = rng.random(20_000), rng.random(20_000)
    # one cut is right for all but 1 % of the rows
    labels = ((a > 0.5) ^ (b > 0.99)).astype(np.int32)
    columns = [numeric("a", a), numeric("b", b)]
    tree = segment_tree(columns, labels)
    assert tree.depth == 1
    assert tree.fidelity == pytest.approx(0.99, abs=0.003)
    # neither column says anything alone: the first cut is of no use without the second
    labels = ((a > 0.5) ^ (b > 0.55)).astype(np.int32)
    assert segment_tree(columns, labels).depth > 1
    assert segment_tree(columns, labels).fidelity > 0.85


def test_no_question_is_asked_in_vain():
    rng = np.random.default_rng(1)
    x, y = rng.random(3000), rng.random(3000)
    labels = (rng.random(3000) < 0.1 + 0.35 * (x > 0.5)).astype(np.int32)
    labels[y > 0.9] = 2
    tree = segment_tree([numeric("x", x), numeric("y", y)], labels)
    lines = [line.strip() for line in tree.text.splitlines()]
    assert sorted(tree.leaves["cluster_id"].to_pylist()) == [0, 2]
    assert len(lines) == 4


def test_without_columns_the_largest_segment_is_the_answer():
    labels = np.array([0, 1, 1, 1], dtype=np.int32)
    tree = segment_tree([], labels)
    assert (tree.text, tree.fidelity, tree.depth) == ("segment 1 (75% of 4 rows)", 0.75, 0)
    assert (tree.sql, tree.leaves["sql"].to_pylist()) == ("1", ["TRUE"])
