"""SVG drawings as PNG files, for slides."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

#: Pixels for each user unit: 560 become 1,120, more than half of a wide slide.
_ZOOM = 2.0

#: Scripts beyond these are not in the font that comes with gpuseg: Latin, Greek, Cyrillic,
#: and the punctuation, arrows and signs that the charts use.
_OWN_LETTERS = (range(0x0530), range(0x1E00, 0x2300), range(0x25A0, 0x2600))


def png_of(svg: str) -> bytes:
    """Draw an SVG text on white, with the same letters on every machine.

    The machine's own fonts are only looked for when a name needs them, because that takes
    long where there are many; letters that no font has are left out.
    """
    import resvg_py

    svg = svg.replace("\N{MINUS SIGN}", "\N{EN DASH}")  # as long, and in the font
    needs_more = any(not any(ord(c) in letters for letters in _OWN_LETTERS) for c in set(svg))
    return resvg_py.svg_to_bytes(
        svg_string=svg,
        background="#ffffff",
        zoom=_ZOOM,
        skip_system_fonts=not needs_more,
        font_files=list(_fonts()),
        font_family="Noto Sans",
        sans_serif_family="Noto Sans",
    )


@cache
def _fonts() -> tuple[str, ...]:
    assets = Path(str(files("gpuseg.outputs"))) / "assets"
    return tuple(str(assets / f"NotoSans-{weight}.ttf") for weight in ("Regular", "Bold"))
