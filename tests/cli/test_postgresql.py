"""The commands against PostgreSQL: the same as against DuckDB, and no password anywhere."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from gpuseg_process import gpuseg
from postgres_server import PASSWORD, QUOTED_PASSWORD


@pytest.fixture(scope="module")
def shop(postgres_server, tmp_path_factory):
    """Return a folder and a warehouse that `gpuseg load` has filled."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 300)
    pl.DataFrame(
        {
            "id": [f"C{i:05}" for i in range(300)],
            "Spend (€)": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
            "city": np.array(["Rome", "Oslo", "Lima"])[group],
        }
    ).write_csv(folder / "customers.csv")
    postgres_server.sql("DROP SCHEMA IF EXISTS shop CASCADE; DROP SCHEMA IF EXISTS out CASCADE")
    env = {"GPUSEG_WAREHOUSE": postgres_server.url()}
    loaded = gpuseg(folder, "load", "customers.csv", "shop.customers", **env)
    assert loaded.returncode == 0, loaded.stderr
    postgres_server.sql(
        "ALTER TABLE shop.customers ADD tags text[] DEFAULT ARRAY['a,b', NULL], "
        "ADD doc jsonb DEFAULT '{\"k\": [1, null]}', ADD born date DEFAULT '2001-02-03'"
    )
    return folder, env


@pytest.fixture(scope="module")
def ran(shop):
    folder, env = shop
    process = gpuseg(
        folder, "run", "--input-table", "shop.customers", "--output-table", "out.segments",
        "--model-name", "m", "--max-clusters", "4", "--export-feature-importance", "importance",
        "--export-shap-values", "out.shap", "--export-profiles", "out.profiles",
        "--export-k-scores", "out.k", "--export-rules", "out.rules", "--row-scores", "--json",
        "--debug", **env,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process


@pytest.mark.slow
def test_a_run_writes_every_table_and_keeps_every_type(ran, postgres_server):
    found = json.loads(ran.stdout)
    assert (found["n_rows"], found["n_clusters"]) == (300, 3)
    assert postgres_server.sql(
        "SELECT count(*)::int, count(DISTINCT cluster_id)::int, min(pg_typeof(tags)::text), "
        "min(pg_typeof(doc)::text), min(pg_typeof(born)::text), min(doc->>'k') FROM out.segments"
    ) == [(300, 3, "text[]", "jsonb", "date", "[1, null]")]
    for name in ("importance", "shap", "profiles", "k", "rules"):
        assert postgres_server.sql(f"SELECT count(*) FROM out.{name}")[0][0] > 0
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'gpuseg%'"
    assert postgres_server.sql(left) == [(0,)]


@pytest.mark.slow
def test_assign_plan_and_queries_work_too(ran, shop, postgres_server):
    folder, env = shop
    assigned = gpuseg(
        folder, "assign", "--model-name", "m", "--output-table", "out.placed",
        "--input-query", "SELECT * FROM shop.customers WHERE visits > 4;", **env,
    )  # fmt: skip
    assert assigned.returncode == 0, assigned.stderr
    assert postgres_server.sql(
        "SELECT count(*) FROM out.placed p JOIN out.segments s USING (id) "
        "WHERE p.cluster_id <> s.cluster_id"
    ) == [(0,)]
    planned = gpuseg(folder, "plan", "--input-table", "shop.customers", "--json", **env)
    assert json.loads(planned.stdout)["n_rows"] == 300
    again = gpuseg(
        folder, "assign", "--model-name", "m", "--input-table", "shop.customers",
        "--output-table", "out.placed", "--output-mode", "append", **env,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    exported = gpuseg(folder, "models", "export", "m", "--dialect", "postgres")
    assert exported.returncode == 0, exported.stderr
    assert postgres_server.sql(
        f"SELECT count(*) FROM ({exported.stdout}) q JOIN out.segments s USING (id) "
        "WHERE q.cluster_id = s.cluster_id"
    ) == [(300,)]


@pytest.mark.slow
def test_the_password_is_nowhere(ran, shop):
    folder, env = shop
    wrong = env["GPUSEG_WAREHOUSE"].replace(QUOTED_PASSWORD, "wr0ng%20one")
    refused = gpuseg(folder, "plan", "--input-table", "shop.t", GPUSEG_WAREHOUSE=wrong)
    assert refused.returncode == 2
    assert "password authentication failed" in refused.stderr
    document = gpuseg(folder, "models", "export", "m", "--format", "json").stdout
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [ran.stdout, ran.stderr, refused.stderr, document]
    texts += [path.read_bytes().decode("utf-8", "replace") for path in files]
    assert len(texts) > 10
    for secret in (PASSWORD, QUOTED_PASSWORD, "wr0ng", "s3cret"):
        assert not [text[:200] for text in texts if secret in text]


@pytest.mark.slow
def test_a_server_that_is_down_ends_with_4(shop):
    folder, _env = shop
    down = "postgresql://me:pw@127.0.0.1:1/db"
    process = gpuseg(folder, "plan", "--input-table", "a.b", "--warehouse", down)
    assert process.returncode == 4
    assert "Connection refused" in process.stderr


def test_exports_are_asked_for_in_known_words(shop):
    folder, _env = shop
    unknown = gpuseg(folder, "models", "export", "nothing")
    assert unknown.returncode == 2
    assert "there is no current model 'nothing'" in unknown.stderr
    wrong = gpuseg(folder, "models", "export", "m", "--format", "xml")
    assert wrong.returncode == 2
    assert "expected sql or json" in wrong.stderr
