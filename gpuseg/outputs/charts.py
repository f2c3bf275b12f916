"""The charts of the report. Import this module lazily: it brings in matplotlib.

Each function draws one figure, narrow enough for its text to be read on a phone.
Nothing here knows about HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gpuseg.outputs.palette import ABOVE, ACCENT, BELOW, INK, MUTED, ON_STRONG, cluster_color
from gpuseg.outputs.wording import number, shortened

WIDTH = 4.6  # inches
_ROW_HEIGHT = 0.28
_LEGEND_COLUMNS = 9
_MOST_CELL_TEXTS = 14  # clusters; beyond, numbers in cells overlap

Floats = npt.NDArray[np.float64]


def silhouette_by_k(
    k_values: Sequence[int], silhouette: Floats, stderr: Floats, chosen: int
) -> Figure:
    """Draw the mean silhouette of every k, with standard errors where it was sampled."""
    figure, axes = _figure(3.0)
    axes.grid(axis="y")
    if stderr.any():
        axes.errorbar(k_values, silhouette, yerr=stderr, color=ACCENT, capsize=3, linewidth=1.6)
    else:
        axes.plot(k_values, silhouette, color=ACCENT, linewidth=1.6)
    axes.plot(k_values, silhouette, "o", color=ACCENT, markersize=4.5, clip_on=False)
    best = float(silhouette[list(k_values).index(chosen)])
    axes.axvline(chosen, color=ABOVE, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.plot([chosen], [best], "o", color=ABOVE, markersize=8.5, clip_on=False)
    # above the plot, where no line or error bar can run through it
    axes.set_title(f"chosen: k = {chosen}, silhouette {best:.3f}", color=ABOVE, weight="bold")
    axes.margins(x=0.08, y=0.12)
    axes.set_xticks(k_values)
    axes.set_xlabel("Number of segments k")
    axes.set_ylabel("Mean silhouette (−1 to 1)")
    return figure


def row_map(points: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Figure:
    """Draw rows on the first two principal axes; far ones are moved to the border."""
    figure, axes = _figure(4.2)
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    pad = np.maximum(0.06 * (high - low), 1e-6)
    inside = np.clip(points, low - pad, high + pad)
    colors = [cluster_color(c) for c in labels.tolist()]
    axes.scatter(inside[:, 0], inside[:, 1], s=9, c=colors, alpha=0.75, linewidths=0)
    for cluster in np.unique(labels).tolist():
        x, y = np.median(inside[labels == cluster], axis=0)
        box = {"boxstyle": "circle,pad=0.3", "fc": cluster_color(cluster), "ec": ON_STRONG}
        axes.text(x, y, str(cluster), color=ON_STRONG, weight="bold", ha="center", va="center",
                  bbox=box)  # fmt: skip
    axes.set_xlabel("First principal axis (scaled units)")
    axes.set_ylabel("Second principal axis (scaled units)")
    return figure


def top_features(names: Sequence[Sequence[str]], values: Sequence[Sequence[float]]) -> Figure:
    """Draw the strongest features of each cluster, one group of bars under another.

    Parameters
    ----------
    names, values
        For each cluster its features and their mean absolute SHAP values, strongest first.
    """
    n_lines = sum(len(group) + 1 for group in names)
    figure, axes = _figure(0.6 + 0.22 * n_lines)
    ticks: list[float] = []
    texts: list[str] = []
    y = 0.0
    for cluster, (group, bars) in enumerate(zip(names, values, strict=True)):
        axes.text(0, y, f"Segment {cluster}", weight="bold", va="center", ha="left")
        places = [y + 1 + i for i in range(len(group))]
        axes.barh(places, bars, height=0.72, color=cluster_color(cluster))
        for place, value in zip(places, bars, strict=True):
            axes.annotate(number(value), (value, place), xytext=(3, 0), va="center",
                          textcoords="offset points", color=MUTED, fontsize=8.5)  # fmt: skip
        ticks += places
        texts += [shortened(name) for name in group]
        y += len(group) + 1.25
    axes.set_yticks(ticks, labels=texts)
    axes.set_ylim(y - 0.5, -0.7)
    axes.margins(x=0.14)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Mean |SHAP|")
    return figure


def stacked_shap(features: Sequence[str], mean_abs: Floats) -> Figure:
    """Draw mean absolute SHAP values, one bar per feature, one piece per cluster.

    Parameters
    ----------
    mean_abs : array of shape (n_features, n_clusters)
    """
    n_clusters = mean_abs.shape[1]
    legend_rows = -(-n_clusters // _LEGEND_COLUMNS)
    figure, axes = _figure(0.9 + 0.2 * legend_rows + _ROW_HEIGHT * len(features))
    axes.grid(axis="x")
    start = np.zeros(len(features))
    for cluster in range(n_clusters):
        axes.barh(
            range(len(features)),
            mean_abs[:, cluster],
            left=start,
            height=0.72,
            color=cluster_color(cluster),
            label=str(cluster),
        )
        start += mean_abs[:, cluster]
    _name_rows(axes, features)
    axes.set_xlabel("Mean |SHAP|, added up")
    figure.legend(
        loc="outside upper center",
        ncols=min(n_clusters, _LEGEND_COLUMNS),
        title="Segment",
        handlelength=0.9,
        handletextpad=0.4,
        columnspacing=0.9,
    )
    return figure


def heatmap(features: Sequence[str], values: Floats, *, limit: float, legend: str) -> Figure:
    """Draw signed values of features (down) and clusters (across).

    Parameters
    ----------
    values : array of shape (n_features, n_clusters)
        NaN cells stay empty.
    limit
        Absolute value that gets the full colour.
    """
    n_clusters = values.shape[1]
    width = max(WIDTH, 2.2 + 0.36 * n_clusters)
    figure, axes = _figure(0.95 + _ROW_HEIGHT * len(features), width)
    shades = np.clip(values / limit if limit else 0 * values, -1, 1)
    places = list(zip(*np.nonzero(~np.isnan(shades)), strict=True))
    cells = [Rectangle((cluster - 0.48, row - 0.46), 0.96, 0.92) for row, cluster in places]
    colors = [_shade(float(shades[place])) for place in places]
    axes.add_collection(PatchCollection(cells, facecolors=colors, linewidths=0))
    if n_clusters <= _MOST_CELL_TEXTS:
        for row, cluster in places:
            color = ON_STRONG if abs(shades[row, cluster]) > 0.8 else INK
            text = axes.text(cluster, row, _signed(values[row, cluster], limit), color=color,
                             ha="center", va="center", fontsize=7.5)  # fmt: skip
            text.set_in_layout(False)  # inside its cell, and measuring each takes long
    axes.set_xlim(-0.5, n_clusters - 0.5)
    axes.set_xticks(range(n_clusters), labels=[str(c) for c in range(n_clusters)])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    _name_rows(axes, features)
    axes.set_xlabel(f"Segment\n{legend}")
    return figure


def importance(features: Sequence[str], values: Floats) -> Figure:
    """Draw the Gini importance of each feature."""
    figure, axes = _figure(0.7 + _ROW_HEIGHT * len(features))
    axes.grid(axis="x")
    axes.barh(range(len(features)), values, height=0.72, color=ACCENT)
    _name_rows(axes, features)
    axes.set_xlabel("Gini importance")
    return figure


def _figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _name_rows(axes: Axes, features: Sequence[str]) -> None:
    axes.set_yticks(range(len(features)), labels=[shortened(name) for name in features])
    axes.set_ylim(len(features) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _shade(value: float) -> tuple[float, float, float, float]:
    """Return the colour of -1.0 to 1.0: none at 0, so that it suits a page of any colour."""
    return to_rgba(ABOVE if value > 0 else BELOW, 0.04 + 0.9 * abs(value))


def _signed(value: float, limit: float) -> str:
    text = f"{value:+.2f}".replace("0.", ".") if limit < 1 else f"{value:+.1f}"
    return text if float(text) else "0"
