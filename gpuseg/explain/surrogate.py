"""One shallow decision tree that puts every row into a segment, and how often it is right."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.explain.cells import MISSING, Cells, cut_columns
from gpuseg.explain.conditions import Condition, InRange, Mask, Missing, OneOf, RuleColumn
from gpuseg.explain.sampling import sample_rows, take
from gpuseg.explained import SegmentTree

#: `rule` and `sql` (a WHERE clause) lead to the leaf; `coverage` is the share of the segment's
#: rows that are in it, `precision` the share of its rows that are of the segment.
TREE_SCHEMA = pa.schema(
    [
        ("leaf", pa.int32()),
        ("cluster_id", pa.int32()),
        ("rule", pa.string()),
        ("sql", pa.string()),
        ("n_rows", pa.int64()),
        ("coverage", pa.float64()),
        ("precision", pa.float64()),
    ]
)

#: Categories of a column that the tree may ask for.
_MAX_CATEGORIES = 12

#: A question must lower the weighted impurity at least this much.
_MIN_GAIN = 0.002

#: Nobody reads a deeper tree; and one more level must be worth this much fidelity.
MAX_DEPTH = 5
LEVEL_GAIN = 0.02

Labels = npt.NDArray[np.int32]


class _Question(NamedTuple):
    """A yes-or-no condition and the feature of the tree that stands for it."""

    cells: Cells
    code: int | None  # of the category; None asks for a threshold


def segment_tree(
    columns: Sequence[RuleColumn],
    labels: Labels,
    *,
    max_depth: int = MAX_DEPTH,
    random_state: int = 0,
    max_rows: int = 100_000,
) -> SegmentTree:
    """Fit a decision tree to the segments and say how well it imitates them.

    Parameters
    ----------
    labels : array of shape (n,), int32
        Segment of each row, in table order.
    max_depth
        The tree is cut back to the shallowest one that is right about as many rows as this
        one, less `LEVEL_GAIN`.
    max_rows
        Rows that the tree is fitted on, see `sample_rows`. All that is said of it is counted
        on all rows.
    """
    from sklearn.tree import DecisionTreeClassifier

    rows = sample_rows(columns, labels, max_rows, random_state)
    sampled = list(columns) if rows is None else [take(column, rows) for column in columns]
    questions = _questions(cut_columns(sampled))
    everywhere = np.ones(len(labels), dtype=bool)
    if not questions:
        return _told(_Leaf.of(labels, everywhere, 0), labels)
    classifier = DecisionTreeClassifier(
        max_depth=max_depth, min_impurity_decrease=_MIN_GAIN, random_state=random_state
    )
    X = np.column_stack([_answers(question) for question in questions])
    with warnings.catch_warnings():
        # scikit-learn takes many clusters for a mistake: labels that should be numbers
        warnings.filterwarnings("ignore", message="The number of unique classes")
        classifier.fit(X, labels if rows is None else labels[rows])
    whole = {column.name: column for column in columns}
    grown = _Walk(classifier.tree_, questions, whole, labels).below(0, everywhere, 0)
    return _told(_cut_back(grown, max_depth), labels)


def _questions(columns: Sequence[Cells]) -> list[_Question]:
    questions = []
    for cells in columns:
        if cells.column.is_ordered:
            questions.append(_Question(cells, None))
        else:
            present = np.unique(cells.codes)
            asked = present[(present < _MAX_CATEGORIES) | (present == MISSING)].tolist()
            # of two categories, to ask for one is enough
            questions += [_Question(cells, code) for code in asked[len(present) == 2 :]]
    return questions


def _answers(question: _Question) -> npt.NDArray[np.float32]:
    codes = question.cells.codes
    if question.code is not None:
        return np.asarray(codes == question.code, dtype=np.float32)
    answers: npt.NDArray[np.float32] = codes.astype(np.float32)
    answers[codes == MISSING] = np.nan
    return answers


# -- the tree on all rows --------------------------------------------------------------


@dataclass(frozen=True)
class _Leaf:
    """Rows that are given one segment; the one that most of them are of."""

    segment: int
    hits: int
    n_rows: int
    depth: int

    @classmethod
    def of(cls, labels: Labels, rows: Mask, depth: int) -> _Leaf:
        sizes = np.bincount(labels[rows], minlength=1)
        return cls(int(sizes.argmax()), int(sizes.max()), int(sizes.sum()), depth)

    def up_to(self, _depth: int) -> _Leaf:
        """Return the same leaf."""
        return self

    def leaves(self, way: tuple[tuple[Condition, bool], ...] = ()) -> Iterator[_Found]:
        """Yield this leaf at the end of the way to it."""
        yield _Found(self, way)

    def lines(self, indent: str = "") -> Iterator[str]:
        """Yield its line of text."""
        share = self.hits / self.n_rows if self.n_rows else 0.0
        yield f"{indent}segment {self.segment} ({share:.0%} of {self.n_rows:,} rows)"

    def sql(self, _indent: str) -> str:
        """Return its number."""
        return str(self.segment)


@dataclass(frozen=True)
class _Fork:
    """A question, what comes after either answer, and the leaf it would be otherwise."""

    condition: Condition
    yes: _Leaf | _Fork
    no: _Leaf | _Fork
    itself: _Leaf

    def up_to(self, depth: int) -> _Leaf | _Fork:
        """Return what is left when nothing is asked from this depth on, or asked in vain."""
        if self.itself.depth >= depth:
            return self.itself
        yes, no = self.yes.up_to(depth), self.no.up_to(depth)
        if isinstance(yes, _Leaf) and isinstance(no, _Leaf) and yes.segment == no.segment:
            return self.itself
        return _Fork(self.condition, yes, no, self.itself)

    def leaves(self, way: tuple[tuple[Condition, bool], ...] = ()) -> Iterator[_Found]:
        """Yield all leaves below, with the ways to them."""
        yield from self.yes.leaves((*way, (self.condition, True)))
        yield from self.no.leaves((*way, (self.condition, False)))

    def lines(self, indent: str = "") -> Iterator[str]:
        """Yield the lines of text."""
        yield f"{indent}if {self.condition.text()}:"
        yield from self.yes.lines(f"{indent}  ")
        yield f"{indent}otherwise:"
        yield from self.no.lines(f"{indent}  ")

    def sql(self, indent: str) -> str:
        """Return a CASE expression; a comparison with NULL is answered no, as in the text."""
        deeper = f"{indent}  "
        return (
            f"CASE WHEN {self.condition.sql()}\n{deeper}THEN {self.yes.sql(deeper)}"
            f"\n{deeper}ELSE {self.no.sql(deeper)}\n{indent}END"
        )


class _Found(NamedTuple):
    """A leaf, and the questions with their answers that lead to it."""

    leaf: _Leaf
    way: tuple[tuple[Condition, bool], ...]

    def text(self) -> str:
        """Return the way in words."""
        parts = (c.text() if answer else f"not ({c.text()})" for c, answer in self.way)
        return " and ".join(parts) or "every row"

    def sql(self) -> str:
        """Return the way as a WHERE clause."""
        parts = (c.sql() if answer else f"({c.sql()}) IS NOT TRUE" for c, answer in self.way)
        return " AND ".join(parts) or "TRUE"


def _cut_back(grown: _Leaf | _Fork, max_depth: int) -> _Leaf | _Fork:
    """Return the shallowest tree that is right almost as often as the deepest one."""
    trees = [grown.up_to(depth) for depth in range(max_depth + 1)]
    hits = [sum(found.leaf.hits for found in tree.leaves()) for tree in trees]
    n_rows = sum(found.leaf.n_rows for found in trees[0].leaves())
    enough = hits[-1] - LEVEL_GAIN * n_rows
    return next(tree for tree, right in zip(trees, hits, strict=True) if right >= enough)


def _told(tree: _Leaf | _Fork, labels: Labels) -> SegmentTree:
    found = list(tree.leaves())
    sizes = np.bincount(labels, minlength=1)
    rows = [
        {
            "leaf": number,
            "cluster_id": leaf.segment,
            "rule": way.text(),
            "sql": way.sql(),
            "n_rows": leaf.n_rows,
            "coverage": leaf.hits / max(int(sizes[leaf.segment]), 1),
            "precision": leaf.hits / max(leaf.n_rows, 1),
        }
        for number, way in enumerate(found)
        for leaf in (way.leaf,)
    ]
    return SegmentTree(
        text="\n".join(tree.lines()),
        sql=tree.sql(""),
        fidelity=sum(way.leaf.hits for way in found) / max(len(labels), 1),
        depth=max(way.leaf.depth for way in found),
        leaves=pa.Table.from_pylist(rows, schema=TREE_SCHEMA),
    )


class _Walk(NamedTuple):
    """What is needed to follow all rows down a fitted tree."""

    tree: Any
    questions: Sequence[_Question]
    whole: dict[str, RuleColumn]
    labels: Labels

    def below(self, node: int, rows: Mask, depth: int) -> _Leaf | _Fork:
        """Return the part of the tree from a node on, which these rows reach."""
        leaf = _Leaf.of(self.labels, rows, depth)
        if self.tree.children_left[node] < 0:
            return leaf
        condition = self._condition(node)
        passing = condition.mask()
        yes = self.below(self.tree.children_right[node], rows & passing, depth + 1)
        no = self.below(self.tree.children_left[node], rows & ~passing, depth + 1)
        return _Fork(condition, yes, no, leaf)

    def _condition(self, node: int) -> Condition:
        cells, code = self.questions[self.tree.feature[node]]
        column = self.whole[cells.column.name]
        threshold = self.tree.threshold[node]
        if code is None and np.isinf(threshold):  # how scikit-learn parts known from missing
            return Missing(column)
        if code is None:
            cut = cells.cuts[int(threshold)]
            or_missing = column.has_missing and not self.tree.missing_go_to_left[node]
            return InRange(column, low=cut, or_missing=or_missing)
        if code == MISSING:
            return OneOf(column, (), or_missing=True)
        return OneOf(column, (cells.named[code],))
