"""Segments in a master segment: put there once, kept in step, and nothing else touched."""

from __future__ import annotations

import copy
import json
import stat
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from treasure_data.cdp_routes import add_audience, population, shown
from treasure_data.loopback import WRITE_ONLY_KEY, Fault

from gpuseg.activation import (
    Audience,
    plan_push,
    push,
    wishes_of_result,
    wishes_of_table,
)
from gpuseg.activation.audience import wishes_of
from gpuseg.activation.master_segment import Source, differences, with_attribute
from gpuseg.errors import DataError, SettingsError, SinkError
from gpuseg.records import Table
from gpuseg.settings import Settings

pytestmark = pytest.mark.usefixtures("quick")

NAMES = {0: "Big spenders", 1: "Newcomers", 2: "Sleepers"}


def clusters(n_clusters: int, n: int = 60) -> pa.Table:
    ids = [f"c{i}" for i in range(n)]
    return pa.table({"id": ids, "cluster_id": pa.array([i % n_clusters for i in range(n)])})


@pytest.fixture(params=["v5", "v4"])
def td(server, request):
    """Return a server with customers, clusters of theirs, and a master segment."""
    server.v5 = request.param == "v5"
    customers = pa.table({"customer": [f"c{i}" for i in range(60)], "city": ["Rome"] * 60})
    server.store.put("crm", "customers", customers)
    server.store.put("ml_test", "clusters", clusters(3))
    server.audience = add_audience(server, "Customers", ("crm", "customers"))
    add_audience(server, "Others", ("crm", "customers"))
    return server


def settings(**more):
    return Settings(
        **{
            "audience_name": "Customers", "foreign_key": "customer", "rowid_column": "id",
            "output_table": "ml_test.clusters", "warehouse": "td",
        } | more
    )  # fmt: skip


def audience(**more) -> Audience:
    found = Audience.of(settings(**more))
    assert found is not None
    return found


def config(td) -> dict:
    return copy.deepcopy(td.store.audiences[td.audience])


def others(found: dict) -> list:
    return [entry for entry in found["attributes"] if entry["name"] != "cluster_id"]


def populations(td) -> dict[str, int]:
    return {s["name"]: population(td, td.audience, s) for s in td.store.segments.values()}


def test_a_push_makes_attribute_folder_and_segments(td):
    before = config(td)
    report = push(audience(), wishes_of(range(3), NAMES))
    assert populations(td) == {"Big spenders": 20, "Newcomers": 20, "Sleepers": 20}
    after = config(td)
    [own] = [entry for entry in after["attributes"] if entry["name"] == "cluster_id"]
    assert {key: value for key, value in own.items() if key != "id"} == {
        "audienceId": td.audience, "name": "cluster_id", "type": "number",
        "groupingName": "AutoML", "parentDatabaseName": "ml_test",
        "parentTableName": "clusters", "parentColumn": "cluster_id", "parentKey": "id",
        "foreignKey": "customer",
    }  # fmt: skip
    assert others(after) == before["attributes"]
    for same in ("master", "behaviors", "audienceFilters", "name", "description"):
        assert after[same] == before[same]
    folders = [f["name"] for f in td.store.folders.values() if f["parent"]]
    assert folders == ["AutoML"]
    assert report.segments == ("Big spenders", "Newcomers", "Sleepers")
    backup = Path(report.backup)
    assert json.loads(backup.read_text()) == shown(before)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_the_folder_may_be_told_of_a_single_master_segment_only(td):
    td.folder_in_list = False
    push(audience(), wishes_of(range(3)))
    assert len(td.store.segments) == 3
    assert bool(td.calls("/entities/segments")) is td.v5


def test_ten_pushes_double_nothing(td):
    reports = [push(audience(), wishes_of(range(3), NAMES)) for _ in range(10)]
    assert len(td.store.segments) == 3
    assert len([f for f in td.store.folders.values() if f["parent"]]) == 1
    assert [e["name"] for e in config(td)["attributes"]] == ["city", "cluster_id"]
    # the configuration is written once, and run every time, because the rows may be others
    assert len(td.calls(r"PUT /audiences/\*$")) == 1
    assert len(td.calls("/run")) == 10
    assert [report.backup is not None for report in reports] == [True] + [False] * 9


