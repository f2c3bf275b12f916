"""Runs on real workers, each a process of its own, compared with runs on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuseg import pipeline
from gpuseg.clustering.choice import choose
from gpuseg.clustering.sweep import sweep
from gpuseg.distributed import cluster as clusters
from gpuseg.distributed.backend import DaskBackend
from gpuseg.distributed.cluster import cluster_of
from gpuseg.distributed.facts import check_agreement
from gpuseg.distributed.matrix import Matrix, ordered_keys
from gpuseg.distributed.on_dask import place_on
from gpuseg.errors import BackendUnavailableError, ClusterError, DataError, SettingsError
from gpuseg.features import FeatureSettings
from gpuseg.places import place_of_work
from gpuseg.records import no_progress
from gpuseg.settings import resolve

ROOT = Path(__file__).parents[2]
GLUON = ROOT / "examples" / "gluon_train.parquet"
CARDS = ROOT / "tests" / "data" / "CC GENERAL.csv"

ON_WORKERS = {"dask": "local:2", "backend": "numpy"}


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(resolve(ON_WORKERS)) as there:
        yield there


@pytest.fixture(scope="module")
def adults(tmp_path_factory):
    """A part of a real table, in several row groups; many columns, so that there is PCA."""
    path = tmp_path_factory.mktemp("adults") / "adults.parquet"
    pq.write_table(pq.read_table(GLUON).slice(0, 2500), path, row_group_size=600)
    return path


def settings_of(path, **parameters):
    texts = {n: str(v) if isinstance(v, Path) else v for n, v in parameters.items()}
    return resolve({"input_table": str(path), "n_init": 2, "max_clusters": 3, **texts})


def fitted(place, settings):
    """Go through the rooms up to the choice."""
    backend, work = place.backend, place.work
    table = work.read(settings, no_progress)
    features = work.prepare(backend, table, FeatureSettings.of(settings))
    swept = sweep(
        backend, features.X, settings.k_values, n_init=settings.n_init,
        random_state=settings.random_state, sample_size=settings.sample_size,
    )  # fmt: skip
    choice = choose(backend, features.X, swept)
    labels = features.in_table_order(np.asarray(backend.to_host(choice.fit.labels)))
    return features, swept, choice, labels


@pytest.fixture(scope="module")
def alone():
    """What this machine finds, by the settings."""
    found = {}

    def of(settings):
        if settings not in found:
            with place_of_work(settings) as place:
                found[settings] = fitted(place, settings)
        return found[settings]

    return of


# -- equal results -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "sample_size", "n_partitions"),
    [
        *(("adults", None, n) for n in (1, 3)),
        *(("adults", 300, n) for n in (2, 7)),
        *(("cards", 300, n) for n in (1, 2, 3, 7)),
    ],
)
def test_workers_find_what_one_machine_finds(
    cluster, adults, alone, table, sample_size, n_partitions
):
    path = adults if table == "adults" else CARDS
    settings = settings_of(path, backend="numpy", sample_size=sample_size)
    features, swept, choice, labels = alone(settings)
    there = fitted(place_on(cluster, n_partitions=n_partitions), settings)

    assert len(there[0].X.parts) >= n_partitions
    assert there[0].decisions == features.decisions
    assert there[0].warnings == features.warnings
    assert there[0].encoder.to_dict() == features.encoder.to_dict()
    for name, array in features.encoder.arrays().items():
        np.testing.assert_allclose(there[0].encoder.arrays()[name], array, atol=1e-6)
    assert there[2].n_clusters == choice.n_clusters
    np.testing.assert_allclose(there[2].fit.centroids, choice.fit.centroids, atol=1e-4)
    assert (there[3] != labels).mean() < 1e-3
    for k, score in swept.scores.items():
        found = there[1].scores[k]
        assert found.method == score.method
        for name in ("silhouette", "silhouette_stderr", "inertia", "calinski_harabasz",
                     "davies_bouldin", "min_cluster_share", "stability"):  # fmt: skip
            assert getattr(found, name) == pytest.approx(getattr(score, name), rel=1e-3, abs=1e-6)
    if sample_size is not None and features.X is features.encoded:  # the very same rows
        scored = features.order[swept.scored_rows]
        assert sorted(scored) == there[1].scored_rows.tolist()


@pytest.fixture(scope="module")
def runs(cluster, adults, tmp_path_factory):
    """A whole run here and one on workers, with everything that is written."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = {"backend": "numpy", "columns": "age,education,hours-per-week", "row_scores": True}
    here = pipeline.run(
        settings_of(
            adults, runs_dir=folder / "here", output_table=folder / "here.parquet", **wanted
        )
    )
    settings = settings_of(
        adults, runs_dir=folder / "there", output_table=f"{folder / 'there'}.parts/", **wanted
    )
    there = pipeline.run_at(place_on(cluster, n_partitions=3), settings)
    return here, there


