"""The colours of report and plots: told apart by the colour-blind, on white and on black."""

from __future__ import annotations

from collections.abc import Sequence

#: One for each of the nine clusters that a run tries by default; then they repeat, which
#: is why every chart also names its clusters. Chosen so that any two of them differ by
#: at least 0.12 in OKLab, also for protanopes, deuteranopes and tritanopes (test_palette).
CLUSTERS = (
    "#4448be", "#a8360f", "#229579", "#ff58c1", "#0babff", "#dea537", "#510d78", "#740a29",
    "#784c6c",
)  # fmt: skip
CLUSTERS_DARK = (
    "#2d7aff", "#cb6f0d", "#51ca87", "#fe8aff", "#a0ecd9", "#e7e22f", "#685fab", "#915459",
    "#9b85a0",
)  # fmt: skip

INK = "#1f2328"
MUTED = "#59636e"
GRID = "#d8dee4"
ACCENT = "#0a4f8f"
BELOW = "#2166ac"
ABOVE = "#b35806"
ON_STRONG = "#fffffe"  # text on a strongly coloured cell

_WRITING = ("#ffffff", "#0d1117")


def luminance(color: str) -> float:
    """Return how bright a colour is, 0 to 1.

    References
    ----------
    Web Content Accessibility Guidelines 2.2, "relative luminance".
    """
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _writing_on(color: str) -> str:
    """Return white or near-black, whichever reads better on a colour."""
    bright = luminance(color) + 0.05
    white, black = (luminance(ink) + 0.05 for ink in _WRITING)
    return _WRITING[bright / black > white / bright]


#: CSS variable -> colour on a light page, colour on a dark page.
THEME = {
    "ink": (INK, "#e6edf3"),
    "muted": (MUTED, "#9ea7b3"),
    "grid": (GRID, "#30363d"),
    "accent": (ACCENT, "#6cb6ff"),
    "below": (BELOW, "#4a9fe0"),
    "above": (ABOVE, "#f2813a"),
    "on-strong": (ON_STRONG, "#0d1117"),
    **{f"c{i}": pair for i, pair in enumerate(zip(CLUSTERS, CLUSTERS_DARK, strict=True))},
    **{
        f"on-c{i}": (_writing_on(light), _writing_on(dark))
        for i, (light, dark) in enumerate(zip(CLUSTERS, CLUSTERS_DARK, strict=True))
    },
}


def cluster_slots(cluster_ids: Sequence[int], others: Sequence[int] = ()) -> dict[int, int]:
    """Return which of the colours each cluster has: the same every night, as far as it can.

    A cluster's own colour follows from its id. Where two have the same one, the younger
    cluster takes the next that is free; only more clusters than colours repeat them.

    Parameters
    ----------
    others
        Clusters of earlier runs: they take what is left.
    """
    slots: dict[int, int] = {}
    for cluster in (*sorted(cluster_ids), *sorted(set(others) - set(cluster_ids))):
        wanted = [(cluster + step) % len(CLUSTERS) for step in range(len(CLUSTERS))]
        taken = set(slots.values())
        slots[cluster] = next((slot for slot in wanted if slot not in taken), wanted[0])
    return slots


def cluster_colors(cluster_ids: Sequence[int]) -> dict[int, str]:
    """Return the colour of each cluster on a light page."""
    return {cluster: CLUSTERS[slot] for cluster, slot in cluster_slots(cluster_ids).items()}


def cluster_names(cluster_ids: Sequence[int], others: Sequence[int] = ()) -> dict[int, str]:
    """Return the name of each cluster's colour in `THEME`."""
    return {cluster: f"c{slot}" for cluster, slot in cluster_slots(cluster_ids, others).items()}
