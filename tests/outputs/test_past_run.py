"""A past run gives its parameters back, without secrets, and says what is different now."""

import json

import pyarrow as pa
import pytest
from outputs.runs import NAME, add_run, edit_manifest

from gpuseg.errors import ModelError, SettingsError
from gpuseg.outputs.keeping import content_hash
from gpuseg.outputs.manifest import Fingerprint
from gpuseg.outputs.past_run import read_past_run
from gpuseg.records import Table
from gpuseg.settings import PARAMETERS, Settings

ROWS = pa.table({"id": [1, 2, 3], "x": [0.5, None, 2.0]})


def past_run(tmp_path, **changes):
    columns = {field.name: str(field.type) for field in ROWS.schema}
    facts = {
        "input": Fingerprint("shop.customers", 3, columns, content_hash(ROWS)),
        "settings": {"input_table": "shop.customers", "min_clusters": 3, "columns": ("x",)},
    }
    run_id = add_run(tmp_path, 0, **(facts | changes))
    return read_past_run(tmp_path / NAME / run_id)


def test_every_parameter_survives_the_manifest(tmp_path):
    from dataclasses import asdict

    before = Settings(
        input_table="a.b", columns=("x, y", "z"), min_cluster_share=0.125, random_state=7,
        max_seconds=3.5, force_refit=False, publish="if-better", max_churn=0.25, csv_decimal=",",
    )  # fmt: skip
    past = past_run(tmp_path, settings=asdict(before))
    assert past.resolve({}, environ={}) == before
    assert past.left_out == ()
    assert set(past.facts["settings"]) == set(PARAMETERS)


def test_what_is_given_now_goes_before_the_manifest(tmp_path):
    past = past_run(tmp_path)
    found = past.resolve(
        {"n_init": "4"}, environ={"GPUSEG_MAX_CLUSTERS": "6"}, config={"min_clusters": 4}
    )
    assert (found.min_clusters, found.max_clusters, found.n_init) == (4, 6, 4)
    assert found.columns == ("x",)


def test_a_query_given_now_stands_for_the_table_of_then(tmp_path):
    found = past_run(tmp_path).resolve({"input_query": "SELECT 1"}, environ={})
    assert (found.input_table, found.input_query) == (None, "SELECT 1")


def test_passwords_are_left_to_the_environment(tmp_path):
    url = "postgresql://ann:s3cret@host/shop"
    past = past_run(tmp_path, settings={"warehouse": url, "ignore_columns": ["token=x"]})
    assert "s3cret" not in json.dumps(past.facts)
    assert past.resolve({"ignore_columns": "a"}, environ={}).warehouse == url.replace(":s3cret", "")


def test_a_parameter_that_held_a_secret_must_be_given_now(tmp_path):
    past = past_run(tmp_path, settings={"warehouse": "adbc:driver?token=s3cret"})
    assert past.left_out == ("warehouse",)
    with pytest.raises(SettingsError, match="GPUSEG_WAREHOUSE"):
        past.resolve({}, environ={})
    assert past.resolve({"warehouse": "td"}, environ={}).warehouse == "td"
    assert past.resolve({}, environ={"GPUSEG_WAREHOUSE": "td"}).warehouse == "td"
    assert past.resolve({}, environ={}, config={"warehouse": "td"}).warehouse == "td"


def test_the_same_rows_in_any_order_are_no_difference(tmp_path):
    past = past_run(tmp_path)
    assert past.differences(Table("t", ROWS.take([2, 0, 1])), "numpy", continues=True) == ()


def test_what_differs_is_said(tmp_path):
    past = past_run(tmp_path)
    for rows, words in (
        (ROWS.slice(1), "3 rows then, 2 now"),
        (ROWS.take([0, 0, 1]), "other values"),
        (ROWS.rename_columns(["id", "y"]), "other columns or types: 'x', 'y'"),
        (ROWS.set_column(0, "id", ROWS["id"].cast(pa.int32())), "'id'"),
    ):
        (said,) = past.differences(Table("t", rows), "numpy", continues=True)
        assert words in said
    (said,) = past.differences(Table("t", ROWS), "gpu", continues=True)
    assert "numpy engine" in said
    edit_manifest(past.run_dir, versions={**past.facts["versions"], "polars": "0.1", "gone": "1"})
    (said,) = read_past_run(past.run_dir).differences(Table("t", ROWS), "numpy", continues=True)
    assert "polars 0.1 →" in said
    assert "gone 1 → none" in said


def test_a_time_budget_is_no_promise(tmp_path):
    past = past_run(tmp_path, settings={"max_seconds": 5.0})
    (said,) = past.differences(Table("t", ROWS), "numpy", continues=True)
    assert "time budget" in said


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', '{"settings": 1, "input": {}}'])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        read_past_run(tmp_path)
    with pytest.raises(SettingsError, match="no manifest"):
        read_past_run(tmp_path / "nowhere")


def test_an_earlier_run_that_is_gone_is_missed(tmp_path):
    past = past_run(tmp_path, earlier_run_id="20260101T000000Z-aaaaaa")
    (said,) = past.differences(Table("t", ROWS), "numpy", continues=False)
    assert "continued run 20260101T000000Z-aaaaaa" in said
    assert past.differences(Table("t", ROWS), "numpy", continues=True) == ()