def test_a_dry_run_names_every_call_and_makes_none(td):
    planned = plan_push(audience(), wishes_of(range(3), NAMES)).as_dict()
    assert not td.calls("POST|PUT|PATCH|DELETE")
    assert not Path("gpuseg_runs").exists()
    push(audience(), wishes_of(range(3), NAMES))
    done = [
        {"method": request.method, "path": request.path, "body": request.json()}
        for name, request in td.log
        if request.method != "GET"
    ]
    new_folder = next(i for i, f in td.store.folders.items() if f["name"] == "AutoML")
    expected = json.loads(
        json.dumps(planned["steps"]).replace('"(new folder)"', _number(td, new_folder))
    )
    assert [{k: s[k] for k in ("method", "path", "body")} for s in expected] == done
    assert all(step["says"] for step in planned["steps"])


def _number(td, identity: str) -> str:
    return f'"{identity}"' if td.v5 else identity


def test_a_smaller_k_reports_stale_segments_or_removes_them(td):
    push(audience(), wishes_of(range(3), NAMES))
    td.store.put("ml_test", "clusters", clusters(2))
    report = push(audience(), wishes_of(range(2), NAMES))
    [note] = report.notes
    assert note == (
        "segment 'Sleepers' stands for cluster 2, which is no more; --remove-stale-segments "
        "removes it"
    )
    assert populations(td) == {"Big spenders": 30, "Newcomers": 30, "Sleepers": 0}
    assert push(audience(remove_stale_segments=True), wishes_of(range(2), NAMES)).notes == ()
    assert populations(td) == {"Big spenders": 30, "Newcomers": 30}


def test_names_may_wander_between_clusters_and_ids_stay(td):
    push(audience(), wishes_of(range(3), NAMES))
    ids = {s["name"]: i for i, s in td.store.segments.items()}
    push(audience(), wishes_of(range(3), {0: "Newcomers", 1: "Big spenders", 2: "Rest"}))
    found = {i: s["name"] for i, s in td.store.segments.items()}
    assert found[ids["Big spenders"]] == "Newcomers"
    assert found[ids["Newcomers"]] == "Big spenders"
    assert found[ids["Sleepers"]] == "Rest"
    # a stale segment does not keep a name that is wanted
    push(audience(), wishes_of(range(1), {0: "Rest"}))
    assert td.store.segments[ids["Big spenders"]]["name"] == "Rest"
    assert len(td.store.segments) == 3


def test_another_table_moves_the_attribute(td):
    push(audience(), wishes_of(range(3)))
    td.store.put("ml_test", "clusters_2", clusters(4))
    push(audience(output_table="ml_test.clusters_2"), wishes_of(range(4)))
    own = config(td)["attributes"][-1]
    assert own["parentTableName"] == "clusters_2"
    assert populations(td) == {f"Segment {i}": 15 for i in range(4)}


def test_the_attribute_of_the_notebook_is_continued(td):
    """One line changes for its users: group, attribute, folder and descriptions are its own."""
    stored = td.store.audiences[td.audience]
    stored["attributes"].append(
        stored["attributes"][0] | {"name": "cluster_id", "groupingName": "AutoML", "id": "99"}
    )
    push(audience(), wishes_of(range(3)))
    assert [e["name"] for e in config(td)["attributes"]] == ["city", "cluster_id"]


def test_an_attribute_of_somebody_else_is_not_touched(td):
    stored = td.store.audiences[td.audience]
    stored["attributes"].append(
        stored["attributes"][0] | {"name": "cluster_id", "groupingName": "Profile"}
    )
    before = config(td)
    for call in (lambda: audience().check_service(), lambda: push(audience(), wishes_of([0]))):
        with pytest.raises(SettingsError, match=r"group 'Profile', which gpuseg did not make"):
            call()
    assert config(td) == before
    assert not td.calls("POST|PUT")


def test_a_segment_of_somebody_else_is_not_touched(td):
    push(audience(), wishes_of([0]))
    folder = next(iter(td.store.segments.values()))["folder"]
    mine = {"name": "Sleepers", "description": "mine", "rule": {}, "folder": folder}
    td.store.segments["5"] = dict(mine)
    with pytest.raises(SettingsError, match="'Sleepers' that gpuseg did not make"):
        push(audience(), wishes_of(range(3), NAMES))
    push(audience(remove_stale_segments=True), wishes_of([1]))
    assert td.store.segments["5"] == mine


