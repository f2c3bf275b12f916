"""SVG written by hand: a canvas that escapes every text and knows the palette's names.

The same drawing is made twice: for the page, where colours are CSS variables that follow
the theme, and for files, where they are the colours of a light page.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from xml.sax.saxutils import escape, quoteattr

from gpuseg.outputs.palette import THEME
from gpuseg.outputs.wording import shown

#: Turns the name of a colour in the palette into a colour.
Paint = Callable[[str], str]
Attributes = dict[str, str | float]

_NARROW = frozenset("ijltfrI.,:;'|!()[] ")
_WIDE = frozenset("mwMW@%—")


def for_page(name: str) -> str:
    """Paint with CSS variables."""
    return f"var(--{name})"


def for_file(name: str) -> str:
    """Paint as on a light page."""
    return THEME[name][0]


class Canvas:
    """Collects the elements of one drawing.

    Parameters
    ----------
    width, height
        In user units; texts are 12 of them high unless said otherwise.
    paint
        What the names of colours stand for.
    """

    def __init__(self, width: float, height: float, paint: Paint) -> None:
        self.width, self.height = width, height
        self._paint = paint
        self._elements: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1.0
    ) -> None:
        """Draw a filled rectangle; nothing if it has no extent."""
        if width > 0 and height > 0:
            place = {"x": x, "y": y, "width": width, "height": height}
            self._element("rect", {**place, **self._filled(fill, opacity)})

    def circle(self, x: float, y: float, radius: float, fill: str, *, opacity: float = 1.0) -> None:
        """Draw a dot."""
        self._element("circle", {"cx": x, "cy": y, "r": radius, **self._filled(fill, opacity)})

    def line(
        self, x1: float, y1: float, x2: float, y2: float, color: str = "grid", *,
        width: float = 1.0, dashed: bool = False,
    ) -> None:  # fmt: skip
        """Draw a straight line."""
        place = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        stroke: Attributes = {"stroke": self._paint(color), "stroke-width": width}
        dashes = {"stroke-dasharray": "3 3"} if dashed else {}
        self._element("line", {**place, **stroke, **dashes})

    def path(
        self, points: list[tuple[float, float]], *, stroke: str = "", fill: str = "",
        width: float = 1.5, opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw a line through points, or the area that it encloses."""
        if not points:
            return
        steps = "L".join(f"{_short(x)} {_short(y)}" for x, y in points)
        drawn: Attributes = {}
        if stroke:
            drawn = {"stroke": self._paint(stroke), "stroke-width": width}
        filled = self._filled(fill, opacity) if fill else {"fill": "none"}
        self._element("path", {"d": f"M{steps}{'Z' if fill else ''}", **filled, **drawn})

    def text(
        self, x: float, y: float, content: str, *, color: str = "ink", anchor: str = "start",
        size: float = 12, bold: bool = False, turned: bool = False,
    ) -> None:  # fmt: skip
        """Write one line; `y` is its middle."""
        # a baseline a third of the height below the middle: dominant-baseline is not
        # understood by every program that shows slides
        written: Attributes = {"x": x, "y": y + size * 0.35}
        written["fill"] = self._paint(color)
        if anchor != "start":
            written["text-anchor"] = anchor
        if size != 12:
            written["font-size"] = size
        if bold:
            written["font-weight"] = 700
        if turned:
            written["transform"] = f"rotate(-90 {_short(x)} {_short(y)})"
        self._element("text", written, content)

    def svg(self, alt: str) -> str:
        """Return the drawing.

        Parameters
        ----------
        alt
            What it shows, in words, for those who cannot see it.
        """
        width, height = _short(self.width), _short(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label={quoteattr(shown(alt))} '
            'font-size="12" font-family="Noto Sans, system-ui, sans-serif">'
            f"{''.join(self._elements)}</svg>"
        )

    def _filled(self, fill: str, opacity: float) -> Attributes:
        more: Attributes = {} if opacity == 1.0 else {"fill-opacity": opacity}
        return {"fill": self._paint(fill), **more}

    def _element(self, tag: str, attributes: Attributes, content: str = "") -> None:
        written = " ".join(f"{name}={_quoted(value)}" for name, value in attributes.items())
        inside = f">{escape(shown(content))}</{tag}>" if content else "/>"
        self._elements.append(f"<{tag} {written}{inside}")


def text_width(text: str, size: float = 12) -> float:
    """Estimate the width of a text, in user units; rather too wide than too narrow.

    Examples
    --------
    >>> text_width("ill") < text_width("oak") < text_width("MOW")
    True
    """
    return size * sum(_letter_width(letter) for letter in text)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, at most `most` + 1 of them.

    Examples
    --------
    >>> ticks(0, 10), ticks(-0.02, 0.13, 4)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 0.05, 0.1])
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _letter_width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in _NARROW:
        return 0.33
    if letter in _WIDE:
        return 0.92
    return 0.67 if letter.isupper() else 0.58


def _quoted(value: str | float) -> str:
    return quoteattr(value if isinstance(value, str) else _short(value))


def _short(value: float) -> str:
    """Write a coordinate: two digits after the point are a fiftieth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
