"""The tree for all segments: planted segments come back, fidelity is counted on all rows."""

from __future__ import annotations

import numpy as np
import pytest
from explain.by_hand import categorical, numeric, shuffled, some_table

from gpuseg.explain.surrogate import surrogate_fidelity


def test_tells_planted_segments_in_words():
    age = np.repeat(np.arange(18, 78), 10)
    city = np.tile(["Rome", "Oslo", "Oslo", "Oslo", "Oslo"], 120)
    labels = np.where(city == "Rome", 2, age >= 42).astype(np.int32)
    surrogate = surrogate_fidelity([numeric("age", age), categorical("city", city)], labels)
    assert surrogate.fidelity == 1.0
    assert surrogate.text.splitlines() == [
        "if age >= 42:",
        "  if city is Rome:",
        "    segment 2 (100% of 72 rows)",
        "  otherwise:",
        "    segment 1 (100% of 288 rows)",
        "otherwise:",
        "  if city is Rome:",
        "    segment 2 (100% of 48 rows)",
        "  otherwise:",
        "    segment 0 (100% of 192 rows)",
    ]


@pytest.mark.parametrize("max_rows", [10_000, 500])
def test_fidelity_is_the_share_of_rows_in_the_right_leaf(max_rows):
    columns, labels = some_table(5000)
    surrogate = surrogate_fidelity(columns, labels, max_rows=max_rows)
    leaves = [line.split("(")[1] for line in surrogate.text.splitlines() if "segment" in line]
    sizes = [int(leaf.split(" of ")[1].split(" ")[0].replace(",", "")) for leaf in leaves]
    shares = [float(leaf.split("%")[0]) / 100 for leaf in leaves]
    assert sum(sizes) == 5000
    assert surrogate.fidelity == pytest.approx(np.dot(sizes, shares) / 5000, abs=0.005)
    assert surrogate.fidelity > 0.95
    moved, moved_labels, _ = shuffled(columns, labels, 4)
    assert surrogate_fidelity(moved, moved_labels, max_rows=max_rows) == surrogate


def test_missing_values_go_to_one_side_and_it_says_which():
    income = np.where(np.arange(300) % 3 == 0, np.nan, np.arange(300))
    labels = (np.isnan(income) | (np.nan_to_num(income) >= 150)).astype(np.int32)
    surrogate = surrogate_fidelity([numeric("income", income)], labels)
    assert surrogate.fidelity == 1.0
    assert surrogate.text.startswith("if income >= 150 (or missing):\n  segment 1")
    missing = np.isnan(income).astype(np.int32)
    surrogate = surrogate_fidelity([numeric("income", income)], missing)
    assert surrogate.text.startswith("if income is missing:\n  segment 1 (100% of 100 rows)")


def test_without_columns_the_largest_segment_is_the_answer():
    labels = np.array([0, 1, 1, 1], dtype=np.int32)
    assert surrogate_fidelity([], labels) == ("segment 1 (75% of 4 rows)", 0.75)
