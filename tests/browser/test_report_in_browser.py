"""The reports of real tables in a real browser: drawn, answering, quiet, readable."""

from __future__ import annotations

import csv
import html
import json
import random
import re
from itertools import pairwise

import pyarrow.parquet as pq
import pytest
from browser.conftest import SCREENSHOTS, TABLES, run_gpuseg

pytestmark = pytest.mark.slow

CHARTS = [
    "silhouette", "knife", "map", "profile", "top_features", "shap", "importance",
    "shap_signed", "shap_by_segment", "spread",
]  # fmt: skip
MARKS = "path, rect, circle, line"


def figure(opened, name: str):
    return opened.page.locator(f"#chart-{name}")


# -- what people see -----------------------------------------------------------------


def test_every_chart_is_drawn_with_title_axes_and_table(report, open_report):
    name, page = report
    opened = open_report(page)
    drawn = opened.page.locator("figure[data-chart]")
    assert [drawn.nth(i).get_attribute("data-chart") for i in range(drawn.count())] == CHARTS
    for chart in CHARTS:
        plot = figure(opened, chart).locator(".plot.live")
        assert plot.locator("svg").first.locator(MARKS).count() > 3, chart
        box = plot.locator("svg").first.bounding_box()
        assert box["width"] > 100, chart
        assert box["height"] > 50, chart
        texts = plot.inner_text() + " ".join(plot.locator("text").all_text_contents())
        assert re.search(r"\((−1 to 1|change of probability|probability|share of the total)|axis|"
                         r"Segment|Number of segments|Across", texts), chart  # fmt: skip
    opened.screenshot(f"{name}-desktop")


def test_a_table_view_opens(report, open_report):
    opened = open_report(report[1])
    for chart in CHARTS:
        table = figure(opened, chart).locator("table")
        assert not table.is_visible()
        figure(opened, chart).locator(":scope > details > summary").click()
        assert table.is_visible()
        assert table.locator("tbody tr").count() >= 2


def test_a_feature_can_be_chosen(report, open_report):
    name, page = report
    opened = open_report(page)
    spread = figure(opened, "spread")
    select = spread.locator("select")
    features = select.locator("option").all_text_contents()
    assert len(features) > 10
    before = spread.locator("svg").first.inner_html()
    numeric = {"gluon_train": "age", "cc_general": "BALANCE", "telco": "MonthlyCharges"}[name]
    select.select_option(label=numeric)
    assert spread.locator("svg").first.inner_html() != before
    assert spread.locator("thead th").first.text_content() == f"value of {numeric}"
    assert spread.locator("tbody tr").count() > 5
    assert numeric in spread.locator(".plot").inner_text()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    spread.screenshot(path=SCREENSHOTS / f"{name}-spread.png")


def test_the_mouse_and_the_keyboard_read_values(report, open_report):
    name, page = report
    opened = open_report(page)
    chart = figure(opened, "silhouette")
    chart.scroll_into_view_if_needed()
    dot = chart.locator(".plot svg circle").nth(2).bounding_box()
    opened.page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    assert "silhouette" in chart.locator("[aria-label=tip]").first.text_content()
    chart.locator(".plot").focus()
    opened.page.keyboard.press("ArrowRight")
    said = chart.locator(".readout").text_content()
    assert re.fullmatch(r"k = 2.* · silhouette \d\.\d{4}.*", said)
    opened.page.keyboard.press("ArrowRight")
    assert chart.locator(".readout").text_content().startswith("k = 3")
    chart.screenshot(path=SCREENSHOTS / f"{name}-keyboard.png")
    opened.page.keyboard.press("Escape")
    assert chart.locator(".readout").text_content() == ""


def test_segments_can_be_hidden_and_one_be_chosen(report, open_report):
    opened = open_report(report[1])
    rows_map = figure(opened, "map")
    dots = rows_map.locator(".plot circle").count()
    rows_map.get_by_role("button", name="Show segment 0").click()
    assert 0 < rows_map.locator(".plot circle").count() < dots
    facets = figure(opened, "shap_by_segment")
    assert facets.locator(".plot svg").count() > 1
    facets.locator("select").select_option("1")
    assert facets.locator(".plot svg").count() == 1


