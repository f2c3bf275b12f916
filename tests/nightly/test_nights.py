"""Segments from night to night, by row ids and by the model: shuffled, reseeded, grown, split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.choice import choose
from gpuseg.clustering.sweep import sweep
from gpuseg.features import FeatureSettings, prepare
from gpuseg.nightly.earlier import earlier_places
from gpuseg.nightly.identity import continued, means_of_earlier, warm_starts
from gpuseg.outputs.conclusion import _reach
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.outputs.public_ids import public_ids
from gpuseg.records import Table
from gpuseg.settings import resolve

BACKEND = NumPyBackend()
CENTRES = {"a": (0, 0), "b": (30, 0), "c": (0, 30), "d": (30, 30), "e": (60, 60)}


def customers(seed: int = 0, first: int = 0, **sizes: int) -> pa.Table:
    """Return rows around the named centres, numbered and shuffled."""
    rng = np.random.default_rng(seed)
    middle = np.repeat([CENTRES[name] for name in sizes], list(sizes.values()), axis=0)
    X = middle + rng.normal(0, 2, middle.shape)
    kind = np.repeat(list(sizes), list(sizes.values()))
    ids = np.arange(first, first + len(X))
    rows = pa.table({"id": ids, "kind": kind, "x": X[:, 0], "y": X[:, 1]})
    return rows.take(rng.permutation(len(X)))


class Nights:
    """Runs the rooms that decide on ids, night after night, and keeps what they need."""

    def __init__(self, folder, rowid: str | None, **parameters):
        self.folder, self.night = folder, 0
        parameters |= {"runs_dir": str(folder), "ignore_columns": ["kind"], "max_clusters": 6}
        plain = {"columns": ["x", "y"], "transform": "none", "scaling": "none"}
        self.parameters = {"rowid_column": rowid} | plain | parameters
        self.earlier = EarlierModel()
        self.known: set[int] = set()

    def run(self, table: pa.Table, **parameters):
        """Segment a table; return the id of each row, and the lineage."""
        settings = resolve(self.parameters | parameters)
        table_of = Table("t", table)
        places = means = None
        if self.earlier.model is not None:
            found = earlier_places(settings, BACKEND, table_of, self.earlier.model)
            assert found.warnings == ()
            places = found.typical
            assert places.matched_by == ("rowid" if settings.rowid_column else "model")
        features = prepare(BACKEND, table_of, FeatureSettings.of(settings))
        if places is not None:
            means = means_of_earlier(features, BACKEND, places)
        swept = sweep(
            BACKEND, features.X, settings.k_values, n_init=3, warm_starts=warm_starts(means),
            random_state=settings.random_state,
        )  # fmt: skip
        choice = choose(BACKEND, features.X, swept, asked_for=settings.num_clusters)
        choice, lineage = continued(BACKEND, features, choice, self.earlier, places, means)
        ids = public_ids(features.in_table_order(choice.fit.labels), choice.cluster_ids)
        self._keep(table, features, choice, ids)
        if lineage is not None:
            assert lineage.cluster_ids == choice.cluster_ids
            born = {e.cluster_id for e in lineage.events if e.event == "born"}
            assert not born & self.known  # no id is given twice
        self.known |= set(choice.cluster_ids)
        return ids, lineage

    def _keep(self, table, features, choice, ids) -> None:
        self.night += 1
        run_id = f"202611{self.night:02d}T030000Z-000000"
        tables = self.folder / "m" / run_id / "tables"
        tables.mkdir(parents=True)
        pq.write_table(table.append_column("cluster_id", pa.array(ids)), tables / "rows.parquet")
        following = max(self.earlier.next_cluster_id, choice.cluster_ids[-1] + 1)
        model = StoredModel(
            name="m", run_id=run_id, created="", input_name="t", n_rows=len(ids),
            n_clusters=choice.n_clusters, silhouette=0.0, columns=features.columns, k_scores=(),
            settings={}, versions={}, backend="numpy", encoder_dict=features.encoder.to_dict(),
            encoder_arrays=features.encoder.arrays(), centroids=choice.fit.centroids,
            cluster_ids=choice.cluster_ids, next_cluster_id=following,
            reach=_reach(BACKEND, features, choice),
        )  # fmt: skip
        self.earlier = EarlierModel(model, following)


@pytest.fixture(params=["id", None], ids=["by rowid", "by model"])
def nights(request, tmp_path):
    return Nights(tmp_path, request.param)


def of_kind(table, ids) -> dict[str, set[int]]:
    """Return the ids that the rows of each kind have."""
    kinds = np.array(table["kind"].to_pylist())
    return {str(kind): set(ids[kinds == kind].tolist()) for kind in np.unique(kinds)}


def told(lineage):
    return [(e.event, e.cluster_id, e.previous_cluster_id) for e in lineage.events]


def test_shuffled_rows_and_another_seed_keep_every_id(nights):
    table = customers(a=60, b=50, c=40)
    first, lineage = nights.run(table)
    assert lineage is None
    assert of_kind(table, first) == {"a": {0}, "b": {1}, "c": {2}}  # 0 is the largest
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(table.num_rows)
        again, lineage = nights.run(table.take(order), random_state=seed)
        assert (again == first[order]).mean() >= 0.99
        assert told(lineage) == [("kept", 0, 0), ("kept", 1, 1), ("kept", 2, 2)]
        assert lineage.next_cluster_id == 3


def test_sizes_change_and_ids_do_not(nights):
    table = customers(a=60, b=50, c=40)
    nights.run(table)
    # most of a leaves, c grows with new rows: the order of sizes is turned round
    kinds, rows = np.array(table["kind"].to_pylist()), np.arange(table.num_rows)
    left = table.take(np.concatenate([rows[kinds == "a"][:20], rows[kinds != "a"]]))
    table = pa.concat_tables([left, customers(seed=5, first=1000, c=70)])
    ids, lineage = nights.run(table)
    assert of_kind(table, ids) == {"a": {0}, "b": {1}, "c": {2}}
    kept = [event for event in lineage.events if event.event == "kept"]
    assert len(kept) == len(lineage.events) == 3
    if nights.parameters["rowid_column"]:
        assert [event.n_shared for event in kept] == [20, 50, 40]


def test_a_new_kind_gets_a_new_id_and_an_old_id_is_not_used_again(nights):
    nights.run(customers(a=60, b=50, c=40))
    table = pa.concat_tables([customers(a=60, b=50, c=40), customers(first=500, e=45)])
    ids, lineage = nights.run(table)
    assert of_kind(table, ids) == {"a": {0}, "b": {1}, "c": {2}, "e": {3}}
    assert [e.cluster_id for e in lineage.events if e.event == "born"] == [3]
    # the kind goes, and comes back some nights later
    ids, lineage = nights.run(customers(a=60, b=50, c=40))
    assert told(lineage)[-1] == ("retired", None, 3)
    table = pa.concat_tables([customers(a=60, b=50, c=40), customers(first=500, e=45)])
    ids, lineage = nights.run(table)
    assert of_kind(table, ids)["e"] == {4}
    assert lineage.next_cluster_id == 5


def moved(table, kind, centre):
    """Let the rows of a kind move to another centre."""
    is_kind = np.array(table["kind"].to_pylist()) == kind
    shift = np.array(CENTRES[centre]) - np.array(CENTRES[kind])
    for axis, name in enumerate("xy"):
        values = table[name].to_numpy() + shift[axis] * is_kind
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def test_two_segments_merge(tmp_path):
    nights = Nights(tmp_path, "id")
    table = customers(a=60, b=50, c=40)
    nights.run(table)
    ids, lineage = nights.run(moved(table, "c", "b"))
    assert of_kind(table, ids) == {"a": {0}, "b": {1}, "c": {1}}
    assert told(lineage) == [("kept", 0, 0), ("kept", 1, 1), ("merged", 1, 2), ("retired", 1, 2)]
    merged = lineage.events[2]
    assert (merged.n_shared, merged.share_of_previous) == (40, 1.0)
    assert merged.share_of_current == pytest.approx(40 / 90)


def test_a_segment_splits(tmp_path):
    nights = Nights(tmp_path, "id")
    table = customers(a=60, b=50, c=40)
    nights.run(moved(table, "c", "b"))
    ids, lineage = nights.run(table)
    # of two parts the larger one goes on
    assert of_kind(table, ids) == {"a": {1}, "b": {0}, "c": {2}}
    assert told(lineage) == [("kept", 0, 0), ("kept", 1, 1), ("split", 2, 0), ("born", 2, 0)]
    assert lineage.events[2].share_of_previous == pytest.approx(40 / 90)


def test_fewer_and_more_clusters_of_the_same_rows(nights):
    table = customers(a=60, b=50, c=40, d=30)
    nights.run(table)
    ids, lineage = nights.run(table, num_clusters=2)
    assert set(ids.tolist()) <= {0, 1, 2, 3}
    assert {e.event for e in lineage.events} == {"kept", "merged", "retired"}
    ids, lineage = nights.run(table)
    assert len({e.cluster_id for e in lineage.events if e.event == "born"} & {4, 5}) == 2


def test_the_start_from_the_earlier_segments_competes(tmp_path):
    """Without restarts worth the name, the earlier optimum is found again all the same."""
    rng = np.random.default_rng(0)
    X = rng.random((400, 2))  # no structure at all: many optima
    table = pa.table({"id": np.arange(400), "kind": ["a"] * 400, "x": X[:, 0], "y": X[:, 1]})
    nights = Nights(tmp_path, "id", num_clusters=9)
    first, _ = nights.run(table)
    again, _ = nights.run(table, random_state=99)
    assert (again == first).mean() >= 0.99


def test_a_model_that_cannot_be_read_leaves_its_ids_to_nobody(tmp_path):
    nights = Nights(tmp_path, "id")
    nights.earlier = EarlierModel(None, 7, ("what was wrong",))
    table = customers(a=60, b=50)
    ids, lineage = nights.run(table)
    assert lineage is None
    assert of_kind(table, ids) == {"a": {7}, "b": {8}}


def test_positions_are_in_the_order_of_ids(tmp_path):
    nights = Nights(tmp_path, "id")
    table = customers(a=60, b=50, c=40)
    nights.run(table)
    model = nights.earlier.model
    nights.earlier = EarlierModel(replace(model, cluster_ids=(2, 5, 9), next_cluster_id=12), 12)
    rows = pq.read_table(tmp_path / "m" / model.run_id / "tables" / "rows.parquet")
    ids = pa.array(public_ids(rows["cluster_id"].to_numpy(), (9, 5, 2)))
    rows = rows.set_column(rows.column_names.index("cluster_id"), "cluster_id", ids)
    pq.write_table(rows, tmp_path / "m" / model.run_id / "tables" / "rows.parquet")
    ids, lineage = nights.run(table)
    assert of_kind(table, ids) == {"a": {9}, "b": {5}, "c": {2}}
    assert nights.earlier.model.cluster_ids == (2, 5, 9)
    assert lineage.next_cluster_id == 12
