"""Write the report of a run: one self-contained page, and its charts as files.

A run becomes plain data (`report_view`, `report_charts`), the data goes into a template
that escapes everything (`templates/`), and nothing else ends up in the page: no script,
no font, no picture from elsewhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gpuseg.outputs.durable import write_file, writing
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.report_view import view

if TYPE_CHECKING:
    import jinja2

__all__ = ["ReportInput", "templates", "write_report"]

PLOTS = "plots"


def write_report(path: Path, run: ReportInput) -> None:
    """Write ``report.html`` and, beside it, ``plots/*.png`` and ``plots/*.svg``.

    Parameters
    ----------
    path
        The page; a new file in a folder that exists.
    run
        What to show. Secrets in settings and messages are removed here; with
        ``hide_table_contents`` so are row-level values and category texts.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    clean = run.discreet()
    with writing(path):
        charts = _draw_charts(clean, path.parent / PLOTS)
        page = templates().get_template("report.html").render(view(clean), charts=charts)
        write_file(path, page.encode("utf-8"))


@cache
def templates() -> jinja2.Environment:
    """Return the environment of the templates; it escapes whatever is not `Markup`."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("gpuseg.outputs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _draw_charts(run: ReportInput, folder: Path) -> dict[str, dict[str, Any]]:
    from gpuseg.outputs.report_charts import charts_of
    from gpuseg.outputs.svg import render

    folder.mkdir(exist_ok=True)
    drawn = {}
    for chart in charts_of(run):
        svg = render(chart.draw, folder / chart.name, chart.alt)
        # matplotlib and ElementTree wrote well-formed XML in which every text is escaped
        drawn[chart.name] = {**chart._asdict(), "svg": Markup(svg)}  # noqa: S704
    return drawn
