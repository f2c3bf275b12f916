"""What is said about segments, as it travels from room to room: see `records`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gpuseg.records import Array

if TYPE_CHECKING:  # importing gpuseg must stay quick
    import pyarrow as pa


@dataclass(frozen=True)
class TreeEnsemble:
    """A random forest as flat arrays: what TreeSHAP needs and nothing else.

    Nodes of all trees lie one after another; tree t owns nodes
    ``offsets[t]:offsets[t + 1]`` and its root comes first. A row goes left when
    ``x[feature] <= threshold``, both in float32.
    """

    offsets: Array  # (n_trees + 1,) int64
    left: Array  # (n_nodes,) int32, absolute node number; -1 in leaves
    right: Array  # (n_nodes,) int32
    feature: Array  # (n_nodes,) int32; -1 in leaves
    threshold: Array  # (n_nodes,) float32
    weight: Array  # (n_nodes,) float64, training rows that reached the node
    value: Array  # (n_nodes, n_classes) float64, class probabilities

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.offsets) - 1

    @property
    def n_leaves(self) -> int:
        """Number of leaves of all trees."""
        return int((self.left < 0).sum())


class Forest(NamedTuple):
    """A forest fitted on cluster labels.

    Only the backend that grew the trees can explain them: NumPy keeps a `TreeEnsemble`,
    the GPU cuML's own model. All have `n_trees`, and `n_leaves`, which may be an upper bound.
    """

    trees: Any
    importance: Array  # (n_encoded,) float64, Gini, sums to 1 (all 0 when no tree split)
    oob_accuracy: float
    n_fitted_rows: int


class ShapMeans(NamedTuple):
    """SHAP values reduced to means per cluster and original column."""

    mean_abs: Array  # (n_clusters, n_columns) float64, over all explained rows
    mean_abs_stderr: Array  # same shape; 0.0 when every row was explained
    mean_signed: Array  # (n_clusters, n_columns) float64, over the cluster's own members
    expected: Array  # (n_clusters,) float64, mean output of the forest
    max_additivity_error: float  # max |sum of SHAP + expected - predicted probability|
    n_explained_rows: int


class Trait(NamedTuple):
    """What sets a segment apart from everyone, in one column."""

    feature: str
    kind: str  # numeric | boolean (numbers 0 and 1) | datetime | categorical
    z: float  # how far, in deviations of all rows; positive: more, later, more common
    own: float  # mean of the segment (dates in days since 1970), or share of the category
    overall: float  # the same of everyone
    value: str | None = None  # the category


class Segment(NamedTuple):
    """How a segment is called, and why."""

    cluster_id: int
    name: str  # unique; what a user called it, else the draft
    draft: str  # made from the traits
    description: str  # its strongest traits in numbers, in one line
    traits: tuple[Trait, ...]  # strongest first


@dataclass(frozen=True)
class Explanation:
    """Why each segment is what it is, as the contract's tables."""

    feature_importance: pa.Table
    shap_values: pa.Table
    profiles: pa.Table
    oob_accuracy: float
    shap: ShapMeans
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    #: for each segment what sets it apart, strongest first
    traits: tuple[tuple[Trait, ...], ...] = ()


class SegmentTree(NamedTuple):
    """One shallow decision tree that puts every row into a segment."""

    text: str  # one question or segment a line, indented by depth
    sql: str  # a CASE expression that yields the segment of each row of the input
    fidelity: float  # share of all rows that the tree puts into their segment
    depth: int  # questions that it takes at most
    #: one row for each leaf, in the order of the text; see explain.surrogate.TREE_SCHEMA
    leaves: pa.Table


class Explained(NamedTuple):
    """What is said about the segments: in numbers, in rules, and in one tree for all."""

    explanation: Explanation
    rules: pa.Table
    tree: SegmentTree
