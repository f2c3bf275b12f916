"""Rollback in PostgreSQL: every type comes back, and what was made for the table stays."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from gpuseg_process import gpuseg
from postgres_server import PASSWORD, QUOTED_PASSWORD

ROWS = "SELECT id, spend::text, tags::text, doc::text, born::text, price::text, cluster_id FROM {} "
TYPES = (
    "SELECT column_name::text, udt_name::text, numeric_scale::int FROM information_schema.columns "
    "WHERE table_schema = 'rolled' AND table_name = 'segments' ORDER BY ordinal_position"
)


@pytest.mark.slow
def test_a_rollback_restores_the_table_and_its_types(postgres_server, tmp_path):
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 150)
    pl.DataFrame(
        {
            "id": [f"C{i:05}" for i in range(150)],
            "spend": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
        }
    ).write_csv(tmp_path / "customers.csv")
    postgres_server.sql("DROP SCHEMA IF EXISTS rolled CASCADE")
    env = {"GPUSEG_WAREHOUSE": postgres_server.url()}
    assert gpuseg(tmp_path, "load", "customers.csv", "rolled.customers", **env).returncode == 0
    postgres_server.sql(
        "ALTER TABLE rolled.customers ADD tags text[] DEFAULT ARRAY['a,b', NULL], "
        "ADD doc jsonb DEFAULT '{\"k\": [1, null]}', ADD born date DEFAULT '2001-02-03', "
        "ADD price numeric(12, 3) DEFAULT 1234.500"
    )
    run = (
        "run", "--input-table", "rolled.customers", "--output-table", "rolled.segments",
        "--columns", "spend,visits", "--rowid-column", "id", "--model-name", "m",
        "--max-clusters", "3", "--n-init", "2", "--export-profiles", "profiles", "--json", "-q",
    )  # fmt: skip
    first = gpuseg(tmp_path, *run, **env)
    assert first.returncode == 0, first.stderr
    postgres_server.sql("COMMENT ON TABLE rolled.segments IS 'ours'")
    before = postgres_server.sql(ROWS.format("rolled.segments") + "ORDER BY id")
    types = postgres_server.sql(TYPES)
    profiles = postgres_server.sql("SELECT count(*)::int FROM rolled.profiles")
    postgres_server.sql("DELETE FROM rolled.customers WHERE spend > 70")
    assert gpuseg(tmp_path, *run, **env).returncode == 0
    assert len(postgres_server.sql(ROWS.format("rolled.segments"))) < len(before)

    # the password may also come from where libpq looks for it
    login = {"GPUSEG_WAREHOUSE": "", "PGPASSWORD": PASSWORD}
    back = gpuseg(tmp_path, "models", "rollback", "m", "--json", **login)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["run_id"] == json.loads(first.stdout)["run_id"]
    assert postgres_server.sql(ROWS.format("rolled.segments") + "ORDER BY id") == before
    assert postgres_server.sql(TYPES) == types
    assert postgres_server.sql("SELECT count(*)::int FROM rolled.profiles") == profiles
    comment = "SELECT obj_description('rolled.segments'::regclass, 'pg_class')"
    assert postgres_server.sql(comment) == [("ours",)]
    left = "SELECT count(*)::int FROM pg_class WHERE relname LIKE 'gpuseg%'"
    assert postgres_server.sql(left) == [(0,)]

    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PASSWORD.encode() not in content
            assert QUOTED_PASSWORD.encode() not in content
    wrong = gpuseg(tmp_path, "models", "rollback", "m", "--warehouse", "duckdb:x.duckdb", **env)
    assert wrong.returncode == 2
