"""Every parameter: name, default, check, help. Nothing else in the house has defaults.

Precedence: command line over environment (``GPUSEG_MIN_CLUSTERS=3``) over ``--config``
file over default. The notebook's parameters keep the notebook's names and defaults.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpuseg.addresses import check_address
from gpuseg.errors import SettingsError, did_you_mean


def _parameter(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    limits = {"low": low, "high": high}
    return field(default=default, metadata={"help": text, "choices": choices, **limits})


@dataclass(frozen=True)
class Settings:
    """The resolved parameters of one run.

    Raises
    ------
    SettingsError
        On construction, if a value is out of range or contradicts another one.
    """

    # -- the notebook's parameters ---------------------------------------------------
    input_table: str | None = _parameter(
        None, "Table to segment: db.table in the warehouse, a file, or a folder of Parquet parts."
    )
    output_table: str | None = _parameter(
        None, "Where the rows plus cluster_id go: db.table or a file."
    )
    model_name: str | None = _parameter(
        None, "Name under which the model is kept; by default made from the input's name."
    )
    force_refit: bool = _parameter(
        True, "Fit anew. With --no-force-refit a stored model of that name places the rows."
    )
    output_mode: str = _parameter(
        "overwrite",
        "overwrite (= replace) the output table, or append to it.",
        choices=("overwrite", "replace", "append"),
    )
    min_clusters: int = _parameter(2, "Smallest number of clusters to try.", low=2)
    max_clusters: int = _parameter(9, "Largest number of clusters to try.", low=2)
    num_clusters: int | None = _parameter(
        None,
        "This many clusters, or as many as there are different rows; overrides the search.",
        low=2,
    )
    ignore_columns: tuple[str, ...] = _parameter(
        ("time",), "Columns that are not used for clustering (comma-separated)."
    )
    dimension_reduction_threshold: int = _parameter(
        50, "PCA when there are more encoded columns than this.", low=1
    )
    export_feature_importance: str | None = _parameter(
        None, "Also write the Gini importance of each column: [db.]table or a file."
    )
    export_shap_values: str | None = _parameter(
        None, "Also write mean SHAP values per cluster and column: [db.]table or a file."
    )
    hide_table_contents: bool = _parameter(
        False, "Leave values and category texts out of the report and the printed result."
    )
    audience_name: str | None = _parameter(
        None, "Treasure Data master segment; with --foreign-key and --rowid-column."
    )
    foreign_key: str | None = _parameter(None, "Join key in the master table.")
    rowid_column: str | None = _parameter(
        None, "Column that identifies a row; never used for clustering."
    )
    # -- beyond the notebook ---------------------------------------------------------
    watermark_column: str | None = _parameter(
        None, "Column that grows with each new row, such as a time: where gpuseg watch goes on."
    )
    input_query: str | None = _parameter(
        None, "SELECT whose rows are segmented, run in the warehouse; instead of --input-table."
    )
    warehouse: str = _parameter(
        "duckdb:gpuseg.duckdb",
        "Where db.table lives: duckdb:PATH, postgresql://USER@HOST/DATABASE, adbc:DRIVER?…, or td.",
    )
    backend: str = _parameter(
        "auto",
        "auto, numpy, or gpu (never falls back).",
        choices=("auto", "numpy", "gpu"),
    )
    columns: tuple[str, ...] | None = _parameter(None, "Use only these columns (comma-separated).")
    categorical_columns: tuple[str, ...] = _parameter((), "Treat these columns as categories.")
    numeric_columns: tuple[str, ...] = _parameter((), "Treat these columns as numbers.")
    transform: str = _parameter(
        "auto", "auto: tame heavy tails; none: leave numbers as they are.", choices=("auto", "none")
    )
    scaling: str = _parameter(
        "standard",
        "standard (mean 0, deviation 1), robust (median, quartiles) or none.",
        choices=("standard", "robust", "none"),
    )
    n_init: int = _parameter(10, "Restarts of k-means for each k.", low=1)
    random_state: int = _parameter(0, "Seed; the same seed gives the same result.", low=0)
    sample_size: int | None = _parameter(
        None,
        "Rows scored for the silhouette; by default all of them while that is affordable.",
        low=2,
    )
    min_cluster_share: float = _parameter(
        0.0,
        "Prefer every k whose smallest cluster holds this share of rows, if there is one.",
        low=0.0,
    )
    export_profiles: str | None = _parameter(
        None, "Also write what each segment looks like: [db.]table or a file."
    )
    export_k_scores: str | None = _parameter(
        None, "Also write the scores of every k: [db.]table or a file."
    )
    export_rules: str | None = _parameter(
        None, "Also write short rules for each segment: [db.]table or a file."
    )
    export_lineage: str | None = _parameter(
        None,
        "Also write which segments went on, split, merged, began or ended: [db.]table or file.",
    )
    export_migration: str | None = _parameter(
        None, "Also write how many rows went from which segment to which: [db.]table or a file."
    )
    export_movements: str | None = _parameter(
        None,
        "Also write segment, previous segment and date of change of each row; needs rowid_column.",
    )
    export_drift: str | None = _parameter(
        None, "Also write how far each column moved since the run before: [db.]table or a file."
    )
    publish: str = _parameter(
        "if-ok",
        "always; if-ok: unless a limit below is broken; if-better: and the silhouette is no lower.",
        choices=("always", "if-better", "if-ok"),
    )
    max_churn: float | None = _parameter(
        None, "Limit: share of known rows that may change their segment, 0 to 1.", low=0.0, high=1.0
    )
    min_silhouette: float | None = _parameter(
        None, "Limit: mean silhouette that the new segments must reach.", low=-1.0, high=1.0
    )
    max_psi: float | None = _parameter(
        None,
        "Limit: population stability index that no column may exceed (0.25 is a lot).",
        low=0.0,
    )
    keep: int = _parameter(14, "Runs of a model that are kept; older ones are removed.", low=1)
    max_seconds: float | None = _parameter(
        None,
        "Time budget: when it ends, the best segments found so far are used; "
        "explaining and publishing come on top.",
        low=1.0,
    )
    memory: str | None = _parameter(
        None, "Memory to stay within, such as 8GiB; by default most of what is free."
    )
    dask: str | None = _parameter(
        None, "Work on a Dask cluster: the scheduler's address, or local:N for N processes here."
    )
    log_format: str = _parameter(
        "text", "Progress and log on stderr: text, or json lines.", choices=("text", "json")
    )
    metrics_file: str | None = _parameter(
        None, "Write the run's figures there for Prometheus (textfile collector, *.prom)."
    )
    remove_stale_segments: bool = _parameter(
        False, "Remove the audience's segments of clusters that are no more; else report them."
    )
    row_scores: bool = _parameter(
        False,
        "Add cluster_distance, second_cluster_id, cluster_margin and silhouette to the output.",
    )
    runs_dir: str = _parameter("gpuseg_runs", "Folder that keeps runs, models and reports.")
    csv_separator: str | None = _parameter(None, "CSV input: separator, if not to be detected.")
    csv_decimal: str | None = _parameter(
        None, "CSV input: decimal sign, if not to be detected.", choices=(".", ",")
    )
    csv_encoding: str | None = _parameter(None, "CSV input: encoding, if not to be detected.")
    csv_quote: str | None = _parameter(None, "CSV input: quote sign, if not to be detected.")
    csv_header: str = _parameter(
        "auto",
        "CSV input: does the first line hold names?",
        choices=("auto", "yes", "none"),
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is read."""
        for parameter in dataclasses.fields(self):
            _check_value(parameter, getattr(self, parameter.name))
        # also where no table is in the warehouse: the address is written down with the run
        check_address(self.warehouse)
        if self.min_clusters > self.max_clusters:
            raise SettingsError(
                f"min_clusters is {self.min_clusters} and max_clusters is {self.max_clusters}; "
                "the smallest number of clusters must not exceed the largest"
            )
        if self.min_cluster_share >= 0.5:
            raise SettingsError(
                f"min_cluster_share is {self.min_cluster_share}; with two or more clusters the "
                "smallest holds at most 0.5 of the rows, so it must be below 0.5"
            )
        self._check_audience()
        self._check_overrides()
        if self.export_movements is not None and self.rowid_column is None:
            raise SettingsError(
                "export_movements says of each row where it was, which needs rowid_column: name "
                "the column that identifies a row, or leave export_movements out"
            )

    def _check_audience(self) -> None:
        trio = {n: getattr(self, n) for n in ("audience_name", "foreign_key", "rowid_column")}
        # rowid_column alone is useful: it names the id, which is then not clustered
        if (self.audience_name is None) != (self.foreign_key is None) or (
            self.audience_name is not None and self.rowid_column is None
        ):
            missing = ", ".join(name for name, value in trio.items() if value is None)
            raise SettingsError(
                "the audience needs audience_name, foreign_key and rowid_column, all three or "
                f"none; missing: {missing}"
            )

    def _check_overrides(self) -> None:
        both = sorted(set(self.categorical_columns) & set(self.numeric_columns))
        if both:
            raise SettingsError(
                f"column '{both[0]}' is named in categorical_columns and in numeric_columns; "
                "name it in one of them"
            )

    @property
    def k_values(self) -> tuple[int, ...]:
        """The numbers of clusters to try."""
        if self.num_clusters is not None:
            return (self.num_clusters,)
        return tuple(range(self.min_clusters, self.max_clusters + 1))

    @property
    def appends(self) -> bool:
        """Whether rows are added to the output table instead of replacing it."""
        return self.output_mode == "append"