@pytest.mark.parametrize(
    ("name", "words"),
    [("Custoemrs", r"did you mean 'Customers'.*Customers, Others"), ("Twice", "2 master segments")],
)
def test_the_master_segment_must_be_there_once(td, name, words):
    add_audience(td, "Twice", ("crm", "customers"))
    add_audience(td, "Twice", ("crm", "customers"))
    with pytest.raises(SettingsError, match=words):
        audience(audience_name=name).check_service()


# -- nothing else changes ----------------------------------------------------------------


def add(td, name: str) -> None:
    stored = td.store.audiences[td.audience]
    stored["attributes"].append(stored["attributes"][0] | {"name": name, "id": name})


def test_an_edit_between_the_looks_is_kept(td):
    td.faults = [
        Fault("GET /audiences/*", "call", times=1, after=True, action=lambda: add(td, "theirs"))
    ]
    push(audience(), wishes_of(range(3)))
    assert [e["name"] for e in config(td)["attributes"]] == ["city", "theirs", "cluster_id"]
    assert len(td.calls(r"PUT /audiences/\*$")) == 1


def test_somebody_who_edits_all_the_time_is_left_alone(td):
    numbers = iter(range(100))
    td.faults = [
        Fault("GET /audiences/*", "call", after=True, action=lambda: add(td, f"n{next(numbers)}"))
    ]
    with pytest.raises(SinkError, match=r"somebody is editing .*not touched"):
        push(audience(), wishes_of(range(3)))
    assert not td.calls(r"PUT /audiences/\*$")


def test_an_addition_after_the_write_is_kept_and_ours_taken_back(td):
    td.faults = [
        Fault("PUT /audiences/*", "call", times=1, after=True, action=lambda: add(td, "theirs"))
    ]
    with pytest.raises(SinkError, match=r"'theirs' is new.*restored and is in 'gpuseg_runs") as e:
        push(audience(), wishes_of(range(3)))
    assert [entry["name"] for entry in config(td)["attributes"]] == ["city", "theirs"]
    assert Path(str(e.value).split("is in '")[1].split("'")[0]).is_file()
    assert not td.calls("/run")
    td.faults = []
    push(audience(), wishes_of(range(3)))
    assert [e["name"] for e in config(td)["attributes"]] == ["city", "theirs", "cluster_id"]


def test_a_service_that_loses_something_is_found_out_and_repaired(td):
    before = config(td)
    broken = iter([True])

    def lose(changed):
        if next(broken, False):
            changed["behaviors"] = []

    td.mangle = lose
    with pytest.raises(SinkError, match="behaviors: 'visits' is missing or changed"):
        push(audience(), wishes_of(range(3)))
    assert differences(before, config(td)) == []


def test_a_repair_that_fails_says_where_the_backup_is(td):
    def lose(changed):
        changed["behaviors"] = []

    td.mangle = lose
    with pytest.raises(SinkError, match=r"could not be restored .*put it back with PUT") as caught:
        push(audience(), wishes_of(range(3)))
    backup = Path(str(caught.value).split("before is in '")[1].split("'")[0])
    assert json.loads(backup.read_text())["behaviors"]


def test_a_run_that_fails_takes_the_attribute_back(td):
    before = config(td)
    td.execution_status = "error"
    with pytest.raises(SinkError, match=r"ended as 'error'.*previous configuration was restored"):
        push(audience(), wishes_of(range(3)))
    assert differences(before, config(td)) == []
    assert td.store.segments == {}


def test_a_run_of_somebody_else_is_waited_for(td):
    td.store.executions[td.audience].append(
        {"workflowAttemptId": "9", "status": "queued", "createdAt": "x"}
    )
    push(audience(), wishes_of(range(3)))
    statuses = [run["status"] for run in td.store.executions[td.audience]]
    assert statuses == ["success", "success"]
    assert populations(td)


def test_a_configuration_without_its_master_is_not_written(td):
    del td.store.audiences[td.audience]["master"]
    with pytest.raises(SinkError, match="came without its master table"):
        push(audience(), wishes_of(range(3)))
    assert not td.calls("PUT")


