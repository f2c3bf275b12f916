"""What a user would write instead: pandas, scikit-learn and shap, one step after another.

Run as a script by ``bench/whole_run.py``: ``python naive_run.py INPUT OUTPUT_FOLDER``.
Up to `EXACT_ROWS` rows it computes what gpuseg computes; beyond, silhouette and SHAP are
sampled, because nobody waits for hours: from there on it does less work than gpuseg.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import shap
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler

EXACT_ROWS = 10_000
SAMPLED_SILHOUETTE_ROWS = 10_000
SAMPLED_SHAP_ROWS = 1_000


def main(source: Path, folder: Path) -> None:
    seconds = {}
    begin = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal begin
        seconds[stage] = time.perf_counter() - begin
        begin = time.perf_counter()

    table = pd.read_parquet(source)
    X = StandardScaler().fit_transform(table.fillna(table.median())).astype(np.float32)
    lap("read and prepare")

    models, scores = {}, {}
    for k in range(2, 10):
        models[k] = KMeans(k, n_init=10, random_state=0).fit(X)
    lap("k-means")
    exact = len(X) <= EXACT_ROWS
    for k, model in models.items():
        sample = None if exact else SAMPLED_SILHOUETTE_ROWS
        scores[k] = float(silhouette_score(X, model.labels_, sample_size=sample, random_state=0))
    lap("silhouette")

    best = max(scores, key=lambda k: scores[k])
    labels = models[best].labels_
    forest = RandomForestClassifier(100, max_depth=8, oob_score=True, n_jobs=-1, random_state=0)
    forest.fit(X, labels)
    lap("forest")
    rows = X if exact else X[np.random.default_rng(0).permutation(len(X))[:SAMPLED_SHAP_ROWS]]
    values = np.asarray(shap.TreeExplainer(forest).shap_values(rows))
    lap("shap")

    table["cluster_id"] = labels
    table.to_parquet(folder / "naive.parquet")
    lap("write")
    answer = {
        "n_clusters": int(best),
        "scores": scores,
        "inertia": {k: float(model.inertia_) for k, model in models.items()},
        "mean_abs_shap": float(np.abs(values).mean()),
        "explained_rows": len(rows),
        "scored_rows": len(X) if exact else SAMPLED_SILHOUETTE_ROWS,
        "seconds": seconds,
    }
    (folder / "naive.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