def test_a_whole_run_says_and_writes_what_one_machine_does(runs):
    here, there = runs
    assert there.backend_reason == "numpy on 2 Dask workers (asked for)"
    assert there.columns.equals(here.columns)
    assert there.rules.equals(here.rules)
    assert there.tree.text == here.tree.text
    assert there.segments == here.segments
    for name in ("profiles", "feature_importance", "shap_values"):
        theirs, ours = (getattr(run.explanation, name) for run in (there, here))
        for column in ours.column_names:
            pairs = zip(theirs[column].to_pylist(), ours[column].to_pylist(), strict=True)
            assert all(about_equal(*pair) for pair in pairs), column
    parts = sorted(path.name for path in Path(there.output_table).iterdir())
    assert len(parts) == len(there.table._partitions) > 1
    assert parts[0] == "part-00000.parquet"
    theirs, ours = (pq.read_table(run.output_table) for run in (there, here))
    assert theirs.schema.equals(ours.schema, check_metadata=True)
    for column in ours.column_names:
        if column != "silhouette":
            assert theirs[column].equals(ours[column]), column
    np.testing.assert_allclose(theirs["silhouette"], ours["silhouette"], atol=1e-5)


def about_equal(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-6, abs=1e-9)
    return one == other


def test_the_input_has_the_fingerprint_of_one_machine(runs):
    import json

    here, there = (json.loads((Path(run.run_dir) / "manifest.json").read_text()) for run in runs)
    assert there["input"] == here["input"]


def test_another_client_places_rows_with_the_model(cluster, runs, adults, tmp_path):
    """The address of a scheduler, one file that is written from here, and nothing fitted."""
    here, there = runs
    address = cluster.client.scheduler.address
    settings = settings_of(
        adults, dask=address, backend="numpy", output_table=tmp_path / "placed.csv",
        runs_dir=Path(there.run_dir).parents[1], model_name=there.model_name,
    )  # fmt: skip
    placed = pipeline.assign(settings)
    assert placed.labels.tolist() == here.labels.tolist()
    assert len((tmp_path / "placed.csv").read_text().splitlines()) == 2501


def test_empty_clusters_are_refilled_as_on_one_machine(cluster):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(500, 3)).astype(np.float32)
    X[[17, 333]] = [[30, 0, 0], [0, 40, 0]]
    start = np.array([[0, 0, 0], [900, 0, 0], [0, 900, 0], [0, 0, 900]], np.float32)
    sizes = [100, 1, 249, 150]
    blocks = cluster.each("test", np.array, np.split(X, np.cumsum(sizes)[:-1]))
    matrix = Matrix(cluster, blocks, sizes, 3, ordered_keys(cluster, blocks, len(X)))
    limits = {"max_iter": 100, "tol": 1e-6, "progress": no_progress}
    (found,) = DaskBackend(cluster).lloyd(matrix, [start], **limits)
    (expected,) = DaskBackend(cluster).lloyd(X, [start], **limits)
    np.testing.assert_allclose(found.centroids, expected.centroids, atol=1e-5)
    assert found.labels.on_host().tolist() == expected.labels.tolist()
    assert found.inertia == pytest.approx(expected.inertia)
    assert found.n_iter == expected.n_iter


# -- the dashboard -----------------------------------------------------------------------


def test_tasks_bear_the_names_of_stages(cluster, runs):
    def prefixes(dask_scheduler):
        return sorted(dask_scheduler.task_prefixes)

    assert {
        "gpuseg read", "gpuseg statistics", "gpuseg encode", "gpuseg order", "gpuseg sample",
        "gpuseg kmeans", "gpuseg assign", "gpuseg silhouette", "gpuseg profiles", "gpuseg write",
    } <= set(cluster.client.run_on_scheduler(prefixes))  # fmt: skip


def test_a_step_of_kmeans_says_which(cluster):
    def groups(dask_scheduler):
        return list(dask_scheduler.task_groups)

    task = cluster.one("kmeans: k=2..9 step 7", abs, -1)
    assert cluster.result(task) == 1
    found = cluster.client.run_on_scheduler(groups)
    assert any(g.startswith("gpuseg kmeans-") and g.endswith(" k=2..9 step 7") for g in found)


# -- what goes wrong ---------------------------------------------------------------------