def test_only_what_the_service_sets_itself_may_differ():
    before = {"id": "1", "attributes": [{"id": "3", "name": "a", "type": "x"}], "updatedAt": "1"}
    assert differences(before, before | {"updatedAt": "2", "population": 5}) == []
    renumbered = {"attributes": [{"id": "4", "name": "a", "type": "x"}]}
    assert differences(before, before | renumbered) == []
    assert differences(before, before | {"scheduleType": "none"}) == ["'scheduleType' differs"]
    changed = {"attributes": [{"id": "3", "name": "a", "type": "y"}]}
    assert differences(before, before | changed) == [
        "attributes: 'a' is missing or changed", "attributes: 'a' is new or changed",
    ]  # fmt: skip
    twice = {"attributes": before["attributes"] * 2}
    assert differences(before, before | twice) == ["attributes: 'a' is new or changed"]


def test_what_stands_beside_ours_in_the_entry_is_kept():
    source = Source("db", "table", "id", "customer")
    entry = {"name": "cluster_id", "groupingName": "AutoML", "note": "by hand"}
    found = with_attribute({"id": "1", "attributes": [entry]}, source)
    assert found["attributes"][0]["note"] == "by hand"
    assert entry == {"name": "cluster_id", "groupingName": "AutoML", "note": "by hand"}


# -- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["1/unknown-key", WRITE_ONLY_KEY])
def test_a_key_that_may_not_is_a_matter_of_settings(td, monkeypatch, key):
    monkeypatch.setenv("TD_API_KEY", key)
    with pytest.raises(SettingsError, match=r"401|403") as caught:
        push(audience(), wishes_of(range(3)))
    assert key not in str(caught.value)


SEGMENTS = {"v5": "POST /entities/segments", "v4": "POST /audiences/*/segments"}


def segments_route(td) -> str:
    return SEGMENTS["v5" if td.v5 else "v4"]


@pytest.mark.parametrize("status", [409, 422])
def test_a_refused_segment_does_not_stop_the_others(td, status):
    td.faults = [Fault(segments_route(td), status, times=1)]
    with pytest.raises(SinkError, match=rf"1 of the segments .*'Big spenders'.*HTTP {status}"):
        push(audience(), wishes_of(range(3), NAMES))
    assert set(populations(td)) == {"Newcomers", "Sleepers"}
    push(audience(), wishes_of(range(3), NAMES))
    assert len(td.store.segments) == 3


def test_too_many_requests_are_waited_out(td):
    td.faults = [Fault(segments_route(td), 429, times=2), Fault("GET /audiences/*", 429, times=2)]
    push(audience(), wishes_of(range(3)))
    assert len(td.store.segments) == 3


def test_the_service_says_how_long_to_wait():
    from email.message import Message

    from gpuseg.activation.cdp import _seconds

    headers = Message()
    assert _seconds(headers) == 0.0
    headers["Retry-After"] = "7"
    assert _seconds(headers) == 7.0
    headers.replace_header("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")
    assert _seconds(headers) == 0.0


def test_too_many_for_too_long_say_so(td):
    td.faults = [Fault("GET /audiences/*", 429)]
    with pytest.raises(SinkError, match="too many requests"):
        push(audience(), wishes_of(range(3)))


@pytest.mark.parametrize("kind", ["lose", "drop", 500])
@pytest.mark.parametrize("what", ["folder", "segment", "run"])
def test_what_is_made_is_made_once_though_the_answer_is_lost(td, what, kind):
    version = "v5" if td.v5 else "v4"
    routes = {
        "folder": {"v5": "POST /entities/folders", "v4": "POST /audiences/*/folders"}[version],
        "segment": SEGMENTS[version],
        "run": "POST /audiences/*/run",
    }
    td.faults = [Fault(routes[what], kind, times=1)]
    push(audience(), wishes_of(range(3)))
    assert len(td.store.segments) == 3
    assert len([f for f in td.store.folders.values() if f["parent"]]) == 1
    assert len(td.store.executions[td.audience]) == 1


# -- what is pushed ----------------------------------------------------------------------


