"""Colours that the colour-blind can tell apart, on a light page and on a dark one."""

import itertools

import numpy as np
import pytest

from gpuseg.outputs.palette import CLUSTERS, CLUSTERS_DARK, THEME, cluster_colors

# Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of
# Color Vision Deficiency", severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip

# Ottosson 2020, "A perceptual color space for image processing" (OKLab)
TO_LMS = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
          [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
TO_LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
          [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip


def linear(color):
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ np.clip(rgb, 0, 1))


def contrast(first, second):
    light, dark = sorted((float(np.dot([0.2126, 0.7152, 0.0722], linear(c))) for c in
                          (first, second)), reverse=True)  # fmt: skip
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colors", [CLUSTERS, CLUSTERS_DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_clusters_are_told_apart(colors, sight):
    seen = [oklab(np.array(SIGHT[sight]) @ linear(color)) for color in colors]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) >= 0.12


def test_text_and_marks_stand_out_from_the_page():
    for name, (on_light, on_dark) in THEME.items():
        if name == "grid" or name.startswith("on-"):
            continue
        wanted = 4.5 if name in ("ink", "muted", "accent") else 2.0
        assert contrast(on_light, "#ffffff") >= wanted, name
        assert contrast(on_dark, "#161b22") >= wanted, name


def test_more_clusters_than_colours_repeat_them():
    colors = cluster_colors(range(len(CLUSTERS) + 1))
    assert colors[len(CLUSTERS)] == colors[0]
    assert len(set(colors.values())) == len(CLUSTERS)


def test_a_cluster_keeps_its_colour_and_shares_it_with_none():
    today, tomorrow = cluster_colors((0, 3, 4)), cluster_colors((0, 4, 9, 12))
    assert tomorrow[0] == today[0] == CLUSTERS[0]
    assert tomorrow[4] == today[4] == CLUSTERS[4]
    assert tomorrow[9] == CLUSTERS[1]  # 0 has what would be its own
    assert tomorrow[12] == CLUSTERS[3]


def test_numbers_on_a_cluster_are_read_easily():
    for i in range(len(CLUSTERS)):
        for on, under in zip(THEME[f"on-c{i}"], THEME[f"c{i}"], strict=True):
            assert contrast(on, under) >= 4.5
