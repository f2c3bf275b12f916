"""Stand in for cuML: scikit-learn and shap behind cuML's signatures and habits.

The habits are those that a signature does not tell: where results live, their type and
order, what is unset until when, how k-means stops and what it does with empty clusters.
Nothing here is exact about cuML's numbers, nor claims to be.
"""

from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace

import numpy as np
from doubles.cudf_on_host import CUDF
from doubles.device_arrays import DeviceArray
from sklearn.ensemble import RandomForestClassifier as ScikitLearnForest

from gpuseg.backends.gpu.libraries import Libraries

with warnings.catch_warnings():
    warnings.simplefilter("ignore", PendingDeprecationWarning)  # shap's, about matplotlib
    import shap

#: Each fit adds in an order of its own, as float atomics do.
_SEEDS = itertools.count()


def on_device(array, dtype):
    """Return what lies on the device in C order; anything else would be copied or refused."""
    assert isinstance(array, DeviceArray), type(array)
    assert array.dtype == dtype, array.dtype
    assert array.flags.c_contiguous
    return array._host


class KMeans:
    """Keeps the old centre of an empty cluster; its `labels_` are of the centres before."""

    def __init__(
        self,
        *,
        n_clusters=8,
        max_iter=300,
        tol=1e-4,
        verbose=False,
        random_state=None,
        init="scalable-k-means++",
        n_init="auto",
        oversampling_factor=2.0,
        max_samples_per_batch=32768,
        device_buffer_samples=0,
        init_size=0,
        output_type=None,
    ):
        assert tol > 0
        assert output_type == "cupy"
        assert n_init == 1
        self.n_clusters, self.max_iter, self.tol, self._init = n_clusters, max_iter, tol, init

    def fit(self, X, y=None, sample_weight=None):
        rows, centres = on_device(X, np.float32), on_device(self._init, np.float32)
        if self.n_clusters > len(rows):
            raise ValueError(f"n_samples={len(rows)} should be >= n_clusters={self.n_clusters}")
        rng, before = np.random.default_rng(next(_SEEDS)), np.inf
        self.n_iter_ = 0
        for _ in range(self.max_iter):
            self.n_iter_ += 1
            distances = ((rows[:, None].astype(np.float64) - centres) ** 2).sum(axis=2)
            labels, inertia = distances.argmin(axis=1), distances.min(axis=1).sum()
            moved = centres.copy()
            for c in np.unique(labels):
                members = rng.permutation(np.flatnonzero(labels == c))
                moved[c] = np.cumsum(rows[members], axis=0, dtype=np.float32)[-1] / len(members)
            shift = float(((moved - centres).astype(np.float64) ** 2).sum())
            centres = moved
            if shift < self.tol or inertia > (1 - self.tol) * before:
                break
            before = inertia
        self.cluster_centers_ = DeviceArray(centres)
        self.labels_ = DeviceArray(labels.astype(np.int32))
        self.inertia_ = float(np.float32(inertia))
        return self


class RandomForestClassifier:
    """Its importances are on the host, in the type of X; its votes on the device."""

    def __init__(
        self,
        *,
        n_estimators=100,
        split_criterion="gini",
        bootstrap=True,
        max_samples=1.0,
        max_depth=None,
        max_leaves=-1,
        max_features="sqrt",
        n_bins=128,
        min_samples_leaf=1,
        min_samples_split=2,
        min_impurity_decrease=0.0,
        max_batch_size=4096,
        random_state=None,
        n_streams=4,
        oob_score=False,
        class_weight=None,
        verbose=False,
        output_type=None,
    ):
        assert isinstance(max_depth, int), "unlimited trees cannot be explained"
        assert output_type == "cupy"
        self.n_bins = n_bins
        self.model = ScikitLearnForest(
            n_estimators,
            max_depth=max_depth,
            max_features=max_features,
            oob_score=oob_score,
            random_state=random_state,
        )

    def fit(self, X, y, sample_weight=None):
        rows, labels = on_device(X, np.float32), on_device(y, np.int32)
        if self.n_bins > len(rows):
            warnings.warn("The number of bins is greater than the number of samples", stacklevel=2)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
            self.model.fit(rows, labels)
        self.classes_, self.n_classes_ = self.model.classes_, len(self.model.classes_)
        self.feature_importances_ = self.model.feature_importances_.astype(np.float32)
        votes = self.model.oob_decision_function_.astype(np.float32)
        self.oob_decision_function_ = DeviceArray(votes)
        self.oob_score_ = float(self.model.oob_score_)
        return self

    def predict_proba(self, X, *, layout="depth_first", default_chunk_size=None, align_bytes=None):
        probabilities = self.model.predict_proba(on_device(X, np.float32))
        return DeviceArray(probabilities.astype(np.float32))


class TreeExplainer:
    """Values come as a view into an array with one column more, whose last is the base."""

    #: Rows beyond which the device's memory runs out; None is boundless.
    most_rows = None
    n_calls = 0
    #: Calls while `expected_value` still kept the memory of the call before.
    n_held = 0

    def __init__(self, *, model, data=None):
        assert data is None, "only path-dependent values are used"
        self._explainer = shap.TreeExplainer(
            model.model, feature_perturbation="tree_path_dependent"
        )
        self.expected_value = None

    def shap_values(self, X):
        rows = on_device(X, np.float32)
        type(self).n_calls += 1
        type(self).n_held += self.expected_value is not None
        if self.most_rows is not None and len(rows) > self.most_rows:
            raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")
        values = self._explainer.shap_values(rows, check_additivity=False)
        n, d, n_classes = values.shape
        assert n * n_classes * (d + 1) < 2**31
        everything = np.empty((n, n_classes, d + 1), np.float32)
        everything[:, :, :-1] = values.transpose(0, 2, 1)
        everything[:, :, -1] = self._explainer.expected_value
        turned = everything.transpose(0, 2, 1)
        self.expected_value = DeviceArray(turned[0, -1])
        return DeviceArray(turned[:, :-1])


CUML = SimpleNamespace(
    KMeans=KMeans,
    ensemble=SimpleNamespace(RandomForestClassifier=RandomForestClassifier),
    explainer=SimpleNamespace(TreeExplainer=TreeExplainer),
)


def resolve(target):
    """Find a dotted name among the stand-ins."""
    found = SimpleNamespace(cuml=CUML, cudf=CUDF)
    for part in target.split("."):
        found = getattr(found, part)
    return found


def libraries():
    return Libraries(resolve)
