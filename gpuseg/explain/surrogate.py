"""One shallow decision tree that puts every row into a segment, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.explain.cells import MISSING, Cells, cut_columns
from gpuseg.explain.conditions import Condition, InRange, Mask, Missing, OneOf, RuleColumn
from gpuseg.explain.sampling import sample_rows, take

#: Categories of a column that the tree may ask for.
_MAX_CATEGORIES = 12

#: A question must lower the weighted impurity at least this much.
_MIN_GAIN = 0.002


class Surrogate(NamedTuple):
    """A tree in words, one question or segment a line, and its fidelity."""

    text: str
    fidelity: float  # share of the rows that the tree puts into their segment


class _Question(NamedTuple):
    """A yes-or-no condition and the feature of the tree that stands for it."""

    cells: Cells
    code: int | None  # of the category; None asks for a threshold


def surrogate_fidelity(
    columns: Sequence[RuleColumn],
    labels: npt.NDArray[np.int32],
    *,
    max_depth: int = 4,
    random_state: int = 0,
    max_rows: int = 100_000,
) -> Surrogate:
    """Fit a decision tree to the segments and say how well it imitates them.

    Parameters
    ----------
    labels : array of shape (n,), int32
        Segment of each row, in table order.
    max_rows
        Rows that the tree is fitted on, see `sample_rows`. Its fidelity is counted on all.
    """
    from sklearn.tree import DecisionTreeClassifier

    rows = sample_rows(columns, labels, max_rows, random_state)
    sampled = list(columns) if rows is None else [take(column, rows) for column in columns]
    questions = _questions(cut_columns(sampled))
    if not questions:
        return Surrogate(*_leaf(labels, len(labels), 0))
    classifier = DecisionTreeClassifier(
        max_depth=max_depth, min_impurity_decrease=_MIN_GAIN, random_state=random_state
    )
    X = np.column_stack([_answers(question) for question in questions])
    classifier.fit(X, labels if rows is None else labels[rows])
    whole = {column.name: column for column in columns}
    everywhere = np.ones(len(labels), dtype=bool)
    walk = _Walk(classifier.tree_, questions, whole, labels)
    return Surrogate(*walk.below(0, everywhere, 0))


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


class _Walk(NamedTuple):
    """What is needed to tell a fitted tree in words, on all rows."""

    tree: Any
    questions: Sequence[_Question]
    whole: dict[str, RuleColumn]
    labels: npt.NDArray[np.int32]

    def below(self, node: int, rows: Mask, depth: int) -> tuple[str, float]:
        """Return the text below a node and the share of all rows that it gets right."""
        if self.tree.children_left[node] < 0:
            return _leaf(self.labels[rows], len(self.labels), depth)
        condition = self._condition(node)
        passing = condition.mask()
        yes, right = self.below(self.tree.children_right[node], rows & passing, depth + 1)
        no, left = self.below(self.tree.children_left[node], rows & ~passing, depth + 1)
        indent = "  " * depth
        text = f"{indent}if {condition.text()}:\n{yes}\n{indent}otherwise:\n{no}"
        return text, right + left

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


def _leaf(labels: npt.NDArray[np.int32], n_rows: int, depth: int) -> tuple[str, float]:
    sizes = np.bincount(labels)
    if not len(sizes):
        return f"{'  ' * depth}no row", 0.0
    segment, hits = int(sizes.argmax()), int(sizes.max())
    text = f"segment {segment} ({hits / len(labels):.0%} of {len(labels):,} rows)"
    return f"{'  ' * depth}{text}", hits / n_rows
