"""Every use of a GPU library besides CuPy's arrays, as a table.

The engine calls through the table, so a test that holds it against the libraries' own
signatures holds the engine against them. Each parameter stands here with its value: a
default that changes with a release (as that of ``max_depth`` did) changes nothing for us.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gpuseg.errors import BackendUnavailableError

#: Marks an argument that the engine gives.
GIVEN: Final = object()


class Call(NamedTuple):
    """What is called, and with which arguments.

    Parameters
    ----------
    target
        Dotted name; of a method through its class, its `positional` then begins with self.
    positional
        Arguments that are given by position, under the names that they have there.
    keywords
        All others with their values, `GIVEN` where the engine gives them.
    """

    target: str
    positional: tuple[str, ...]
    keywords: Mapping[str, Any]


CALLS: Final[Mapping[str, Call]] = {
    "read_parquet": Call(
        "cudf.read_parquet",
        ("filepath_or_buffer",),
        {
            "engine": "cudf",
            "columns": GIVEN,
            "storage_options": None,
            "filesystem": None,
            "filters": None,
            "row_groups": GIVEN,
            "use_pandas_metadata": False,  # it would make an index of a column
            "categorical_partitions": False,
            "bytes_per_thread": None,
            # a folder called a=1 on the way to the file would become a column
            "dataset_kwargs": {"format": "parquet", "partitioning": None},
            "nrows": None,
            "skip_rows": None,
            "allow_mismatched_pq_schemas": False,
            "ignore_missing_columns": False,
            "case_sensitive_names": True,
        },
    ),
    "read_csv": Call(
        "cudf.read_csv",
        ("filepath_or_buffer",),
        {
            "sep": GIVEN,
            "delimiter": None,
            "header": None,
            "names": GIVEN,
            "index_col": None,
            "usecols": GIVEN,
            "prefix": None,
            "mangle_dupe_cols": True,
            "dtype": GIVEN,
            "true_values": None,
            "false_values": None,
            "skipinitialspace": False,
            "skiprows": 0,
            "skipfooter": 0,
            "nrows": None,
            "na_values": GIVEN,
            "keep_default_na": False,
            "na_filter": True,
            "skip_blank_lines": GIVEN,
            "parse_dates": None,
            "dayfirst": False,
            "compression": None,
            "thousands": None,
            "decimal": GIVEN,
            "lineterminator": "\n",
            "quotechar": GIVEN,
            "quoting": 0,
            "doublequote": True,
            "comment": None,
            "byte_range": GIVEN,
            "storage_options": None,
            "bytes_per_thread": None,
        },
    ),
    "series.astype": Call(
        "cudf.Series.astype", ("self",), {"dtype": "float64", "copy": False, "errors": "raise"}
    ),
    "series.to_cupy": Call(
        "cudf.Series.to_cupy",
        ("self",),
        {"dtype": "float64", "copy": False, "na_value": math.nan},
    ),
    "kmeans": Call(
        "cuml.KMeans",
        (),
        {
            "n_clusters": GIVEN,
            "max_iter": GIVEN,
            "tol": GIVEN,
            "verbose": False,
            "random_state": 0,
            "init": GIVEN,  # an array, so nothing is drawn
            "n_init": 1,
            "oversampling_factor": 2.0,
            "max_samples_per_batch": 32_768,
            "device_buffer_samples": 0,
            "init_size": 0,
            "output_type": "cupy",
        },
    ),
    "kmeans.fit": Call("cuml.KMeans.fit", ("self", "X"), {"y": None, "sample_weight": None}),
    "forest": Call(
        "cuml.ensemble.RandomForestClassifier",
        (),
        {
            "n_estimators": GIVEN,
            "split_criterion": "gini",
            "bootstrap": True,
            "max_samples": 1.0,
            "max_depth": GIVEN,
            "max_leaves": -1,
            "max_features": "sqrt",
            "n_bins": GIVEN,
            "min_samples_leaf": 1,
            "min_samples_split": 2,
            "min_impurity_decrease": 0.0,
            "max_batch_size": 4096,
            "random_state": GIVEN,
            "n_streams": 4,
            "oob_score": True,
            "class_weight": None,
            "verbose": False,
            "output_type": "cupy",
        },
    ),
    "forest.fit": Call(
        "cuml.ensemble.RandomForestClassifier.fit",
        ("self", "X", "y"),
        {"sample_weight": None},
    ),
    "forest.predict_proba": Call(
        "cuml.ensemble.RandomForestClassifier.predict_proba",
        ("self", "X"),
        {"layout": "depth_first", "default_chunk_size": None, "align_bytes": None},
    ),
    "explainer": Call("cuml.explainer.TreeExplainer", (), {"model": GIVEN, "data": None}),
    "explainer.shap_values": Call("cuml.explainer.TreeExplainer.shap_values", ("self", "X"), {}),
}


class Libraries:
    """Calls what the table names; libraries are imported by the first call that needs them.

    Parameters
    ----------
    resolve
        Returns the object of a dotted name; a test may give one of its own.
    """

    def __init__(self, resolve: Callable[[str], Any] = pkgutil.resolve_name) -> None:
        self._resolve = resolve

    def call(self, name: str, *positional: Any, **given: Any) -> Any:
        """Make the call of this name in `CALLS`.

        Raises
        ------
        TypeError
            If the arguments are not those that the table leaves to the engine.
        BackendUnavailableError
            If the library is not installed, or not in a version that has the name.
        """
        call = CALLS[name]
        asked = {key for key, value in call.keywords.items() if value is GIVEN}
        if len(positional) != len(call.positional) or set(given) != asked:
            raise TypeError(
                f"'{name}' takes {call.positional} and {sorted(asked)}; "
                f"got {len(positional)} and {sorted(given)}"
            )
        return self._find(call.target)(*positional, **{**call.keywords, **given})

    def _find(self, target: str) -> Any:
        try:
            return self._resolve(target)
        except (ImportError, AttributeError) as error:
            raise BackendUnavailableError(
                f"the GPU backend needs {target}, which cannot be imported ({error}); "
                "install gpuseg[cuda13] or gpuseg[cuda12]"
            ) from error
