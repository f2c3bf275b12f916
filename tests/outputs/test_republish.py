"""A run of the past is published again: where that does no harm, and all of it or nothing."""

import json
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outputs.runs import NAME, add_run, edit_manifest, run_id_of

from gpuseg.errors import DataError, ModelError, SettingsError
from gpuseg.outputs.keeping import content_hash
from gpuseg.outputs.manifest import Fingerprint, Output
from gpuseg.outputs.models import champion
from gpuseg.outputs.promotions import read_champion
from gpuseg.outputs.republish import promote_run, roll_back
from gpuseg.outputs.retention import prune_runs
from gpuseg.outputs.run_folder import RunFolder, has_table, read_kept_table
from gpuseg.tables import publishing

ROWS = pa.table({"id": [1, 2, 3], "cluster_id": [0, 1, 0]})


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def add(
    number, output="out.parquet", *, status="published", kinds=("rows",), next_cluster_id=0,
    **settings,
):  # fmt: skip
    """Make a run that wrote to a place."""
    settings = {"output_table": output, **settings}
    return add_run(
        runs_dir(),
        number,
        status=status,
        next_cluster_id=next_cluster_id,
        settings=settings,
        outputs=tuple(Output(kind, str(output), 3) for kind in kinds),
    )


def runs_dir():
    return Path("gpuseg_runs")


def mark(number, *clusters):
    """Let the rows of a run be told from those of another."""
    path = runs_dir() / NAME / run_id_of(number) / "tables/rows.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "cluster_id": list(clusters)}), path)


def test_rollback_goes_back_one_published_run_at_a_time():
    for number in range(3):
        add(number)
        mark(number, number, number, number)
    add(3, status="refused")
    done = roll_back(runs_dir(), NAME)
    assert (done.run_id, done.previous_run_id) == (run_id_of(1), run_id_of(2))
    assert done.outputs == ("out.parquet",)
    assert pq.read_table("out.parquet")["cluster_id"].to_pylist() == [1, 1, 1]
    assert roll_back(runs_dir(), NAME).run_id == run_id_of(0)
    assert pq.read_table("out.parquet")["cluster_id"].to_pylist() == [0, 0, 0]
    with pytest.raises(ModelError, match="nothing to go back to"):
        roll_back(runs_dir(), NAME)


def test_a_rollback_says_which_exports_of_the_newer_run_stay():
    add(0)
    newer = add_run(
        runs_dir(), 1, settings={"output_table": "out.parquet", "export_rules": "rules.csv"},
        outputs=(Output("rules", "rules.csv", 3), Output("rows", "out.parquet", 3)),
    )  # fmt: skip
    assert roll_back(runs_dir(), NAME).notes == (f"of run {newer} stays as it is: 'rules.csv'",)


def test_a_run_whose_folder_was_deleted_by_hand_is_passed_over():
    for number in range(3):
        add(number)
    shutil.rmtree(runs_dir() / NAME / run_id_of(1))
    assert roll_back(runs_dir(), NAME).run_id == run_id_of(0)


def test_what_fails_leaves_tables_and_model(monkeypatch):
    add(0, kinds=("rows", "profiles"), export_profiles="profiles.csv")
    add(1)
    pq.write_table(ROWS, "out.parquet")
    with pytest.raises(ModelError, match="does not keep the table 'profiles'"):
        roll_back(runs_dir(), NAME)
    run = runs_dir() / NAME / run_id_of(0)
    pq.write_table(pa.table({"x": [1]}), run / "tables/profiles.parquet")

    class PowerCutError(Exception):
        pass

    def cut(moment):
        if moment == "swap 1":
            raise PowerCutError

    monkeypatch.setattr(publishing, "reached", cut)
    with pytest.raises(PowerCutError):
        roll_back(runs_dir(), NAME)
    assert champion(runs_dir(), NAME) == run_id_of(1)
    assert pq.read_table("out.parquet").equals(ROWS)
    monkeypatch.undo()


def test_rows_that_are_no_longer_kept_are_missed_in_words():
    add(0)
    add(1)
    (runs_dir() / NAME / run_id_of(0) / "tables/rows.parquet").unlink()
    with pytest.raises(ModelError, match=r"no longer kept.*--model-only.*--no-force-refit"):
        roll_back(runs_dir(), NAME)
    assert champion(runs_dir(), NAME) == run_id_of(1)
    done = roll_back(runs_dir(), NAME, model_only=True)
    assert champion(runs_dir(), NAME) == run_id_of(0)
    assert done.outputs == ()


def test_rows_that_were_appended_are_neither_taken_back_nor_added_twice():
    pq.write_table(ROWS, "out.parquet")
    add(0, output_mode="append")
    add(1, output_mode="append")
    refused = add(2, output_mode="append", status="refused")
    with pytest.raises(SettingsError, match=r"appended its rows.*--model-only"):
        roll_back(runs_dir(), NAME)
    assert pq.read_table("out.parquet").num_rows == 3
    promote_run(runs_dir(), NAME, refused)  # its rows were never added
    assert pq.read_table("out.parquet").num_rows == 6
    with pytest.raises(SettingsError, match="appended"):
        promote_run(runs_dir(), NAME, refused)


def test_a_damaged_champion_file_is_repaired_by_naming_a_run():
    for number in range(3):
        add(number, next_cluster_id=10 * (number + 1))
    path = runs_dir() / NAME / "champion.json"
    path.write_text('{"run_id": "2026')
    with pytest.raises(ModelError, match=r"damaged.*gpuseg models promote customers RUN_ID"):
        roll_back(runs_dir(), NAME)
    done = promote_run(runs_dir(), NAME, run_id_of(0))
    assert (done.previous_run_id, done.outputs) == (None, ("out.parquet",))
    assert "published before is lost" in done.notes[0]
    current = read_champion(runs_dir(), NAME)
    assert [(p.run_id, p.how) for p in current.promotions] == [(run_id_of(0), "promote")]
    assert current.next_cluster_id == 30  # ids of the newer runs are not given twice
    assert prune_runs(runs_dir(), NAME, 9) == ()
    assert all(has_table(runs_dir() / NAME / run_id_of(number), "rows") for number in range(3))


