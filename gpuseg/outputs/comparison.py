"""What differs between two runs of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.errors import ModelError
from gpuseg.outputs.keeping import row_hashes
from gpuseg.outputs.manifest import read_manifest
from gpuseg.outputs.model_names import check_run_id, model_folder
from gpuseg.outputs.models import StoredModel, load_model
from gpuseg.outputs.results import CLUSTER_COLUMN, ROW_SCORE_COLUMNS
from gpuseg.outputs.retention import finished_runs
from gpuseg.outputs.reuse import encoder_of
from gpuseg.outputs.run_folder import ROWS, has_table, read_kept_table

#: Rows by segment and day of change, for tables with an id; kept longer than the rows.
MOVEMENTS = "movements"

#: Features that are named for a segment that moved.
_MOST_FEATURES = 3

#: Parameters that say where results go, not what they are.
_PLACES = frozenset({"runs_dir", "warehouse", "output_table", "output_mode", "metrics_file"})


class CentroidMove(NamedTuple):
    """How far the centre of a segment moved between two runs.

    Parameters
    ----------
    distance
        Euclidean, over the features that both runs have, each in its run's own scale.
    features
        Those that moved most: name, and by how many deviations.
    """

    cluster_id: int
    distance: float
    features: tuple[tuple[str, float], ...]


class Agreement(NamedTuple):
    """How two runs divide the rows that both have.

    Parameters
    ----------
    matched_by
        The id's column, or ``content`` where both runs had the same rows, in any order.
    adjusted_rand
        1 where the division is the same whatever the segments are called, about 0 by chance.
    same_id
        Share of the rows whose segment has the same id.
    overlap
        Number of rows for each pair of ids that has any.
    """

    matched_by: str
    n_shared: int
    adjusted_rand: float
    same_id: float
    overlap: tuple[tuple[int, int, int], ...]


class RunDifference(NamedTuple):
    """What ``gpuseg models diff`` shows; of each pair the first is run A's.

    Parameters
    ----------
    why_not
        Why the rows could not be compared, where `agreement` is None.
    """

    model_name: str
    runs: tuple[str, str]
    facts: Mapping[str, tuple[Any, Any]]
    sizes: Mapping[int, tuple[int | None, int | None]]
    silhouettes: Mapping[int, tuple[float | None, float | None]]
    columns: tuple[tuple[str, ...], tuple[str, ...]]
    settings: Mapping[str, tuple[Any, Any]]
    moves: tuple[CentroidMove, ...]
    agreement: Agreement | None
    why_not: str

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        agreement = self.agreement._asdict() if self.agreement else None
        if agreement:
            names = ("a", "b", "n_rows")
            agreement["overlap"] = [dict(zip(names, o, strict=True)) for o in agreement["overlap"]]
        return self._asdict() | {
            "columns": {"only_a": self.columns[0], "only_b": self.columns[1]},
            "moves": [
                move._asdict() | {"features": [list(f) for f in move.features]}
                for move in self.moves
            ],
            "agreement": agreement,
        }


def compare_runs(runs_dir: Path, name: str, run_a: str, run_b: str) -> RunDifference:
    """Compare two runs of a model: scores, segments, columns, settings, centres and rows.

    Raises
    ------
    ModelError
        If one of the runs is not there or damaged.
    """
    folders = [_run_dir(runs_dir, name, run_id) for run_id in (run_a, run_b)]
    models = [load_model(runs_dir, name, run_id) for run_id in (run_a, run_b)]
    manifests = [read_manifest(folder) for folder in folders]
    agreement, why_not = _agreement(folders, manifests)
    hide_values = any(manifest["settings"].get("hide_table_contents") for manifest in manifests)
    a, b = (frozenset(model.columns) for model in models)
    facts = ("n_clusters", "silhouette", "backend", "random_state", "started", "status")
    pairs = {key: (manifests[0].get(key), manifests[1].get(key)) for key in facts}
    return RunDifference(
        model_name=name,
        runs=(run_a, run_b),
        facts={"n_rows": (models[0].n_rows, models[1].n_rows), **pairs},
        sizes=_paired(*map(_sizes, folders)),
        silhouettes=_paired(*map(_silhouettes, models)),
        columns=(tuple(sorted(a - b)), tuple(sorted(b - a))),
        settings={
            key: pair
            for key, pair in _paired(*(m["settings"] for m in manifests)).items()
            if pair[0] != pair[1] and key not in _PLACES
        },
        moves=_moves(*models, hide_values=hide_values),
        agreement=agreement,
        why_not=why_not,
    )


def adjusted_rand(counts: np.ndarray) -> float:
    """Return the adjusted Rand index of two divisions of the same rows.

    Parameters
    ----------
    counts : array of shape (n_a, n_b), int64
        Rows for each pair of segments.

    References
    ----------
    Hubert and Arabie (1985), "Comparing partitions", Journal of Classification 2.
    """
    pairs = [
        float((n * (n - 1) / 2).sum())
        for n in (counts, counts.sum(axis=1), counts.sum(axis=0), counts.sum())
    ]
    together, of_a, of_b, everything = pairs
    expected = of_a * of_b / everything if everything else 0.0
    most = (of_a + of_b) / 2
    # two divisions that put all rows together, or all apart, are the same
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _run_dir(runs_dir: Path, name: str, run_id: str) -> Path:
    if check_run_id(run_id) not in finished_runs(runs_dir, name):
        raise ModelError(
            f"the model '{name}' has no run {run_id} in '{runs_dir}' (gpuseg models history "
            f"{name} lists its runs)"
        )
    return model_folder(runs_dir, name) / run_id


def _paired(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    keys = list(dict.fromkeys([*a, *b]))
    ordered = sorted(keys) if all(isinstance(key, int) for key in keys) else keys
    return {key: (a.get(key), b.get(key)) for key in ordered}


def _sizes(run_dir: Path) -> dict[int, int]:
    if not has_table(run_dir, "segments"):
        return {}
    table = read_kept_table(run_dir, "segments")
    return dict(zip(table["cluster_id"].to_pylist(), table["size"].to_pylist(), strict=True))


def _silhouettes(model: StoredModel) -> dict[int, float | None]:
    return {int(row["n_clusters"]): row.get("silhouette") for row in model.k_scores}


# -- centres ---------------------------------------------------------------------------


def _moves(a: StoredModel, b: StoredModel, *, hide_values: bool) -> tuple[CentroidMove, ...]:
    """Return how far the segments moved that both models have, farthest first.

    Parameters
    ----------
    hide_values
        Name the column instead of the feature, which may hold a category's text.
    """
    (names_a, centres_a), (names_b, centres_b) = _centres(a), _centres(b)
    shared = [name for name in names_a if name in set(names_b)]
    if not shared:
        return ()
    at_a, at_b = ([names.index(name) for name in shared] for names in (names_a, names_b))
    called = _columns_of(a, names_a) if hide_values else dict(zip(names_a, names_a, strict=True))
    moves = []
    for cluster_id in sorted(centres_a.keys() & centres_b.keys()):
        step = centres_b[cluster_id][at_b] - centres_a[cluster_id][at_a]
        farthest = np.argsort(-np.abs(step), kind="stable")[:_MOST_FEATURES]
        features = tuple((called[shared[i]], float(step[i])) for i in farthest if step[i] != 0)
        moves.append(CentroidMove(cluster_id, float(np.linalg.norm(step)), features))
    return tuple(sorted(moves, key=lambda move: (-move.distance, move.cluster_id)))


def _columns_of(model: StoredModel, names: list[str]) -> dict[str, str]:
    encoder = encoder_of(model)
    columns = [encoder.column_names[column] for column in encoder.column_of]
    return dict(zip(names, columns, strict=True))


def _centres(model: StoredModel) -> tuple[list[str], dict[int, np.ndarray]]:
    """Return feature names, and the centre of each segment in them, (n_encoded,) float64."""
    encoder = encoder_of(model)
    centres = model.centroids.astype(np.float64)
    if encoder.projection is not None:
        centres = centres @ encoder.projection.components + encoder.projection.mean
    ids = getattr(model, "cluster_ids", None) or range(model.n_clusters)
    return list(encoder.feature_names), dict(zip(ids, centres, strict=True))


# -- rows ------------------------------------------------------------------------------


def _agreement(
    folders: list[Path], manifests: list[dict[str, Any]]
) -> tuple[Agreement | None, str]:
    ids = [manifest["settings"].get("rowid_column") for manifest in manifests]
    by_id = ids[0] if ids[0] and ids[0] == ids[1] else None
    tables = []
    for folder in folders:
        kept = next((t for t in (ROWS, MOVEMENTS) if has_table(folder, t)), None)
        if kept is None or (kept == MOVEMENTS and not by_id):
            return None, f"the rows of run {folder.name} are no longer kept"
        tables.append(read_kept_table(folder, kept))
    a, b = tables
    return _by_id(a, b, by_id) if by_id else _by_content(a, b)


def _by_id(a: pa.Table, b: pa.Table, column: str) -> tuple[Agreement | None, str]:
    tables = []
    for table in (a, b):
        name = next((n for n in table.column_names if n.casefold() == column.casefold()), None)
        if name is None:
            return None, f"a run kept no column '{column}'"
        keys = table[name].combine_chunks()
        if keys.null_count or len(pc.unique(keys)) < len(keys):
            return None, f"the values of '{column}' are missing or not unique in a run"
        tables.append((keys, _labels(table)))
    (keys_a, labels_a), (keys_b, labels_b) = tables
    if keys_a.type != keys_b.type:
        return None, f"'{column}' is {keys_a.type} in the one run and {keys_b.type} in the other"
    found = pc.index_in(keys_a, value_set=keys_b)
    known = found.is_valid().to_numpy(zero_copy_only=False)
    if not known.any():
        return None, f"the runs share no value of '{column}'"
    at_b = found.drop_null().to_numpy()
    return _agreeing(column, labels_a[known], labels_b[at_b]), ""


def _by_content(a: pa.Table, b: pa.Table) -> tuple[Agreement | None, str]:
    """Match equal rows; which of several equal ones does not matter, all are in one segment."""
    hashes = [row_hashes(_inputs(table)) for table in (a, b)]
    orders = [np.argsort(of_rows, kind="stable") for of_rows in hashes]
    if not np.array_equal(hashes[0][orders[0]], hashes[1][orders[1]]):
        return None, "the runs had other rows, and no rowid_column tells which are the same"
    return _agreeing("content", _labels(a)[orders[0]], _labels(b)[orders[1]]), ""


def _agreeing(matched_by: str, a: np.ndarray, b: np.ndarray) -> Agreement:
    ids_a, at_a = np.unique(a, return_inverse=True)
    ids_b, at_b = np.unique(b, return_inverse=True)
    counts = np.zeros((len(ids_a), len(ids_b)), dtype=np.int64)
    np.add.at(counts, (at_a, at_b), 1)
    overlap = tuple(
        (int(ids_a[i]), int(ids_b[j]), int(counts[i, j])) for i, j in np.argwhere(counts)
    )
    return Agreement(matched_by, len(a), adjusted_rand(counts), float((a == b).mean()), overlap)


def _labels(table: pa.Table) -> np.ndarray:
    return np.asarray(table[CLUSTER_COLUMN])


def _inputs(table: pa.Table) -> pa.Table:
    own = {CLUSTER_COLUMN, *ROW_SCORE_COLUMNS}
    return table.drop_columns([name for name in table.column_names if name in own])
