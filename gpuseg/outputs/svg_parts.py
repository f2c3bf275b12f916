"""What still pictures of charts are made from: a frame, axes, bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpuseg.outputs.svg import Canvas, text_width, ticks
from gpuseg.outputs.wording import number, shortened

WIDTH = 560.0
ROW = 24.0
FOOT = 44.0  # ticks and the axis name
LETTERS = 30  # of a feature's name beside its bar


class Frame(NamedTuple):
    """Where a plot lies on its canvas, and what its edges stand for."""

    left: float
    top: float
    right: float
    bottom: float
    low_x: float = 0.0
    high_x: float = 1.0
    low_y: float = 0.0
    high_y: float = 1.0

    def x(self, value: float) -> float:
        """Return where a value lies across."""
        share = (value - self.low_x) / ((self.high_x - self.low_x) or 1.0)
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return where a value lies up."""
        share = (value - self.low_y) / ((self.high_y - self.low_y) or 1.0)
        return self.bottom - share * (self.bottom - self.top)


def name_room(names: Sequence[str]) -> float:
    """Return where bars begin, to the right of the longest name."""
    return 14 + max((text_width(shortened(name, LETTERS)) for name in names), default=40)


def draw_bar(
    canvas: Canvas, frame: Frame, y: float, height: float, name: str, value: float, fill: str,
    *, letters: int = LETTERS, size: float = 12,
) -> None:  # fmt: skip
    """Draw a bar from the left edge, its name before it and its number after it."""
    middle = y + height / 2
    canvas.text(frame.left - 8, middle, shortened(name, letters), anchor="end", size=size)
    canvas.rect(frame.left, y, frame.x(value) - frame.left, height, fill)
    canvas.text(frame.x(value) + 5, middle, number(value), color="muted", size=11)


def x_axis(canvas: Canvas, frame: Frame, name: str) -> None:
    """Draw round numbers along the bottom, and what they count."""
    for tick in ticks(frame.low_x, frame.high_x):
        x = frame.x(tick)
        canvas.line(x, frame.top, x, frame.bottom)
        canvas.text(x, frame.bottom + 14, number(tick), color="muted", anchor="middle")
    x_name(canvas, frame, name)


def x_name(canvas: Canvas, frame: Frame, name: str) -> None:
    """Write what the horizontal axis counts."""
    middle = (frame.left + frame.right) / 2
    canvas.text(middle, frame.bottom + 33, name, color="muted", anchor="middle")


def y_axis(canvas: Canvas, frame: Frame, name: str) -> None:
    """Draw round numbers along the left, and what they count."""
    for tick in ticks(frame.low_y, frame.high_y, 5):
        y = frame.y(tick)
        canvas.line(frame.left, y, frame.right, y)
        canvas.text(frame.left - 6, y, number(tick), color="muted", anchor="end")
    y_name(canvas, frame, name)


def y_name(canvas: Canvas, frame: Frame, name: str) -> None:
    """Write what the vertical axis counts."""
    canvas.text(12, (frame.top + frame.bottom) / 2, name, color="muted", anchor="middle",
                turned=True)  # fmt: skip
