"""What differs between two runs: against scikit-learn, and by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outputs.runs import NAME, add_run
from sklearn.metrics import adjusted_rand_score

from gpuseg.errors import ModelError
from gpuseg.outputs.comparison import _by_content, _by_id, adjusted_rand, compare_runs


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40))
def test_the_adjusted_rand_index_is_that_of_scikit_learn(pairs):
    counts = np.zeros((4, 5), dtype=np.int64)
    for a, b in pairs:
        counts[a, b] += 1
    expected = adjusted_rand_score(*zip(*pairs, strict=True))
    assert adjusted_rand(counts) == pytest.approx(expected, abs=1e-12)


def table(ids, clusters, **more):
    return pa.table({"id": ids, **more, "cluster_id": pa.array(clusters, pa.int32())})


def test_rows_are_found_by_their_id_in_any_order():
    a = table(["x", "y", "z", "gone"], [0, 0, 1, 1])
    b = table(["new", "z", "y", "x"], [5, 1, 0, 2])
    agreed, _ = _by_id(a, b, "ID")
    assert (agreed.matched_by, agreed.n_shared) == ("ID", 3)
    assert agreed.same_id == pytest.approx(2 / 3)
    assert agreed.overlap == ((0, 0, 1), (0, 2, 1), (1, 1, 1))


def test_ids_that_do_not_identify_are_not_used():
    twice, missing = table(["x", "x"], [0, 1]), table(["x", None], [0, 1])
    good, other = table(["x", "y"], [0, 1]), table([1, 2], [0, 1])
    strangers = table(["p", "q"], [0, 1])
    for b, words in (
        (twice, "not unique"), (missing, "missing"), (other, "int64"), (strangers, "share no"),
        (good.rename_columns(["key", "cluster_id"]), "no column"),
    ):  # fmt: skip
        agreed, why = _by_id(good, b, "id")
        assert agreed is None
        assert words in why


def test_without_ids_equal_rows_are_matched_whatever_their_order():
    values = [1.5, float("nan"), 3.0, 1.5]
    a = table([1, 2, 3, 1], [0, 1, 2, 0], v=values)
    turned = a.take([2, 3, 0, 1])
    agreed, _ = _by_content(a, turned)
    assert (agreed.matched_by, agreed.n_shared, agreed.same_id) == ("content", 4, 1.0)
    agreed, why = _by_content(a, a.slice(1))
    assert agreed is None
    assert "other rows" in why


def test_a_run_that_is_not_there_is_named(tmp_path):
    run_id = add_run(tmp_path, 0)
    with pytest.raises(ModelError, match="no run 20260101T000000Z-aaaaaa"):
        compare_runs(tmp_path, NAME, run_id, "20260101T000000Z-aaaaaa")
    with pytest.raises(ModelError, match="not a run id"):
        compare_runs(tmp_path, NAME, "../x", run_id)