def test_with_a_damaged_champion_file_rows_are_not_appended_again():
    run_id = add(0, output_mode="append")
    pq.write_table(ROWS, "out.parquet")
    (runs_dir() / NAME / "champion.json").write_text("{")
    with pytest.raises(SettingsError, match=r"damaged.*has appended.*--model-only"):
        promote_run(runs_dir(), NAME, run_id)
    assert pq.read_table("out.parquet").equals(ROWS)
    promote_run(runs_dir(), NAME, run_id, model_only=True)
    assert champion(runs_dir(), NAME) == run_id


def test_newer_rows_of_the_input_itself_are_not_overwritten():
    source = pa.table({"id": [1, 2, 3]})
    pq.write_table(ROWS, "c.parquet")
    fingerprint = Fingerprint("c.parquet", 3, {"id": "int64"}, content_hash(source))
    run_id = add_run(
        runs_dir(), 0, status="refused", input=fingerprint,
        settings={"input_table": "c.parquet", "output_table": "c.parquet"},
        outputs=(Output("rows", "c.parquet", 3),),
    )  # fmt: skip
    mark(0, 7, 7, 7)
    promote_run(runs_dir(), NAME, run_id)  # the input is what it was
    assert pq.read_table("c.parquet")["cluster_id"].to_pylist() == [7, 7, 7]
    newer = pa.table({"id": [1, 2, 3, 4], "cluster_id": [0, 0, 0, 0]})
    pq.write_table(newer, "c.parquet")
    with pytest.raises(SettingsError, match=r"its own input 'c.parquet'.*--model-only"):
        promote_run(runs_dir(), NAME, run_id)
    assert pq.read_table("c.parquet").equals(newer)
    Path("c.parquet").unlink()
    promote_run(runs_dir(), NAME, run_id)  # what vanished is put back
    assert pq.read_table("c.parquet").num_rows == 3


def test_a_target_that_vanished_is_made_again_but_not_its_folder():
    add(0, "out.people")
    add(1, "out.people")
    roll_back(runs_dir(), NAME)
    with duckdb.connect("gpuseg.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM out.people").fetchone() == (3,)
    lost = add(2, "there/out.parquet", status="refused")
    with pytest.raises(SettingsError, match="there is no folder"):
        promote_run(runs_dir(), NAME, lost)
    assert champion(runs_dir(), NAME) == run_id_of(0)


def test_another_warehouse_than_the_runs_is_refused():
    run_id = add(0, "out.people", warehouse="postgresql://ann:***@host/shop")
    with pytest.raises(SettingsError, match=r"postgresql://ann@host/shop.*duckdb:other"):
        promote_run(runs_dir(), NAME, run_id, warehouse="duckdb:other.duckdb")
    hidden = add(1, "out.people", warehouse="adbc:adbc_driver_sqlite?***")
    with pytest.raises(SettingsError, match="leaves warehouse out"):
        promote_run(runs_dir(), NAME, hidden)
    given = "adbc:adbc_driver_sqlite?uri=shop.sqlite"
    edit_manifest(runs_dir() / NAME / hidden, settings={
        "output_table": "main.people", "warehouse": "adbc:adbc_driver_sqlite?***",
    })  # fmt: skip
    assert promote_run(runs_dir(), NAME, hidden, warehouse=given).outputs == ("main.people",)


def test_a_run_of_another_model_or_without_its_model_is_refused():
    run_id = add(0)
    with pytest.raises(ModelError, match="has no run"):
        promote_run(runs_dir(), "other", run_id)
    (runs_dir() / NAME / run_id / "model/model.json").write_text("{}")
    with pytest.raises(ModelError):
        promote_run(runs_dir(), NAME, run_id)
    assert not Path("out.parquet").exists()


def test_a_manifest_without_a_place_for_what_it_wrote_is_refused():
    run_id = add(0, kinds=("rows", "profiles"))
    with pytest.raises(ModelError, match="'profiles' went"):
        promote_run(runs_dir(), NAME, run_id)


def test_the_audience_is_said_to_be_as_it_was():
    audience = {"audience_name": "a", "foreign_key": "k", "rowid_column": "id"}
    done = promote_run(runs_dir(), NAME, add(0, **audience))
    assert "gpuseg audience push" in done.notes[0]
    assert json.dumps(done.as_dict())


def test_types_that_parquet_cannot_hold_are_kept_as_well(tmp_path):
    table = duckdb.sql("SELECT INTERVAL 3 DAY AS pause, 1 AS cluster_id").to_arrow_table()
    with RunFolder.create(tmp_path / "r", "m") as folder:
        assert folder.write_table("rows", table).suffix == ".arrow"
        folder.complete()
    assert has_table(folder.path, "rows")
    assert read_kept_table(folder.path, "rows").equals(table)
    (folder.path / "tables/rows.arrow").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="damaged"):
        read_kept_table(folder.path, "rows")


def test_data_errors_of_a_target_are_told(tmp_path):
    run_id = add(0, "out.csv")
    path = runs_dir() / NAME / run_id / "tables/rows.parquet"
    pq.write_table(pa.table({"a": [1], "A": [2]}), path)
    with pytest.raises(DataError):
        promote_run(runs_dir(), NAME, run_id)
    assert not (tmp_path / "out.csv").exists()