def test_names_of_segments():
    assert [w.name for w in wishes_of([1, 0])] == ["Segment 0", "Segment 1"]
    assert [w.name for w in wishes_of([0, 1, 2], {0: "A", 1: "A", 2: ""})] == [
        "A (0)", "A (1)", "Segment 2",
    ]  # fmt: skip

    result = SimpleNamespace(cluster_ids=(0, 1))
    assert [w.name for w in wishes_of_result(result)] == ["Segment 0", "Segment 1"]
    result.segments = (SimpleNamespace(cluster_id=1, name="New"),)
    assert [w.name for w in wishes_of_result(result)] == ["Segment 0", "New"]
    result.cluster_ids = (1, 5)
    assert [(w.cluster_id, w.name) for w in wishes_of_result(result)] == [
        (1, "New"),
        (5, "Segment 5"),
    ]


def test_a_segment_keeps_its_name_when_nobody_names_it_anew(td):
    push(audience(), wishes_of(range(3), NAMES))
    assert push(audience(), wishes_of(range(3))).segments == tuple(NAMES.values())
    assert set(populations(td)) == set(NAMES.values())


def test_the_names_of_a_table_are_those_of_its_model(td, monkeypatch):
    from gpuseg.activation import audience as room

    named = (SimpleNamespace(cluster_id=0, name="Loyal"),)
    monkeypatch.setattr(room, "load_model", lambda _dir, _name: SimpleNamespace(segments=named))
    names = [w.name for w in wishes_of_table(settings(model_name="m"), audience())]
    assert names == ["Loyal", "Segment 1", "Segment 2"]


def test_the_clusters_of_a_table_are_those_in_it(td):
    assert [w.cluster_id for w in wishes_of_table(settings(), audience())] == [0, 1, 2]


@pytest.mark.parametrize(
    ("ids", "words"),
    [(["a", "a", "b"], "2 different values in 3 rows"), (["a", None, "b"], "missing in 1 of 3")],
)
def test_the_row_id_must_identify(td, ids, words):
    table = pa.table({"id": pa.array(ids), "cluster_id": [0, 1, 0]})
    with pytest.raises(DataError, match=words):
        audience().check_rows(Table("t", table))
    td.store.put("ml_test", "clusters", table)
    with pytest.raises(DataError, match=words):
        wishes_of_table(settings(), audience())
    with pytest.raises(DataError, match="'id' is not a column"):
        audience().check_rows(Table("t", table.drop_columns("id")))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"warehouse": "duckdb:x.duckdb"}, "must be in Treasure Data"),
        ({"output_table": None}, "must be in Treasure Data"),
        ({"output_table": "rows.parquet"}, "must be in Treasure Data"),
        ({"output_mode": "append"}, "output_mode append can add a second"),
    ],
)
def test_settings_that_cannot_be_pushed(more, words):
    with pytest.raises(SettingsError, match=words):
        Audience.of(settings(**more))
    assert Audience.of(Settings(rowid_column="id")) is None


def test_the_audience_host_is_told_from_the_region(monkeypatch):
    from gpuseg.tables.treasure_data_site import Site

    hosts = {
        "https://api.treasuredata.com": "https://api-cdp.treasuredata.com",
        "api.treasuredata.co.jp": "https://api-cdp.treasuredata.co.jp",
        "https://api.eu01.treasuredata.com/": "https://api-cdp.eu01.treasuredata.com",
        "https://api.ap02.treasuredata.com": "https://api-cdp.ap02.treasuredata.com",
    }
    for rest, expected in hosts.items():
        found = Site.of_environment({"TD_API_KEY": "1/secret", "TD_API_SERVER": rest})
        assert found.cdp == expected
        assert "secret" not in repr(found)


def test_an_answer_of_another_shape_is_said(td):
    """Such as a newer API may give; nothing is changed then."""
    before = config(td)
    odd = {"data": [{"id": "1", "name": "Customers"}], "items": []}
    td.faults = [
        Fault("GET /entities/parent_segments", 200, body=odd),
        Fault("GET /audiences/*", 200, body={"title": "Customers"}),
    ]
    with pytest.raises(SinkError, match=r"answered GET .* without '"):
        push(audience(), wishes_of(range(3)))
    td.faults = []
    assert config(td) == before
