"""Where positions become ids: clusters are 0 to k - 1 in the engine, outputs call them by ids.

Everything that numbers clusters from 0 (labels, centroids, tables of `gpuseg.explain`) passes
through here before anybody sees it. Ids ascend with positions, so that an order by the one is
an order by the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.explained import Explained


def public_ids(positions: Any, cluster_ids: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return the ids of clusters that are given by position; -1, which is none, stays.

    Parameters
    ----------
    positions : host array of shape (n,), int, from -1 to n_clusters - 1
    """
    ids = np.array([*cluster_ids, -1], dtype=np.int32)  # the last one is also the one at -1
    return np.asarray(ids[positions])


def with_public_ids(said: Explained, cluster_ids: Sequence[int]) -> Explained:
    """Return what is said about clusters under their ids; the tree is grown with ids already."""
    explanation = replace(
        said.explanation,
        shap_values=_renumbered(said.explanation.shap_values, cluster_ids),
        profiles=_renumbered(said.explanation.profiles, cluster_ids),
    )
    return Explained(explanation, _renumbered(said.rules, cluster_ids), said.tree)


def _renumbered(table: pa.Table, cluster_ids: Sequence[int]) -> pa.Table:
    place = table.column_names.index("cluster_id")
    ids = public_ids(table.column(place).to_numpy(), cluster_ids)
    return table.set_column(place, table.schema.field(place), pa.array(ids))
