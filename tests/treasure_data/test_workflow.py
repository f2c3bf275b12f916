"""A whole workflow as a user types it: the notebook's block against Treasure Data, twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from treasure_data.cdp_routes import add_audience, population
from treasure_data.loopback import MASTER_KEY, WRITE_ONLY_KEY, Fault

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOW = str(EXAMPLES / "clustering.dig")
N_ROWS = int(os.environ.get("GPUSEG_WORKFLOW_ROWS", "1500"))


def gpuseg(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the current folder."""
    return subprocess.run(
        [sys.executable, "-m", "gpuseg", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GPUSEG_WAREHOUSE": "td"} | environment,
    )


@pytest.fixture
def td(server):
    """Return a server with the census table, loaded by gpuseg, and a master segment."""
    table = pq.read_table(EXAMPLES / "gluon_train.parquet").slice(0, N_ROWS)
    rowid = pa.array([f"r{i}" for i in range(table.num_rows)])
    pq.write_table(table.append_column("rowid", rowid), "gluon_train.parquet")
    customers = pa.table({"customer_id": rowid, "city": ["Rome"] * table.num_rows})
    server.store.put("crm", "customers", customers)
    server.store.create_database("ml_datasets")
    server.store.create_database("ml_test")
    loaded = gpuseg("load", "gluon_train.parquet", "ml_datasets.gluon_train")
    assert loaded.returncode == 0, loaded.stderr
    assert "column 'marital-status' is called 'marital_status' in Treasure Data" in loaded.stderr
    assert server.store.count("ml_datasets", "gluon_train") == table.num_rows
    server.audience = add_audience(server, "Customers", ("crm", "customers"))
    server.log.clear()
    return server


def assert_no_key(*processes: subprocess.CompletedProcess[str]) -> None:
    """Look for the key in every stream and in every file that was written."""
    for key in (MASTER_KEY, WRITE_ONLY_KEY):
        for secret in (key, key.partition("/")[2]):
            for process in processes:
                assert secret not in process.stdout + process.stderr
            for path in Path().rglob("*"):
                assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_the_notebooks_block_runs_end_to_end_twice(td):
    first = gpuseg("run", "--config", WORKFLOW, "--json")
    assert first.returncode == 0, first.stderr
    sizes = json.loads(first.stdout)["cluster_sizes"]
    names = [segment["name"] for segment in json.loads(first.stdout)["segments"]]
    assert list(json.loads(first.stdout)["seconds"])[-2:] == ["publish", "audience"]
    found = {segment["name"]: population(td, td.audience, segment)
             for segment in td.store.segments.values()}  # fmt: skip
    assert found == dict(zip(names, sizes, strict=True))
    assert td.store.count("ml_test", "gluon_train_clusters") == N_ROWS

    second = gpuseg("run", "--config", WORKFLOW, "--json", session_id="second")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["cluster_sizes"] == sizes
    assert len(td.store.segments) == len(sizes)
    assert len([f for f in td.store.folders.values() if f["parent"]]) == 1
    attributes = td.store.audiences[td.audience]["attributes"]
    assert [entry["name"] for entry in attributes] == ["city", "cluster_id"]
    tables = td.store.names("ml_test")
    assert len([t for t in tables if t.startswith("importance_")]) == 2
    assert len([t for t in tables if t.startswith("shap_")]) == 2
    assert len(tables) == 5  # no side table stayed
    assert td.store.sessions == {}
    statements = [r.body.decode() for name, r in td.log if name == "POST /v1/statement"]
    assert all(MASTER_KEY not in sql and "*" not in sql for sql in statements)

    planned = gpuseg("audience", "push", "--config", WORKFLOW, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "PATCH" in planned.stdout
    assert "POST   /entities" not in planned.stdout
    before = len(td.calls("PATCH|POST /entities|PUT /aud"))
    pushed = gpuseg("audience", "push", "--config", WORKFLOW, "--json", "--debug")
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["segments"] == names
    assert len(td.calls("PATCH|POST /entities|PUT /aud")) == before + len(sizes)
    assert_no_key(first, second, planned, pushed)


def test_what_cannot_work_ends_before_any_work(td):
    cases = [
        (("run", "--config", WORKFLOW), {"TD_API_KEY": "1/nobody-knows-it"}, "401"),
        (("run", "--config", WORKFLOW), {"TD_API_KEY": WRITE_ONLY_KEY}, "403"),
        (("run", "--config", WORKFLOW, "--audience-name", "Nobody"), {}, "no master segment"),
        (("run", "--config", WORKFLOW, "--output-mode", "append"), {}, "one row for each"),
        (("run", "--config", WORKFLOW, "--rowid-column", "sex"), {}, "2 different values"),
        (("run", "--config", WORKFLOW, "--output-table", "nodb.out"), {}, "no database 'nodb'"),
        (("audience", "push", "--config", WORKFLOW), {}, "is not in Treasure Data|NOT_FOUND"),
        (("audience", "push"), {}, "give --audience-name"),
    ]  # fmt: skip
    processes = []
    for arguments, environment, words in cases:
        process = gpuseg(*arguments, "--debug", **environment)
        assert process.returncode == 2, (arguments, process.stderr)
        assert any(word in process.stderr for word in words.split("|")), process.stderr
        processes.append(process)
    assert not td.calls("PUT|PATCH|DELETE|POST /(v3|aud|ent)")
    assert not Path("gpuseg_runs").exists()
    assert_no_key(*processes)


@pytest.mark.slow
def test_a_push_that_fails_after_publishing_says_what_is_done(td):
    td.faults = [Fault("POST /audiences/*/run", 403)]
    process = gpuseg("run", "--config", WORKFLOW, "--num-clusters", "2", "--json")
    assert process.returncode == 4
    assert "the tables are published, but the audience 'Customers' is not" in process.stderr
    assert "gpuseg audience push tries again" in process.stderr
    assert td.store.count("ml_test", "gluon_train_clusters") == N_ROWS
    assert td.store.segments == {}
    assert_no_key(process)


def test_a_plan_reads_little_and_writes_nothing(td):
    process = gpuseg("plan", "--config", WORKFLOW, "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["n_rows"] == N_ROWS
    assert not td.calls("PUT|PATCH|DELETE|POST /(v3|aud|ent)")