def test_rounds_of_many_chosen_rows_end(cluster, alone):
    """The rows that meet all others are more than Dask sends along with each task."""
    settings = settings_of(CARDS, backend="numpy", sample_size=2000)
    _features, swept, choice, labels = alone(settings)
    there = fitted(place_on(cluster, n_partitions=3), settings)
    assert 4 * 2000 * there[0].X.shape[1] > clusters.SHARED_BYTES
    assert there[2].n_clusters == choice.n_clusters
    assert (there[3] != labels).mean() < 1e-3
    for k, score in swept.scores.items():
        assert there[1].scores[k].silhouette == pytest.approx(score.silhouette, rel=1e-3)


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(adults, alone, monkeypatch, caplog):
    settings = settings_of(adults, **ON_WORKERS, sample_size=300)
    *_rooms, labels = alone(settings_of(adults, backend="numpy", sample_size=300))
    killed = []
    whole_pass = DaskBackend._pass

    def after_a_murder(self, X, runs, number):
        if not killed:
            pids = self._cluster.on_every_worker(os.getpid)
            killed.append(min(pids.values()))
            os.kill(killed[0], signal.SIGKILL)
        return whole_pass(self, X, runs, number)

    monkeypatch.setattr(DaskBackend, "_pass", after_a_murder)
    with cluster_of(settings) as there:
        *_rooms, found = fitted(place_on(there, n_partitions=4), settings)
        assert killed[0] not in there.on_every_worker(os.getpid).values()
    assert killed
    assert (found != labels).mean() < 1e-3
    assert "1 of 2 workers were lost" in caplog.text


def test_processes_and_files_are_gone_after_an_error():
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(cluster_of(resolve({**ON_WORKERS, "dask": "local:1"})))
        (pid,) = there.on_every_worker(os.getpid).values()
        with pytest.raises(DataError):
            there.result(there.one("test", refuse, 1))
    for _attempt in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    assert not there.scratch.exists()


def refuse(_part):
    raise DataError("this part cannot be used")


def test_a_cluster_without_workers_is_lost(cluster, monkeypatch):
    """A scheduler, one worker without a nanny that would replace it, and a murder."""
    from distributed import LocalCluster

    monkeypatch.setattr(clusters, "LOST_SECONDS", 3.0)
    with LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as scheduler:
        address = scheduler.scheduler_address
        with subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny",
             "--no-dashboard"],
            stderr=subprocess.DEVNULL,
        ) as worker:  # fmt: skip
            try:
                monkeypatch.setattr(clusters, "LOST_SECONDS", 30.0)
                with cluster_of(resolve({"dask": address, "backend": "numpy"})) as there:
                    monkeypatch.setattr(clusters, "LOST_SECONDS", 3.0)
                    task = there.one("test", time.sleep, 60)
                    worker.kill()
                    with pytest.raises(ClusterError, match="no worker any more") as raised:
                        there.result(task)
            finally:
                worker.kill()
    assert raised.value.exit_code == 4


def test_a_scheduler_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.5)
    settings = resolve({"dask": "tcp://127.0.0.1:9"})
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        pipeline.run(settings)


@pytest.mark.parametrize("where", ["local:0", "local:x", "two", "local", "tcp://host"])
def test_what_is_no_address(where):
    with pytest.raises(SettingsError, match=r"expected local:N .* or the address of a scheduler"):
        pipeline.run(resolve({"dask": where}))


def test_dask_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'gpuseg\[dask\]'"):
        pipeline.run(resolve(ON_WORKERS))


def test_workers_of_another_version_are_refused(cluster):
    facts = dict(zip(cluster.addresses, cluster.facts, strict=True))
    assert check_agreement(facts) == facts
    address, own = next(iter(facts.items()))
    for name in ("gpuseg", "numpy"):
        other = own._replace(versions={**own.versions, name: "0.0.7"})
        with pytest.raises(BackendUnavailableError, match=f"{name} 0.0.7, here it is"):
            check_agreement({**facts, address: other})
    with pytest.raises(BackendUnavailableError, match="some do not"):
        check_agreement({**facts, address: own._replace(backend="gpu")})
    with pytest.raises(BackendUnavailableError, match=r"cannot run gpuseg .* No module"):
        check_agreement({address: ModuleNotFoundError("No module named 'gpuseg'")})


def test_a_table_in_memory_is_refused(cluster):
    import pyarrow as pa

    from gpuseg.records import Table

    with pytest.raises(SettingsError, match="cannot read a table that is in memory"):
        pipeline.run_at(
            place_on(cluster), resolve(ON_WORKERS), table=Table("t", pa.table({"a": [1]}))
        )


def test_a_table_that_is_not_there(cluster, tmp_path):
    from gpuseg.errors import TableNotFoundError

    for name in ("none.parquet", "none.csv"):
        with pytest.raises(TableNotFoundError, match=name):
            place_on(cluster).work.read(settings_of(tmp_path / name))