def test_everything_is_reached_with_the_keyboard(report, open_report):
    opened = open_report(report[1])
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(200):
        opened.page.keyboard.press("Tab")
        reached.add(opened.page.evaluate(
            "(document.activeElement.closest('figure') ?? document.activeElement)"
            ".getAttribute('id') ?? document.activeElement.tagName"
        ))  # fmt: skip
    assert {f"chart-{name}" for name in CHARTS} <= reached
    assert {"INPUT", "A", "SUMMARY"} <= reached


def test_headings_and_landmarks_are_in_order(report, open_report):
    opened = open_report(report[1])
    levels = opened.page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert opened.page.get_by_role(role).count() == 1
    unnamed = opened.page.evaluate(
        "[...document.querySelectorAll('button,select,a,summary,[tabindex=\"0\"]')]"
        ".filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_switch(report, open_report, scheme):
    name, page = report
    opened = open_report(page, color_scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    colors = {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}
    assert opened.page.evaluate(background) == colors[scheme]
    if scheme == "dark":
        opened.screenshot(f"{name}-dark")
    for choice in ("Dark", "Light"):
        opened.page.get_by_role("radio", name=choice).check()
        assert opened.page.evaluate(background) == colors[choice.lower()]
        ink = opened.page.evaluate(
            "getComputedStyle(document.querySelector('.plot svg text')).fill"
        )
        assert ink == {"Light": "rgb(31, 35, 40)", "Dark": "rgb(230, 237, 243)"}[choice]


@pytest.mark.parametrize("width", [390, 768])
def test_it_fits_a_phone(report, open_report, width):
    name, page = report
    opened = open_report(page, width=width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    too_wide = opened.page.evaluate(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll') &&"
        " !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert too_wide == 0
    if width == 390:
        opened.screenshot(f"{name}-phone")


def test_it_prints(report, open_report):
    name, page = report
    opened = open_report(page, color_scheme="dark")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.pdf"
    opened.page.pdf(path=path, format="A4", print_background=True)
    content = path.read_bytes()
    assert content[:5] == b"%PDF-"
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 20
    # afterwards the charts are as wide as their places again
    plot = figure(opened, "map").locator(".plot")
    width = plot.locator("svg").bounding_box()["width"]
    assert width == pytest.approx(plot.bounding_box()["width"], abs=2)


def test_it_says_everything_without_script(report, open_report):
    name, page = report
    opened = open_report(page, java_script_enabled=False)
    for chart in CHARTS:
        svg = figure(opened, chart).locator(".plot > svg")
        assert svg.count() == 1
        assert svg.locator(MARKS).count() > 3
    assert opened.page.locator(".theme").is_visible() is False
    opened.screenshot(f"{name}-without-script")


def test_it_is_one_small_file(report):
    _name, page = report
    assert page.stat().st_size < 3_000_000
    plots = {path.name for path in (page.parent / "plots").iterdir()}
    assert plots == {f"{chart}.{ending}" for chart in CHARTS for ending in ("png", "svg")}


# -- the command ---------------------------------------------------------------------


def test_report_rebuilds_the_same_page_and_opens_it(report, tmp_path, monkeypatch):
    _name, page = report
    before = page.read_bytes()
    plots = {path.name: path.read_bytes() for path in (page.parent / "plots").iterdir()}
    page.unlink()
    (page.parent / "plots" / "map.png").unlink()
    opener = tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    opener.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{opener} %s")
    said = run_gpuseg(page.parents[3], "report", "m", "--open")
    assert said.strip() == str(page.relative_to(page.parents[3]))
    assert page.read_bytes() == before
    assert {p.name: p.read_bytes() for p in (page.parent / "plots").iterdir()} == plots
    assert (tmp_path / "opened").read_text().strip() == page.resolve().as_uri()
    assert json.loads(run_gpuseg(tmp_path, "report", str(page.parent), "--json")) == {
        "run_dir": str(page.parent), "report": str(page)
    }  # fmt: skip


# -- discretion and hostility --------------------------------------------------------


def texts_of(table: str) -> set[str]:
    """Return every text of a cell that could not be there for another reason."""
    path = TABLES[table]
    if path.suffix == ".parquet":
        columns = pq.read_table(path).to_pydict()
    else:
        with path.open(newline="") as file:
            head, *rows = list(csv.reader(file))
        columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    names = set(columns)
    found = {str(v).strip() for values in columns.values() for v in values if v is not None}
    wordy = {v for v in found if re.search(r"[A-Za-z]{4}", v) and v not in names}
    exact = {v for v in found if re.fullmatch(r"\d{4,}(\.\d+)?|\d+\.\d{3,}", v)}
    return wordy | set(sorted(exact)[:3000])


#: Words of the page itself, or of its scripts, that are values of a table too.
OWN_WORDS = {"Male", "Female", "White", "Black", "Other", "Private", "Sales", "Husband", "Wife"}


@pytest.mark.parametrize("table", list(TABLES))
def test_hidden_contents_are_nowhere(table, open_report, tmp_path):
    run_gpuseg(
        tmp_path, "run", "--input-table", str(TABLES[table]), "--model-name", "m",
        "--hide-table-contents", "--max-clusters", "4", "--quiet",
    )  # fmt: skip
    page = next((tmp_path / "gpuseg_runs" / "m").glob("*/report.html"))
    opened = open_report(page)
    opened.screenshot(f"{table}-hidden")
    assert opened.page.get_by_text("left out of this report, as asked").is_visible()
    select = figure(opened, "spread").locator("select")
    for place in range(select.locator("option").count()):
        select.select_option(str(place))
    files = [page, page.parent / "report.json", *(page.parent / "plots").glob("*.svg")]
    written = "\n".join(html.unescape(path.read_text(encoding="utf-8")) for path in files)
    # our scripts are the same for every table
    written = re.sub(r"<script>.*?</script>", "", written, flags=re.DOTALL)
    written += opened.page.locator("body").inner_text()
    ours = re.sub(r"[^\x20-\x7e]", " ", written)
    leaked = [
        text for text in texts_of(table)
        if re.search(rf"(?<![\w.-]){re.escape(text)}(?![\w.-])", ours)
    ]  # fmt: skip
    counts = {text for text in leaked if text.isdigit()}  # of rows and different values
    assert set(leaked) - counts == set()
    assert len(counts) < 30
    assert "map" not in {path.stem for path in (page.parent / "plots").iterdir()}


HOSTILE = ("<script>alert(1)</script>", "</script><script>alert(2)</script>",
           '"><img src=x onerror=alert(3)>', "{{ 7 * 7 }}")  # fmt: skip


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    draw = random.Random(0)
    head = ["customer", HOSTILE[0], HOSTILE[1], HOSTILE[2], "\u202eevil", "x" * 200]
    rows = [
        [f"<b onmouseover=alert(4)>{i:05}</b>", HOSTILE[i % 4],
         *(round(draw.gauss(10 * (i % 4), 1), 2) for _ in range(3)), HOSTILE[(i // 2) % 4]]
        for i in range(400)
    ]  # fmt: skip
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    run_gpuseg(folder, "run", "--input-table", "t.csv", "--model-name", "m", "--quiet",
               "--max-clusters", "5")  # fmt: skip
    return next((folder / "gpuseg_runs" / "m").glob("*/report.html"))


@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_names_and_values_are_harmless(hostile_report, open_report, width):
    opened = open_report(hostile_report, width=width)
    select = figure(opened, "spread").locator("select")
    for place in range(select.locator("option").count()):
        select.select_option(str(place))
    for chart in opened.page.locator(".plot.live").all():
        chart.focus()
        opened.page.keyboard.press("ArrowRight")
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 4
    assert "<script>alert(1)</script>" in opened.page.locator("main").inner_text()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    opened.screenshot(f"hostile-{width}")
