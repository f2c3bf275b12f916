"""What one engine says, the other says too: the same ids to the bit, the same reasons."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from contracts.compare import TOLERANCE

from gpuseg import pipeline, places
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.backends.select import Engine
from gpuseg.clustering import kmeans
from gpuseg.explain import explain
from gpuseg.records import Table, no_progress
from gpuseg.settings import resolve


def hard_rows(n_samples, n_features, seed=0):
    """Values of many sizes, some of them denormal, and rows on the border of two clusters."""
    rng = np.random.default_rng([seed, n_features])
    X = rng.normal(size=(n_samples, n_features)) * 10.0 ** rng.integers(-3, 4, n_features)
    X[::5] = np.rint(X[::5])
    X[1::5] *= 1e-39
    return X.astype(np.float32)


@pytest.mark.parametrize(("n_features", "n_clusters"), [(1, 2), (4, 3), (50, 9), (130, 17)])
def test_the_nearest_centroids_are_the_same_bits(gpu, n_features, n_clusters):
    X = hard_rows(400, n_features)
    centroids = hard_rows(n_clusters, n_features, seed=1)
    centroids[0] = (X[50] + X[51]) / 2
    centroids[1] = np.float32(3e-39)
    expected = NumPyBackend().assign(X, centroids, progress=no_progress)
    found = gpu.assign(gpu.from_host(X), centroids, progress=no_progress)
    for mine, theirs in zip(found, expected, strict=True):
        assert gpu.to_host(mine).tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("n_features", "n_components"), [(3, 1), (60, 20)])
def test_the_projection_is_the_same_bits(gpu, n_features, n_components):
    X = hard_rows(300, n_features)
    rng = np.random.default_rng(1)
    mean, components = rng.normal(size=n_features), rng.normal(size=(n_components, n_features))
    expected = NumPyBackend().project(X, mean, components)
    assert gpu.to_host(gpu.project(gpu.from_host(X), mean, components)).tobytes() == (
        expected.tobytes()
    )


def test_the_order_of_rows_is_the_same(gpu):
    blocks = [np.ascontiguousarray(hard_rows(3000, d).T.round(1)) for d in (1, 4)]
    there = [gpu.from_host(block) for block in blocks]
    np.testing.assert_array_equal(gpu.row_order(there), NumPyBackend().row_order(blocks))


def customers(n_rows=90):
    rng = np.random.default_rng(0)
    group = np.arange(n_rows) % 3
    return Table(
        "customers",
        pa.table(
            {
                "age": 20 + 15 * group + rng.normal(0, 2, n_rows),
                "spend": np.exp(group + rng.normal(0, 0.3, n_rows)),
                "city": [("Rome", "Oslo", "Lima")[g] for g in group],
                "score": [None if i % 7 == 0 else float(i % 5) for i in range(n_rows)],
                "since": np.datetime64("2020-01-01") + 200 * group + np.arange(n_rows) % 50,
            }
        ),
    )


def segment(monkeypatch, backend, table, **parameters):
    monkeypatch.setattr(places, "select_backend", lambda _asked: Engine(backend, "for a test"))
    monkeypatch.setattr(kmeans, "MAX_PATIENCE", 1)  # a process for each launch takes its time
    wishes = {"max_clusters": 4, "n_init": 2, "row_scores": True} | parameters
    return pipeline.run(resolve(wishes), table=table, keep=False)


def place(monkeypatch, backend, table, model):
    monkeypatch.setattr(places, "select_backend", lambda _asked: Engine(backend, "for a test"))
    return pipeline.assign(resolve({}), table=table, model=model)


@pytest.fixture(scope="module", params=[50, 4], ids=["plain", "projected"])
def both(request, gpu):
    """A whole run on each engine: NumPy's, the GPU's."""
    with pytest.MonkeyPatch.context() as patch:
        wishes = {"dimension_reduction_threshold": request.param}
        return [segment(patch, e, customers(), **wishes) for e in (NumPyBackend(), gpu)]


def test_a_whole_run_gives_the_same_tables(both):
    expected, found = both
    assert found.backend == "gpu"
    assert found.table.schema == expected.table.schema
    assert found.k_scores.schema == expected.k_scores.schema
    assert found.columns.equals(expected.columns)
    for name in ("feature_importance", "shap_values", "profiles"):
        mine, theirs = getattr(found.explanation, name), getattr(expected.explanation, name)
        assert mine.schema == theirs.schema, name
        assert mine.num_rows == theirs.num_rows, name
    assert found.rules.schema == expected.rules.schema
    assert found.warnings == expected.warnings


def test_a_whole_run_finds_the_same_segments(both):
    expected, found = both
    assert found.n_clusters == expected.n_clusters == 3
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.silhouette == pytest.approx(expected.silhouette, abs=1e-5)
    inertias = [run.k_scores["inertia"].to_numpy() for run in both]
    # both searches end in good optima, not always the same
    np.testing.assert_allclose(inertias[1], inertias[0], rtol=0.05)


def test_reasons_are_the_same(both):
    importance = [run.explanation.feature_importance for run in both]
    assert importance[0]["feature"].to_pylist()[:2] == importance[1]["feature"].to_pylist()[:2]
    expected, found = (run.explanation.shap.mean_signed for run in both)
    strong = np.abs(expected) > 0.05
    assert strong.any()
    assert (np.sign(found[strong]) == np.sign(expected[strong])).all()


def test_a_model_of_either_places_rows_alike_on_both(both, gpu, monkeypatch):
    later = Table("later", customers(140).arrow.slice(60))
    for run in both:
        here = place(monkeypatch, NumPyBackend(), later, run.model)
        there = place(monkeypatch, gpu, later, run.model)
        np.testing.assert_array_equal(there.labels, here.labels)


def test_a_stored_model_is_scored_alike(both, gpu):
    from gpuseg.clustering.placing import score_placed
    from gpuseg.features import prepare_again
    from gpuseg.outputs.reuse import encoder_of

    found = []
    for engine in (NumPyBackend(), gpu):
        model = both[0].model
        features = prepare_again(engine, encoder_of(model), customers(180))
        # fewer rows than all: chosen on the host, scored where the engine lives
        swept, choice = score_placed(engine, features.X, model.centroids, 60)
        assert len(swept.scored_rows) < 180
        found.append((choice.n_clusters, swept.scores[3].silhouette, swept.scores[3].inertia))
    assert found[1] == pytest.approx(found[0], rel=TOLERANCE["distance_sums"][0])


def test_samples_are_chosen_on_the_host_and_used_where_the_engine_lives(gpu, monkeypatch):
    monkeypatch.setattr(explain, "EXACT_BUDGET", 0)
    found = segment(monkeypatch, gpu, customers(180), sample_size=60, num_clusters=3)
    assert found.k_scores["method"].to_pylist()[0].startswith("sampled")
    assert found.explanation.shap.n_explained_rows == 180
    assert found.explanation.shap.max_additivity_error < TOLERANCE["shap"][1]
