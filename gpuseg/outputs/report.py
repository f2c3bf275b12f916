"""Write the report of a run: one self-contained page, and its charts as files.

A run becomes plain data (`report_view`, `report_charts`), the data goes into a template
that escapes everything (`templates/`), and nothing else ends up in the page: no font, no
picture and no script from elsewhere. The page is complete without script; with it, the
charts are drawn again by Observable Plot (`assets/`), which answers to mouse and keyboard.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from gpuseg.outputs.durable import replace_file, writing
from gpuseg.outputs.png import png_of
from gpuseg.outputs.report_charts import Chart, charts_of
from gpuseg.outputs.report_files import REPORT_DATA, find_run, read_run, report_bytes
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.report_view import view
from gpuseg.outputs.svg import for_file, for_page
from gpuseg.outputs.svg_charts import draw

if TYPE_CHECKING:
    import jinja2

__all__ = ["REPORT", "ReportInput", "rebuild_report", "templates", "write_report"]

REPORT = "report.html"
PLOTS = "plots"

_SCRIPTS = ("assets/d3.min.js", "assets/plot.min.js", "templates/report.js")


def write_report(folder: Path, run: ReportInput) -> None:
    """Write ``report.html``, its data, and ``plots/*.png`` and ``plots/*.svg``.

    Parameters
    ----------
    folder
        The run's folder; what an earlier report left there is replaced.
    run
        What to show. Secrets in settings and messages are removed here; with
        ``hide_table_contents`` so are row-level values and category texts.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    clean = run.discreet()
    charts = list(charts_of(clean))
    with writing(folder):
        _write_plots(folder / PLOTS, charts)
        replace_file(folder / REPORT_DATA, report_bytes(clean))
        replace_file(folder / REPORT, page_of(clean, charts).encode("utf-8"))


def rebuild_report(run: str, runs_dir: Path, *, hide_table_contents: bool = False) -> Path:
    """Write the report of a run again, from its folder alone.

    Parameters
    ----------
    run
        The folder of a run, or the name of a model, which stands for its newest run.
    hide_table_contents
        Whether to leave them out also where the run did not ask for it. What is left out is
        gone from the report's own files for good, not from ``tables/``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If there is no such run, or its folder is damaged.
    SinkError
        If the disk refuses.
    """
    folder = find_run(run, runs_dir)
    write_report(folder, read_run(folder, hide_table_contents=hide_table_contents))
    return folder / REPORT


def page_of(clean: ReportInput, charts: Iterable[Chart]) -> str:
    """Return the page of a run that holds nothing it must not show."""
    shown = view(clean)
    drawn = {
        # the canvas escaped every text that it wrote
        chart.name: {**chart._asdict(), "svg": Markup(draw(chart, for_page))}  # noqa: S704
        for chart in charts
    }
    scripts = [_asset(name) for name in _SCRIPTS]
    return templates().get_template("report.html").render(
        shown,
        charts=drawn,
        data=_script_data(shown["segments"], drawn),
        # our own files, which hold no end of a script (tests/outputs/test_report.py)
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        hashes=[_hash(script) for script in scripts],
    )  # fmt: skip


@cache
def templates() -> jinja2.Environment:
    """Return the environment of the templates; it escapes whatever is not `Markup`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpuseg.outputs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Let a name with underscores be broken after them, rather than anywhere."""
    return escape(text).replace("_", Markup("_<wbr>"))


def _write_plots(folder: Path, charts: Iterable[Chart]) -> None:
    folder.mkdir(exist_ok=True)
    drawn = {}
    for chart in charts:
        svg = draw(chart, for_file, titled=True)
        drawn[f"{chart.name}.svg"] = svg.encode("utf-8")
        drawn[f"{chart.name}.png"] = png_of(svg)
    for stale in set(folder.iterdir()) - {folder / name for name in drawn}:
        if stale.suffix in (".svg", ".png"):
            stale.unlink()
    for name, content in drawn.items():
        if (folder / name).exists():
            replace_file(folder / name, content)
        else:  # a new run folder is synchronised as a whole before it is shown
            (folder / name).write_bytes(content)


def _script_data(
    segments: Iterable[Mapping[str, Any]], charts: Mapping[str, Mapping[str, Any]]
) -> Markup:
    """Return what the script draws from, as JSON that cannot end the script element."""
    data = {
        "segments": [
            {k: s[k] for k in ("id", "name", "share", "color", "on_color")} for s in segments
        ],
        "charts": {
            name: {key: chart[key] for key in ("kind", "title", "x", "y", "data")}
            for name, chart in charts.items()
        },
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704


@cache
def _asset(name: str) -> str:
    return (files("gpuseg.outputs") / name).read_text(encoding="utf-8").strip()


def _hash(script: str) -> str:
    """Return what the page's security policy knows a script by."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
