"""A report of the ids 2, 5 and 9 in a real browser: every chart answers, and knows no other id."""

from __future__ import annotations

import re
from dataclasses import replace

import pyarrow as pa
import pytest
from outputs.test_report import make_report

from gpuseg.outputs.public_ids import public_ids
from gpuseg.outputs.report import write_report

pytestmark = pytest.mark.slow

IDS = (2, 5, 9)


def under_ids(table: pa.Table) -> pa.Table:
    place = table.column_names.index("cluster_id")
    ids = public_ids(table["cluster_id"].to_numpy(), IDS)
    return table.set_column(place, "cluster_id", pa.array(ids))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = make_report(value="Roma")
    tables = {n: under_ids(getattr(run, n)) for n in ("profiles", "shap_values", "rules")}
    folder = tmp_path_factory.mktemp("ids")
    write_report(folder, replace(run, cluster_ids=IDS, **tables))
    return folder / "report.html"


def test_every_chart_knows_the_ids(page, open_report):
    opened = open_report(page)
    opened.screenshot("ids-2-5-9")
    shown = opened.page.inner_text("main") + opened.page.content()
    assert set(re.findall(r"\b[Ss]egment (\d+)", shown)) == {"2", "5", "9"}
    heat = opened.page.locator("#chart-profile .plot")
    assert {"2", "5", "9"} <= set(heat.locator("text").all_text_contents())


def test_switches_choices_and_keys_work(page, open_report):
    opened = open_report(page)
    scatter = opened.page.locator("#chart-map")
    n_circles = scatter.locator("circle").count()
    scatter.locator("button", has_text="9").click()
    assert scatter.locator("circle").count() < n_circles
    facets = opened.page.locator("#chart-shap_by_segment")
    facets.locator("select").select_option("5")
    assert facets.locator(".plot svg").count() == 1
    for name in ("knife", "map", "shap", "top_features", "profile", "shap_signed"):
        chart = opened.page.locator(f"#chart-{name}")
        chart.locator(".plot").focus()
        opened.page.keyboard.press("End")
        assert re.search(r"Segment [259] ", chart.locator(".readout").inner_text()), name


def test_on_a_phone_the_first_segment_is_drawn_first(page, open_report):
    opened = open_report(page, width=400)
    facets = opened.page.locator("#chart-shap_by_segment")
    assert facets.locator("select").input_value() == "2"
    assert facets.locator(".plot svg").count() == 1
