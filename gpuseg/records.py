"""What travels from room to room.

Every record is frozen: a room takes one and returns the next, and nothing changes
behind anyone's back. Arrays may live on the host (NumPy) or on the device (CuPy);
tables that leave the house are always Arrow tables on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gpuseg.memory import room

if TYPE_CHECKING:  # importing gpuseg must stay quick
    import pyarrow as pa

    from gpuseg.change import Change, Footprint, Lineage, Verdict
    from gpuseg.explained import Explanation, Segment, SegmentTree
#: Values that are put in another order at a time.
_BLOCK_ROWS = 1 << 22

#: A NumPy or a CuPy array; which one is the backend's business.
Array = Any

#: Called with the finished fraction of a stage, from 0.0 to 1.0, on the caller's thread.
Progress = Callable[[float], None]


def no_progress(_fraction: float) -> None:
    """Report to nobody."""


def part(progress: Progress, begin: float, end: float) -> Progress:
    """Return the progress of a piece of work that is this part of a larger one."""
    return lambda fraction: progress(begin + (end - begin) * fraction)


# -- tables ------------------------------------------------------------------

#: Begins the notes of a reader that may be wrong, and change values then.
GUESSED = "the encoding of the input was guessed"


class RowGroup(NamedTuple):
    """A row group of a Parquet file."""

    path: str
    number: int
    n_rows: int


class CsvForm(NamedTuple):
    """A CSV file of plain lines, one row in each, and how its values stand there."""

    path: str
    names: tuple[str, ...]
    has_header: bool
    separator: str
    quote: str
    null_values: tuple[str, ...]


class ByteRange(NamedTuple):
    """Whole lines of a file: those whose preceding line end (or the file's start) is in here."""

    begin: int
    n_bytes: int


class Source(Protocol):
    """The files that a table was read from, for an engine that reads columns itself."""

    @property
    def format(self) -> str:
        """Whether the files are ``parquet`` or ``csv``."""

    def is_unchanged(self) -> bool:
        """Whether the files are those that the table was read from."""

    def row_groups(self) -> Sequence[RowGroup]:
        """Return all row groups of Parquet files, in the order of the table's rows."""

    def csv_form(self, rows: pa.Table) -> CsvForm | str:
        """Return the form of a CSV file, or why others than the door cannot read it."""

    def lines(self, form: CsvForm, n_bytes: int) -> Iterator[ByteRange]:
        """Cut the rows of a plain CSV file into ranges of about so many bytes."""


@dataclass(frozen=True)
class Table:
    """A table as it was read: every column, unchanged.

    Parameters
    ----------
    name
        How the user called it (``db.table`` or a path), without credentials.
    arrow
        The rows. Column names are unique.
    notes
        What the reader decided (separator, encoding, …), one sentence each.
    source
        Files that hold the same rows; None where there are none.
    left_out
        Columns of the source that were ignored and therefore not fetched.
    """

    name: str
    arrow: pa.Table
    notes: tuple[str, ...] = ()
    source: Source | None = None
    left_out: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes on which the values depend, and of which the reader was not sure."""
        return tuple(note for note in self.notes if note.startswith(GUESSED))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.arrow.num_rows)

    def select(self, names: Sequence[str]) -> pa.Table:
        """Return columns of all rows, wherever the rows lie."""
        return self.arrow.select(list(names))

    def take(self, rows: Any) -> Table:
        """Return some rows of the table.

        Arrow's own take puts each column together first, which is a copy of the whole table.

        Parameters
        ----------
        rows : array of shape (m,), int64, ascending
        """
        import numpy as np
        import pyarrow as pa

        batches = self.arrow.to_batches()
        edges = np.cumsum([0, *(batch.num_rows for batch in batches)])
        cuts = np.searchsorted(rows, edges).tolist()
        taken = [
            batch.take(pa.array(rows[a:b] - start))
            for batch, start, a, b in zip(batches, edges.tolist(), cuts, cuts[1:], strict=False)
            if a < b
        ]
        return replace(self, arrow=pa.Table.from_batches(taken, self.arrow.schema), source=None)

    def content_hash(self) -> str | None:
        """Return the hash of the rows where only their owner can tell it; None if they are here."""
        return None

    def with_columns(self, columns: Mapping[str, Any]) -> Any:
        """Return the rows with more columns, ``pa.Array`` in their order, behind their own."""
        result = self.arrow
        for name, values in columns.items():
            result = result.append_column(name, values)
        return result


# -- features ----------------------------------------------------------------


class ColumnDecision(NamedTuple):
    """One row of the ``columns`` table: what became of a column, and why."""

    column: str
    role: str  # numeric | categorical | datetime | boolean | id | text | constant | empty | …
    decision: str  # kept | dropped
    reason: str


@dataclass(frozen=True)
class FeatureMatrix:
    """The table as numbers.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features), float32, C order, finite. What is
        clustered: scaled, and projected when there were too many columns.
    encoded
        Array of shape (n_samples, n_encoded), float32, C order, finite. The same rows
        before any projection; the very same object as `X` when nothing was projected.
    encoded_names
        Length n_encoded, e.g. ``age`` or ``city = Rome``.
    columns
        The original columns that carry features, in table order.
    column_of
        Array of shape (n_encoded,), int32: index into `columns` of each encoded feature.
    decisions
        One for every column of the input table, in its order.
    order
        Host array of shape (n_samples,), int64: row i of `X` is row ``order[i]`` of the
        table. Rows are put in an order that depends on their content alone, so that the
        result does not depend on the order of the source; it looks random, so the first
        m rows are a fair sample.
    encoder
        The fitted ``features.Encoder``; kept with the model.
    warnings
        Sentences for people.
    """

    X: Array
    encoded: Array
    encoded_names: tuple[str, ...]
    columns: tuple[str, ...]
    column_of: Array
    decisions: tuple[ColumnDecision, ...]
    order: Array
    encoder: Any
    warnings: tuple[str, ...] = ()

    def in_table_order(self, values: Any) -> Any:
        """Return host values of the rows of `X`, (n_samples, ...), in the table's order."""
        result = room().empty(values.shape, values.dtype)
        for start in range(0, len(values), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            result[self.order[rows]] = values[rows]
        return result

    def in_matrix_order(self, values: Any) -> Any:
        """Return host values of all rows in the table's order, (n_samples,), in that of `X`."""
        return values[self.order]

    def fair_column(self, table: Table, name: str, n_rows: int) -> Table:
        """Return a column of the table: all of it, or of a large one `n_rows` fair rows."""
        column = table.arrow.select([name])
        if len(self.order) > n_rows:
            import numpy as np
            import pyarrow as pa

            column = column.take(pa.array(np.asarray(self.order[:n_rows])))
        return Table(table.name, column)

    def fair_sample(self, n_rows: int) -> tuple[Any, Any]:
        """Return `n_rows` rows that depend on their content alone, in the order of the table.

        Returns
        -------
        in_table : host array of shape (n_rows,), int64, ascending
            Where they are in the table.
        in_matrix : host array of shape (n_rows,), int64
            Where they are in `X`.
        """
        first = self.order[:n_rows]
        in_matrix = first.argsort(kind="stable")
        return first[in_matrix], in_matrix


# -- clustering --------------------------------------------------------------


class KMeansFit(NamedTuple):
    """One finished k-means run.

    `labels` are those of the nearest of `centroids` for every row.
    """

    centroids: Array  # (n_clusters, n_features) float32
    labels: Array  # (n_samples,) int32; on the host, of many rows, also uint8
    inertia: float  # sum of squared distances to the nearest centroid, float64
    n_iter: int


class Assignment(NamedTuple):
    """Nearest and second nearest centroid of each row (ties to the smaller index)."""

    labels: Array  # (n_samples,) int32
    sq_distances: Array  # (n_samples,) float32, squared Euclidean, to the nearest
    second_labels: Array  # (n_samples,) int32; -1 when there is one centroid
    second_sq_distances: Array  # (n_samples,) float32; inf when there is one centroid


@dataclass(frozen=True)
class KScore:
    """How good the segmentation into `n_clusters` is: one row of ``k scores``."""

    n_clusters: int
    silhouette: float
    silhouette_stderr: float  # 0.0 when exact
    method: str  # "exact" or "sampled (m of n rows)"
    inertia: float
    calinski_harabasz: float
    davies_bouldin: float
    min_cluster_share: float
    stability: float  # mean adjusted Rand index of restarts against the best one
    silhouette_low: float | None = None  # 95 % interval; the silhouette when exact
    silhouette_high: float | None = None


@dataclass(frozen=True)
class SweepResult:
    """Every k that was tried."""

    fits: Mapping[int, KMeansFit]
    scores: Mapping[int, KScore]
    #: silhouette of each scored row, for each k: (n_scored,) float32, host
    samples: Mapping[int, Array]
    #: rows of X that were scored, (n_scored,) int64, host; all of them when exact
    scored_rows: Array
    warnings: tuple[str, ...] = ()
    #: for each k those others whose silhouette may well be higher; none when exact
    rivals: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    #: what was left unfinished because time was up, in words
    cut: tuple[str, ...] = ()


def first_ids(n_clusters: int) -> tuple[int, ...]:
    """Return the ids of clusters that continue nothing: their positions."""
    return tuple(range(n_clusters))


@dataclass(frozen=True)
class Choice:
    """The k that was chosen, and why, in words."""

    n_clusters: int
    fit: KMeansFit  # labels are positions; in a first run 0 is the largest cluster
    reason: str
    warnings: tuple[str, ...] = ()
    #: by position, ascending: what people and tables call the clusters; () for positions
    cluster_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Call clusters by their positions where nothing else is said."""
        object.__setattr__(self, "cluster_ids", self.cluster_ids or first_ids(self.n_clusters))


# -- the whole ---------------------------------------------------------------


class StageCost(NamedTuple):
    """What one stage of a run took."""

    seconds: float
    peak_bytes: int  # of the process, at the end of the stage


@dataclass(frozen=True)
class Segmentation:
    """The result of a run: what ``gpuseg.segment`` and ``gpuseg.assign`` return."""

    table: pa.Table  # the input's columns plus cluster_id, in the input's row order
    labels: Array  # (n_rows,) int32, host, in the input's row order: the rows' cluster_id
    n_clusters: int
    silhouette: float
    reason: str
    k_scores: pa.Table
    columns: pa.Table
    explanation: Explanation | None  # None when rows were only placed
    rules: pa.Table | None
    model: Any  # outputs.models.StoredModel; gpuseg.assign takes it
    backend: str
    backend_reason: str
    stages: Mapping[str, StageCost]
    n_features: int
    warnings: tuple[str, ...] = ()
    run_id: str | None = None  # None when nothing was kept on disk
    run_dir: str | None = None
    report: str | None = None
    output_table: str | None = None
    tree: SegmentTree | None = None
    #: one for each cluster id; outputs.segments.discreet leaves table contents out of them
    segments: tuple[Segment, ...] = ()
    change: Change | None = None  # since the run before; None when there was none
    footprint: Footprint | None = None  # None when nothing is kept on disk
    max_seconds: float | None = None  # what the run was given, if limited
    cut: tuple[str, ...] = ()  # what was left unfinished for that, in words
    #: by position, ascending; () stands for 0 to n_clusters - 1
    cluster_ids: tuple[int, ...] = ()
    lineage: Lineage | None = None  # None when there was no earlier model
    unchanged: bool = False  # nothing was done: all that an earlier run left still stands

    gate: Verdict | None = None  # None when nothing was to be published
    #: the run whose model was current and is continued, or whose model placed the rows
    earlier_run_id: str | None = None

    def __post_init__(self) -> None:
        """Call clusters by their positions where nothing else is said."""
        object.__setattr__(self, "cluster_ids", self.cluster_ids or first_ids(self.n_clusters))

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.model.name)

    @property
    def cluster_sizes(self) -> list[int]:
        """Rows in each cluster, in the order of `cluster_ids`."""
        return [int((self.labels == cluster).sum()) for cluster in self.cluster_ids]

    def _repr_html_(self) -> str:
        """Show the segments in a notebook."""
        from gpuseg.outputs.notebook import segmentation_html

        return segmentation_html(self)
