"""The section on what changed, in a real browser: drawn, answering, on a phone and on paper."""

from __future__ import annotations

import pytest
from outputs.test_report import write
from outputs.test_report_change import changed_report

CHARTS = ("migration", "drift", "trend", "trend_sizes")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a report with a change, made by hand."""
    folder = tmp_path_factory.mktemp("change")
    write(folder, changed_report())
    return folder / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_within_its_card(page, open_report, width):
    opened = open_report(page, width=width)
    for name in CHARTS:
        plot = opened.page.locator(f"#chart-{name} .plot.live")
        box = plot.locator("svg").first.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
        assert box["x"] + box["width"] <= width
        assert plot.locator("svg").first.locator("path, rect, circle").count() > 2, name
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.screenshot(f"change-{width}")


def test_the_keyboard_reads_every_band(page, open_report):
    opened = open_report(page)
    chart = opened.page.locator("#chart-migration")
    chart.locator(".plot").focus()
    said = []
    for _ in range(5):
        opened.page.keyboard.press("ArrowRight")
        said.append(chart.locator(".readout").text_content())
    assert (
        said[0]
        == "segment 0 → segment 0 · 60 rows · 50 % of the rows of segment 0 that are still there · "
        "25 % of the rows of segment 0 that were there before"
    )
    assert len(set(said)) == 5
    assert any(text.startswith("new rows → segment 2 · 20 rows") for text in said)


def test_the_mouse_finds_a_run_and_a_column(page, open_report):
    opened = open_report(page)
    for name, mark, words in (
        ("trend", "circle", "refused"),
        ("drift", "rect", "PSI 8.250"),
    ):
        chart = opened.page.locator(f"#chart-{name}")
        chart.scroll_into_view_if_needed()
        marks = chart.locator(f".plot svg {mark}")
        box = marks.nth(1 if name == "trend" else 0).bounding_box()
        opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert words in chart.locator("[aria-label=tip]").first.text_content()


def test_it_is_whole_on_paper_and_without_script(page, open_report):
    opened = open_report(page, java_script_enabled=False)
    opened.page.emulate_media(media="print")
    for name in CHARTS:
        assert opened.page.locator(f"#chart-{name} .plot svg").bounding_box()["height"] > 80
    assert opened.page.locator(".events li").count() == 6
