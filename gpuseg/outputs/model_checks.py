"""What a stored model must be, so that nothing damaged or edited is taken for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpuseg.errors import ModelError
from gpuseg.explained import Segment
from gpuseg.outputs.model_files import HostArray, damaged, read_beside
from gpuseg.outputs.segments import renamed, segments_from_dicts
from gpuseg.records import first_ids

NAMES = "names.json"

#: What the values of ``model.json`` are.
KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "run_id", "created", "input_name", "backend"), (str,)),
    **dict.fromkeys(("n_rows", "n_clusters"), (int,)),
    **dict.fromkeys(("columns", "k_scores"), (list,)),
    **dict.fromkeys(("settings", "versions", "encoder_dict"), (dict,)),
    "silhouette": (float, int),
}


def problem_with(centroids: HostArray, n_clusters: int) -> str:
    """Say what is wrong with centroids; nothing if they are sound."""
    if centroids.dtype == np.float32 and centroids.ndim == 2 and len(centroids) == n_clusters > 0:
        return ""
    return (
        f"its centroids are {centroids.dtype} of shape {centroids.shape}, "
        f"expected float32 of shape ({n_clusters}, n_features)"
    )


def stored_cluster_ids(folder: Path, values: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids of the clusters; those of models without ids are their positions."""
    n_clusters, stored = values["n_clusters"], values["cluster_ids"]
    ids = first_ids(n_clusters) if stored is None else stored
    following = values["next_cluster_id"] or 0
    sound = (
        isinstance(ids, (list, tuple))
        and all(type(number) is int for number in (*ids, following))
        and list(ids) == sorted(set(ids))
        and len(ids) == n_clusters
        and ids[0] >= 0
    )
    if not sound:
        damaged(folder, f"its cluster_ids are {str(stored)[:80]}, expected {n_clusters} numbers")
    return tuple(ids)


def stored_reach(folder: Path, values: Mapping[str, Any]) -> tuple[float, ...]:
    """Return how far the rows of each cluster reach; () where it was not kept."""
    stored = values["reach"] or []
    sound = isinstance(stored, list) and len(stored) in (0, values["n_clusters"])
    if not sound or not all(type(x) in (int, float) and x >= 0 for x in stored):
        damaged(folder, f"its reach is {str(stored)[:80]}, expected a distance for each cluster")
    return tuple(stored)


def stored_segments(folder: Path, stored: Any, cluster_ids: tuple[int, ...]) -> tuple[Segment, ...]:
    """Return the segments under the names that people gave them."""
    try:
        segments = segments_from_dicts(stored)
    except ModelError as error:
        damaged(folder, str(error))
    if len(segments) not in (0, len(cluster_ids)):
        damaged(folder, f"it names {len(segments)} segments and has {len(cluster_ids)} clusters")
    if segments and tuple(segment.cluster_id for segment in segments) != cluster_ids:
        damaged(folder, "the segments that it names have other ids than its clusters")
    data = read_beside(folder, NAMES)
    if data is None:
        return segments
    try:
        return renamed(segments, {int(c): name for c, name in json.loads(data).items()})
    except (ValueError, AttributeError, RecursionError):
        damaged(folder, f"{NAMES} does not name its segments; remove that file to use the drafts")
