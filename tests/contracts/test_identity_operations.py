"""What carries ids from night to night is the same on every engine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gpuseg.change import EarlierPlaces
from gpuseg.clustering.placing import place
from gpuseg.features import FeatureSettings, prepare
from gpuseg.nightly.earlier import earlier_places
from gpuseg.nightly.identity import continued, means_of_earlier
from gpuseg.outputs.conclusion import _reach
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.records import Choice, Table
from gpuseg.settings import resolve


def test_places_means_and_order_of_ids(backend):
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [40, 30, 20])
    X = rng.normal(np.array([[0, 0], [9, 0], [0, 9]])[group], 0.5)
    table = Table("t", pa.table({"a": X[:, 0], "b": X[:, 1]}))
    settings = resolve({"transform": "none", "scaling": "none"})
    features = prepare(backend, table, FeatureSettings.of(settings))
    start = np.array([[0, 9], [9, 0], [0, 0]], np.float32)  # positions 0, 1, 2 are ids 4, 6, 8
    fit = place(backend, features.X, start)
    reach = _reach(backend, features, Choice(3, fit, ""))
    labels = np.array([8, 6, 4], np.int32)[group]
    for cluster, kind in enumerate((2, 1, 0)):
        distances = np.linalg.norm(X[group == kind] - start[cluster], axis=1)
        np.testing.assert_allclose(reach[cluster], np.quantile(distances, 0.99), rtol=1e-5)

    model = StoredModel(
        name="m", run_id="r", created="", input_name="t", n_rows=90, n_clusters=3,
        silhouette=0.5, columns=features.columns, k_scores=(), settings={}, versions={},
        backend="numpy", encoder_dict=features.encoder.to_dict(),
        encoder_arrays=features.encoder.arrays(), centroids=start, cluster_ids=(4, 6, 8),
        reach=reach,
    )  # fmt: skip
    places, typical, warnings = earlier_places(settings, backend, table, model)
    assert warnings == ()
    assert places.cluster_ids.tolist() == labels.tolist()
    assert np.count_nonzero(typical.cluster_ids < 0) == 3  # the farthest row of each

    everyone = EarlierPlaces("r", "", "model", labels, None, {})
    means = means_of_earlier(features, backend, everyone)
    assert means.cluster_ids == (4, 6, 8)
    expected = [X[labels == number].astype(np.float32).mean(axis=0) for number in (4, 6, 8)]
    np.testing.assert_allclose(means.centres, expected, rtol=1e-5, atol=1e-6)

    by_size = Choice(3, place(backend, features.X, start[::-1].copy()), "")
    choice, lineage = continued(backend, features, by_size, EarlierModel(model, 9), everyone, means)
    assert choice.cluster_ids == lineage.cluster_ids == (4, 6, 8)
    assert [event.event for event in lineage.events] == ["kept"] * 3
    np.testing.assert_array_equal(backend.to_host(choice.fit.centroids), start)
    found = features.in_table_order(backend.to_host(choice.fit.labels))
    assert np.array([4, 6, 8])[found].tolist() == labels.tolist()