#: Parameter name -> dataclass field, in the order of the help text.
PARAMETERS: Mapping[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(Settings)}

#: Parameter name -> type, e.g. ``int | None``.
TYPES: Mapping[str, Any] = typing.get_type_hints(Settings)


def base_type(name: str) -> type:
    """Return bool, int, float, str or tuple: the parameter's type without ``| None``."""
    hint = TYPES[name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = next(option for option in options if option is not type(None))
    kind: type = typing.get_origin(plain) or plain
    return kind


def resolve(
    given: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge the command line, the environment, the config file and the defaults.

    Parameters
    ----------
    given
        From the command line or a Python call; ``None`` means not given.
    environ
        ``GPUSEG_<PARAMETER>``; variables that name no parameter are left alone.
    config
        Parameters read from a file by `gpuseg.config.read_config`.

    Raises
    ------
    SettingsError
        If a name is unknown or a value malformed, out of range or contradictory.
    """
    merged = dict(config or {})
    for name in PARAMETERS:
        value = (environ or {}).get(f"GPUSEG_{name.upper()}")
        if value is not None and value != "":
            merged[name] = value
    merged |= {name: value for name, value in given.items() if value is not None}
    for name in merged:
        if name not in PARAMETERS:
            raise SettingsError(
                f"'{name}' is not a parameter of gpuseg{did_you_mean(name, PARAMETERS)} "
                "(gpuseg run --help lists them all)"
            )
    values = {n: parse(n, v) for n, v in merged.items() if v is not None}
    return Settings(**values)


def parse(name: str, value: Any) -> Any:
    """Turn text, YAML or Python values into the parameter's type.

    Raises
    ------
    SettingsError
        If the value cannot be read as that type.
    """
    kind = base_type(name)
    if kind is tuple:
        return _parse_names(name, value)
    if kind is bool:
        return _parse_bool(name, value)
    if kind in (int, float):
        return _parse_number(name, value, kind)
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        # not repeated: a list in a config file may hold an address with its password
        raise SettingsError(f"{name} is a {type(value).__name__}; a text was expected")
    return str(value)


def _parse_names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        # read as one CSV line, so that a name with a comma can be quoted
        items = next(csv.reader([value], skipinitialspace=True), [])
    elif isinstance(value, (list, tuple)):
        items = [str(item) for item in value]
    else:
        raise SettingsError(f"{name} is {value!r}; a comma-separated list was expected")
    return tuple(item.strip() for item in items if item.strip())


def _parse_bool(name: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    answer = words.get(str(value).strip().lower())
    if answer is None:
        raise SettingsError(f"{name} is {value!r}; true or false was expected")
    return answer


def _parse_number(name: str, value: Any, kind: type) -> Any:
    try:
        if isinstance(value, bool):
            raise ValueError(value)
        number = kind(value)
        if number != float(value):
            raise ValueError(value)
    except (TypeError, ValueError) as error:
        expected = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} is {value!r}; {expected} was expected") from error
    return number


def _check_value(parameter: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    choices, low, high = (parameter.metadata[name] for name in ("choices", "low", "high"))
    if choices and value not in choices:
        raise SettingsError(
            f"{parameter.name} is '{value}'; expected one of {', '.join(choices)}"
            f"{did_you_mean(str(value), choices)}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{parameter.name} is {value}; it must be a finite number")
    if low is not None and not value >= low:
        raise SettingsError(f"{parameter.name} is {value}; it must be at least {low:g}")
    if high is not None and not value <= high:
        raise SettingsError(f"{parameter.name} is {value}; it must be at most {high:g}")
