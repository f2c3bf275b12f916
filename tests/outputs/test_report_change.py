"""The section on what changed: places of a Sankey diagram, words, and nothing it must not show."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outputs.test_report import HOSTILE, Page, make_report, write

from gpuseg.nightly.trend import TREND_SCHEMA
from gpuseg.outputs.change_facts import DRIFT_SCHEMA, LINEAGE_SCHEMA, MIGRATION_SCHEMA
from gpuseg.outputs.report import REPORT, write_report
from gpuseg.outputs.report_change import _labels, change_view, verdict
from gpuseg.outputs.report_flow import flow_chart

#: What rows have, as the drift table holds it and as people would read it.
VALUES = (b"4711.25", b"4,711", b"4788.375", b"4,788", b"4,712", b"4,790", b"4,789", b"77.125")
CHANGE_CHARTS = {"migration", "drift", "trend", "trend_sizes"}

PAIRS = st.dictionaries(
    st.tuples(st.none() | st.integers(0, 12), st.none() | st.integers(0, 12)).filter(
        lambda pair: pair != (None, None)
    ),
    st.integers(1, 10_000),
    min_size=1,
    max_size=40,
)


def migration(pairs) -> list[dict]:
    return [
        {"previous_cluster_id": was, "cluster_id": now, "n_rows": n,
         "share_of_previous": None if None in (was, now) else 0.5,
         "share_of_current": None if None in (was, now) else 0.25}
        for (was, now), n in pairs.items()
    ]  # fmt: skip


def event(name, now, was, of_previous=0.5, of_current=0.25):
    return {"event": name, "cluster_id": now, "previous_cluster_id": was, "n_shared": 10,
            "share_of_previous": of_previous, "share_of_current": of_current}  # fmt: skip


EVENTS = [event("born", 2, None), event("kept", 0, 0, 0.9876, 1.0), event("split", 1, 5),
          event("merged", 0, 7), event("retired", None, 5), event("retired", 0, 7)]  # fmt: skip


def drifted(names=("age", "città"), psi=(8.25, 0.012)) -> pa.Table:
    rows = [
        dict.fromkeys(DRIFT_SCHEMA.names)
        | {"column": name, "kind": "numeric", "status": "compared", "psi": value,
           "wasserstein": 77.125, "wasserstein_scaled": 1.5, "previous_mean": 4711.25,
           "mean": 4788.375, "previous_median": 4712.5, "median": 4789.5,
           "previous_missing_share": 0.0, "missing_share": 0.25}
        for name, value in zip(names, psi, strict=True)
    ]  # fmt: skip
    new = dict.fromkeys(DRIFT_SCHEMA.names) | {"column": "fresh", "kind": "numeric",
                                               "status": "new", "missing_share": 0.0}  # fmt: skip
    return pa.Table.from_pylist([*rows, new], schema=DRIFT_SCHEMA)


def earlier_run(night, status="published", sizes=((0, 70), (5, 40), (7, 10))):
    return {"run_id": f"2026112{night}T030000Z-abcde{night}", "n_rows": 120, "n_clusters": 3,
            "started": f"2026-11-2{night}T03:00:00Z", "status": status, "silhouette": 0.25,
            "churn": None, "max_psi": None,
            "sizes": [{"cluster_id": c, "n_rows": n} for c, n in sizes]}  # fmt: skip


def changed_report(names=("age", "città"), **changes):
    pairs = {(0, 0): 60, (5, 1): 30, (7, 0): 10, (None, 2): 20, (5, None): 9}
    facts = {"earlier_run_id": "20261121T030000Z-abcde1", "matched_by": "rowid", "churn": 0.4,
             "max_psi": 8.25, "max_psi_column": names[0], "earlier_silhouette": 0.3125}  # fmt: skip
    trend = [earlier_run(0), earlier_run(1, "refused", ())]
    parts = {
        "change": facts,
        "lineage": pa.Table.from_pylist(EVENTS, schema=LINEAGE_SCHEMA),
        "migration": pa.Table.from_pylist(migration(pairs), schema=MIGRATION_SCHEMA),
        "drift": drifted(names),
        "trend": pa.Table.from_pylist(trend, schema=TREND_SCHEMA),
    }
    return replace(make_report(), **{**parts, **changes})


def test_a_refused_run_says_so_at_the_top(tmp_path):
    why = "not published: 0.4 of the known rows changed their segment, more than max_churn 0.2"
    other = "the groups overlap"
    run = replace(make_report(), is_refused=True, warnings=(why, other))
    write_report(tmp_path, run)
    html = (tmp_path / REPORT).read_text(encoding="utf-8")
    top, rest = html.split('<dl class="facts">')
    assert "the gate refused this run" in top
    assert "0.4 of the known rows" in top
    assert f"gpuseg models promote {run.model_name} {run.run_id}" in top
    assert "0.4 of the known rows" not in rest
    assert other in rest
    (tmp_path / "published").mkdir()
    published = replace(run, is_refused=False, warnings=(other,))
    write_report(tmp_path / "published", published)
    html = (tmp_path / "published" / REPORT).read_text(encoding="utf-8")
    assert "refused this run" not in html


# -- the diagram ---------------------------------------------------------------------


@given(PAIRS)
def test_bands_fill_their_nodes_and_nothing_overlaps(pairs):
    data = flow_chart(migration(pairs), range(13))["data"]
    assert len(data["flows"]) == len(pairs)
    for side, end in ((0, "from"), (1, "to")):
        nodes = sorted((n for n in data["nodes"] if n["side"] == side), key=lambda n: n["top"])
        assert sum(n["n"] for n in nodes) == sum(pairs.values())
        assert nodes[0]["top"] == 0
        assert nodes[-1]["bottom"] <= 1 + 1e-4
        for above, below in pairwise(nodes):
            assert above["bottom"] < below["top"]
        for node in nodes:
            low, high = node["top"] - 1e-4, node["bottom"] + 1e-4
            own = sorted(f[end] for f in data["flows"] if low <= f[end][0] and f[end][1] <= high)
            assert own[0][0] == pytest.approx(node["top"], abs=1e-4)
            assert own[-1][1] == pytest.approx(node["bottom"], abs=1e-4)
            for before, after in pairwise(own):
                assert before[1] == pytest.approx(after[0], abs=1e-4)


@given(PAIRS)
def test_bands_are_as_high_as_their_rows(pairs):
    data = flow_chart(migration(pairs), range(13))["data"]
    sides = [[n for n in data["nodes"] if n["side"] == side] for side in (0, 1)]
    scales = [sum(n["bottom"] - n["top"] for n in nodes) / sum(pairs.values()) for nodes in sides]
    assert scales[0] == pytest.approx(scales[1], rel=1e-3)
    for flow in data["flows"]:
        for begin, end in (flow["from"], flow["to"]):
            assert end - begin == pytest.approx(flow["n"] * scales[0], abs=1e-4)


def test_todays_segments_keep_their_colours_and_the_others_take_what_is_left():
    data = flow_chart(migration({(0, 0): 5, (1, 9): 5, (None, 0): 1, (1, None): 1}), [0, 9])["data"]
    colors = {(n["side"], n["name"]): n["color"] for n in data["nodes"]}
    assert colors[0, "segment 0"] == colors[1, "segment 0"] == "c0"
    assert colors[1, "segment 9"] == "c1"
    assert colors[0, "segment 1"] == "c2"
    assert colors[0, "new rows"] == colors[1, "gone rows"] == "muted"


# -- words ---------------------------------------------------------------------------


def test_lineage_is_told_in_words_the_kept_first():
    told = change_view(changed_report())["events"]
    assert [e["words"] for e in told] == ["goes on", "split", "merged", "new", "no more", "no more"]
    texts = [e["text"].replace("\N{NO-BREAK SPACE}", " ") for e in told]
    assert texts[0].startswith("Segment 0")
    assert "99 % of its rows that are still there stayed" in texts[0]
    assert texts[1].startswith("50 % of the rows of segment 5 still there are in segment 1")
    assert "no earlier segment makes up most of it" in texts[3]
    assert texts[4] == "Segment 5: its rows are spread or gone."


@pytest.mark.parametrize(
    ("matched_by", "said"),
    [("rowid", "40 of the 100 rows that were there"), ("model", "none are known by an id"),
     ("nothing", "No row can be compared")],
)  # fmt: skip
def test_it_says_how_rows_were_compared(matched_by, said):
    run = changed_report()
    run = replace(run, change={**run.change, "matched_by": matched_by, "churn": None})
    sentences = " ".join(change_view(run)["sentences"])
    assert said in sentences
    assert "0.312" in sentences
    assert "age" in sentences


def test_the_index_is_judged_by_the_usual_limits():
    assert [verdict(psi) for psi in (0.0, 0.0999, 0.1, 0.2499, 0.25, 8.0)] == [
        "stable", "stable", "moved", "moved", "shifted", "shifted",
    ]  # fmt: skip


def test_runs_of_one_day_are_told_apart_by_their_time():
    began = ("2026-11-26T03:00:00Z", "2026-11-27T03:00:00Z", "2026-11-27T08:15:09Z",
             "2026-11-27T08:15:40Z")  # fmt: skip
    told = _labels([{"started": moment} for moment in began])
    assert told == ["11-26", "11-27 03:00", "11-27 08:15:09", "11-27 08:15:40"]


@pytest.mark.parametrize(
    ("status", "said"),
    [("gone", "age is no longer in the table."), ("retyped", "age can no longer be read")],
)
def test_a_column_that_is_lost_did_not_move(status, said):
    rows = drifted().to_pylist()
    rows[0]["status"] = status
    run = changed_report(drift=pa.Table.from_pylist(rows, schema=DRIFT_SCHEMA))
    sentences = " ".join(change_view(run)["sentences"])
    assert said in sentences.replace("\N{NO-BREAK SPACE}", " ")
    assert "moved most" not in sentences


# -- the page ------------------------------------------------------------------------


def test_the_section_is_there_with_its_charts_and_tables(tmp_path):
    page = Page(write(tmp_path, changed_report()))
    ids = {value for name, value in page.attributes if name == "id"}
    assert {f"chart-{name}" for name in CHANGE_CHARTS} <= ids
    assert "change" in ids
    for name in CHANGE_CHARTS:
        assert (tmp_path / "plots" / f"{name}.svg").is_file()
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 1000
    assert {"4,711", "gone rows", "this run", "refused", "8.250"} <= set(page.text)


def test_in_a_quiet_night_a_sentence_stands_for_bars_that_nobody_would_see(tmp_path):
    run = changed_report(drift=drifted(psi=(0.0003, 0.0001)))
    run = replace(run, change={**run.change, "max_psi": 0.0003})
    page = Page(write(tmp_path, run))
    said = "No column moved: the largest population stability index is 0.000 (age)."
    assert page.text.count(said) == 1
    assert "4,711" in page.text  # the figures are in a table all the same
    assert ("id", "chart-drift") not in page.attributes
    assert not (tmp_path / "plots" / "drift.svg").exists()


def test_without_a_run_before_the_section_is_absent(tmp_path):
    page = Page(write(tmp_path, make_report()))
    assert not {("id", "change"), ("href", "#change")} & set(page.attributes)
    assert not {p.stem for p in (tmp_path / "plots").iterdir()} & CHANGE_CHARTS


def test_hidden_contents_are_in_no_file(tmp_path):
    write(tmp_path, changed_report(hide_table_contents=True))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert not [value for value in VALUES if value in text]
    assert "8.250" in (tmp_path / "report.html").read_text()


def test_hostile_names_do_no_harm(tmp_path):
    for name in HOSTILE:
        run = changed_report((name, "b"))
        text = write(tmp_path, run)
        Page(text)
        data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
        assert len(json.loads(data)["charts"]["drift"]["data"]["features"]) == 2


def test_parts_that_are_missing_leave_their_chart_out(tmp_path):
    nothing = {"drift": DRIFT_SCHEMA.empty_table(), "trend": TREND_SCHEMA.empty_table()}
    write(tmp_path, changed_report(**nothing))
    drawn = {p.stem for p in (tmp_path / "plots").iterdir()} & CHANGE_CHARTS
    assert drawn == {"migration"}
