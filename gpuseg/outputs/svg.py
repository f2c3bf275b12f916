"""Matplotlib figures as files for slides and as SVG inside a page.

Only matplotlib's objects are used, never pyplot, so a user's own figures are left alone.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpuseg.outputs.palette import GRID, INK, MUTED, THEME

_SVG = "http://www.w3.org/2000/svg"
_LINK = "http://www.w3.org/1999/xlink"

_PNG_DPI = 200  # 920 pixels wide: half a slide

#: Matplotlib's style is one per process; only one thread may change it at a time.
_STYLE_LOCK = threading.Lock()

# The user's own style could ask for LaTeX, or read $ in a column name as mathematics.
_STYLE = {name: value for name, value in mpl.rcParamsDefault.items() if "backend" not in name} | {
    "svg.fonttype": "none",
    "svg.hashsalt": "gpuseg",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

_VARIABLES = {light: f"var(--{name})" for name, (light, _dark) in THEME.items()}


def render(draw: Callable[[], Figure], stem: Path, alt: str) -> str:
    """Draw a chart, save it as PNG and SVG, and return it for a page.

    Parameters
    ----------
    stem
        Where the files go, without ending; its name also keeps ids on the page apart.
    alt
        What the chart shows, in words, for those who cannot see it.

    Returns
    -------
    svg : str
        An ``<svg>`` element whose colours are the page's CSS variables.
    """
    with _STYLE_LOCK, mpl.rc_context(_STYLE), warnings.catch_warnings():
        # a name in a script that the built-in font lacks is drawn as boxes in the PNG only
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = draw()
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        figure.set_layout_engine("none")  # what was laid out stays; twice takes twice as long
        figure.savefig(stem.with_suffix(".png"), dpi=_PNG_DPI, facecolor="white")
    stem.with_suffix(".svg").write_bytes(buffer.getvalue())
    return _for_page(buffer.getvalue(), stem.name, alt)


def _for_page(svg: bytes, name: str, alt: str) -> str:
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    root = ET.fromstring(svg)  # noqa: S314 our own file, written a moment ago
    for unwanted in ("width", "height", "version"):
        root.attrib.pop(unwanted, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    for parent in list(root.iter()):
        for child in list(parent):
            # matplotlib's <style> would hold for the whole page
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, name)
    return ET.tostring(root, encoding="unicode")


def _adapt(element: ET.Element, name: str) -> None:
    """Give the ids of an element a prefix, and its colours their variables."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == f"{{{_LINK}}}href":
            element.set(key, value.replace("#", f"#{name}-", 1))
        elif key == "clip-path":
            element.set(key, value.replace("url(#", f"url(#{name}-", 1))
        elif key == "style":
            element.set(key, re.sub(r"#[0-9a-f]{6}", _variable, value))


def _variable(match: re.Match[str]) -> str:
    return _VARIABLES.get(match[0], match[0])
