"""Night after night on workers: identity, drift, rows that can be published again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg import pipeline
from gpuseg.distributed.cluster import cluster_of
from gpuseg.distributed.on_dask import place_on
from gpuseg.errors import SettingsError
from gpuseg.outputs.run_folder import ROWS, has_table, read_kept_table, remove_kept, table_files
from gpuseg.settings import resolve

SMALL = {
    "backend": "numpy", "model_name": "people", "n_init": 2, "max_clusters": 4, "sample_size": 400,
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(resolve({"dask": "local:2", "backend": "numpy"})) as there:
        yield there


@pytest.fixture(scope="module")
def nights(cluster, tmp_path_factory):
    """The same two nights here and on workers; in the second one segment has lost most rows."""
    folder = tmp_path_factory.mktemp("nights")
    rng = np.random.default_rng(7)
    centres = np.repeat([[0, 0, 0], [9, 0, 0], [0, 9, 1]], [700, 500, 400], axis=0)
    X = centres + rng.normal(size=(1600, 3))
    people = pa.table({"id": rng.permutation(1600), "a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})
    people = people.append_column("kind", pa.array(np.where(centres[:, 0] > 0, "x", "y")))
    path = folder / "people.parquet"

    def night(rows, **more):
        pq.write_table(people.take(pa.array(rows)), path, row_group_size=300)
        common = {"input_table": str(path), "rowid_column": "id", **SMALL, **more}
        here = pipeline.run(resolve({**common, "runs_dir": str(folder / "here")}))
        settings = resolve({**common, "runs_dir": str(folder / "there")})
        return here, pipeline.run_at(place_on(cluster, n_partitions=3), settings)

    first = night(rng.permutation(1600))
    second = night(np.concatenate([np.arange(100, 1250), np.arange(1500, 1600)]), publish="if-ok")
    return first, second


def test_segments_go_on_under_their_ids(nights):
    for here, there in nights:
        assert there.labels.tolist() == here.labels.tolist()
        assert there.cluster_ids == here.cluster_ids
        assert there.silhouette == pytest.approx(here.silhouette, abs=1e-6)
        assert there.model.reach == pytest.approx(here.model.reach, rel=0.02)
    (_first, first), (here, there) = nights
    assert there.lineage.matched_by == "rowid"
    assert [e._asdict() for e in there.lineage.events] == [e._asdict() for e in here.lineage.events]
    assert set(there.cluster_ids) <= set(first.cluster_ids)


def test_drift_and_movements_are_those_of_one_machine(nights):
    _first, (here, there) = nights
    assert there.change.churn == here.change.churn
    assert there.change.max_psi == pytest.approx(here.change.max_psi, abs=1e-9)
    assert there.change.max_psi_column == here.change.max_psi_column
    assert there.change.movements.drop_columns(["changed"]).equals(
        here.change.movements.drop_columns(["changed"])
    )
    assert there.gate.passed


def test_rows_are_kept_in_parts_and_read_as_one_table(nights):
    for here, there in nights:
        path, _other = table_files(Path(there.run_dir), ROWS)
        assert len(list(path.glob("part-*.parquet"))) >= 3
        kept = read_kept_table(Path(there.run_dir), ROWS)
        assert kept.equals(read_kept_table(Path(here.run_dir), ROWS))
    assert has_table(Path(there.run_dir), ROWS)
    manifest = json.loads((Path(there.run_dir) / "manifest.json").read_bytes())
    assert manifest["status"] == "published"


def test_without_row_ids_the_earlier_model_says_where_rows_were(nights, cluster, tmp_path):
    (first, _), _second = nights
    runs = Path(first.run_dir).parents[1]
    path = tmp_path / "people.parquet"
    people = read_kept_table(Path(first.run_dir), ROWS).drop_columns(["cluster_id", "id"])
    pq.write_table(people, path)
    limits = {"max_seconds": 600, "keep": 9, "runs_dir": str(runs)}
    settings = resolve({"input_table": str(path), **SMALL, **limits})
    there = pipeline.run_at(place_on(cluster, n_partitions=2), settings)
    assert there.lineage.matched_by == "model"
    # one segment went into another on the second night; its id is not given again
    assert there.cluster_ids == (0, 1, 3)
    assert {e.event for e in there.lineage.events} == {"kept", "split", "born"}
    assert there.cut == ()


def test_a_folder_of_parts_goes_like_a_file(tmp_path):
    path = tmp_path / "rows.parquet"
    path.mkdir()
    (path / "part-00000.parquet").write_bytes(b"")
    remove_kept(path)
    remove_kept(path)
    assert not path.exists()


def test_scoring_the_earlier_segments_is_refused():
    settings = resolve({"dask": "local:1", "backend": "numpy", "publish": "if-better"})
    with pytest.raises(SettingsError, match=r"publish 'if-better' .* without dask"):
        pipeline.run(settings)
