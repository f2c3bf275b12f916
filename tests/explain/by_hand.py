"""Columns made by hand, and DuckDB as the judge of what a rule says."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from gpuseg.explain.conditions import RuleColumn
from gpuseg.explain.rule_columns import quote_text
from gpuseg.explain.rules import find_rules
from gpuseg.tables.duckdb_types import quoted


def numeric(name, values):
    return RuleColumn(name, "numeric", np.asarray(values, dtype=np.float64), quoted(name))


def datetimes(name, values):
    return RuleColumn(name, "datetime", np.asarray(values, "datetime64[us]"), quoted(name))


def categorical(name, values):
    categories = sorted({value for value in values if value is not None})
    codes = [-1 if value is None else categories.index(value) for value in values]
    return RuleColumn(
        name,
        "categorical",
        np.array(codes, dtype=np.int32),
        quoted(name),
        tuple(categories),
        tuple((quote_text(category),) for category in categories),
    )


def labelled(members):
    return np.asarray(members).astype(np.int32)


def rules_of(columns, labels, **options):
    rows = find_rules(columns, labels, int(labels.max()) + 1, **options).to_pylist()
    return {c: [r for r in rows if r["cluster_id"] == c] for c in range(int(labels.max()) + 1)}


def shuffled(columns, labels, seed):
    order = np.random.default_rng(seed).permutation(len(labels))
    moved = [
        RuleColumn(c.name, c.kind, c.values[order], c.sql, c.categories, c.spellings)
        for c in columns
    ]
    return moved, labels[order], order


def some_table(n, seed=5):
    rng = np.random.default_rng(seed)
    amount = np.round(rng.lognormal(3, 1, n), 2)
    amount[rng.random(n) < 0.05] = np.nan
    city = rng.choice(["Bari", "Oslo", "Rome", None], n).tolist()
    since = np.datetime64("2020-01-01") + rng.integers(0, 900, n).astype("timedelta64[D]")
    columns = [numeric("amount", amount), categorical("city", city), datetimes("since", since)]
    labels = (np.nan_to_num(amount) > 30).astype(np.int32)
    labels[since > np.datetime64("2022-01-01")] = 2
    return columns, labels


def f1_of(rule):
    return 2 * rule["coverage"] * rule["precision"] / (rule["coverage"] + rule["precision"])


def assert_sql_counts_agree(table, labels, rules):
    """DuckDB must count, on the original table, what the rules say."""
    assert rules.num_rows > 0
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.register("source", table)
        connection.register("labels", pa.table({"gpuseg label": labels}))
        connection.execute("CREATE TABLE original AS SELECT * FROM source POSITIONAL JOIN labels")
        for rule in rules.to_pylist():
            member = f'"gpuseg label" = {rule["cluster_id"]}'
            filters = (rule["sql"], f"({rule['sql']}) AND {member}", member)
            counts = ", ".join(f"count(*) FILTER (WHERE {f})" for f in filters)
            [(selected, hits, members)] = connection.execute(
                f"SELECT {counts} FROM original"
            ).fetchall()
            assert rule["coverage"] == hits / members, rule
            assert rule["precision"] == hits / selected, rule
