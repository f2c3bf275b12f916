"""Parameters: the notebook's names and defaults, precedence, and clear refusals."""

from __future__ import annotations

import pytest

from gpuseg.errors import SettingsError
from gpuseg.settings import PARAMETERS, Settings, resolve

# What the notebook's documentation says; scripts rely on it.
NOTEBOOK_DEFAULTS = {
    "input_table": None,
    "output_table": None,
    "model_name": None,
    "force_refit": True,
    "output_mode": "overwrite",
    "min_clusters": 2,
    "max_clusters": 9,
    "num_clusters": None,
    "ignore_columns": ("time",),
    "dimension_reduction_threshold": 50,
    "export_feature_importance": None,
    "export_shap_values": None,
    "hide_table_contents": False,
    "audience_name": None,
    "foreign_key": None,
    "rowid_column": None,
}


def test_the_notebooks_parameters_have_their_names_and_defaults():
    settings = resolve({})
    assert {name: getattr(settings, name) for name in NOTEBOOK_DEFAULTS} == NOTEBOOK_DEFAULTS


def test_every_parameter_has_help():
    assert all(field.metadata["help"].endswith((".", ".)", "?")) for field in PARAMETERS.values())


def test_command_line_beats_environment_beats_config_beats_default():
    config = {"min_clusters": 3, "max_clusters": 12, "n_init": 4}
    environ = {"GPUSEG_MIN_CLUSTERS": "4", "GPUSEG_MAX_CLUSTERS": "13", "GPUSEG_THREADS": "2"}
    settings = resolve({"min_clusters": "5"}, environ=environ, config=config)
    assert (settings.min_clusters, settings.max_clusters, settings.n_init) == (5, 13, 4)
    assert settings.random_state == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ("a", "b")),
        (" a , b ,", ("a", "b")),
        ('"Last, first",b', ("Last, first", "b")),
        (
            "Annual Income (k$),Spending Score (1-100)",
            ("Annual Income (k$)", "Spending Score (1-100)"),
        ),
        ("", ()),
    ],
)
def test_lists_of_columns_are_read_as_one_csv_line(text, names):
    assert resolve({"columns": text}).columns == names


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"min_cluster": 3}, "did you mean 'min_clusters'"),
        ({"min_clusters": "three"}, "a whole number was expected"),
        ({"min_clusters": 2.5}, "a whole number was expected"),
        ({"min_clusters": True}, "a whole number was expected"),
        ({"min_clusters": 1}, "at least 2"),
        ({"num_clusters": 1}, "at least 2"),
        ({"min_clusters": 5, "max_clusters": 4}, "must not exceed"),
        ({"force_refit": "maybe"}, "true or false"),
        ({"output_mode": "upsert"}, "overwrite, replace, append"),
        ({"backend": "cuda"}, "auto, numpy, gpu"),
        ({"min_cluster_share": 0.5}, "below 0.5"),
        ({"min_cluster_share": "nan"}, "a number was expected"),
        ({"audience_name": "a"}, "missing: foreign_key, rowid_column"),
        ({"audience_name": "a", "foreign_key": "b"}, "missing: rowid_column"),
        ({"foreign_key": "b", "rowid_column": "c"}, "missing: audience_name"),
        ({"categorical_columns": "a,b", "numeric_columns": "b"}, "column 'b' is named in"),
        ({"columns": 3}, "comma-separated list"),
    ],
)
def test_what_cannot_work_is_refused_with_what_was_expected(given, words):
    with pytest.raises(SettingsError, match=words):
        resolve(given)


def test_num_clusters_overrides_the_range():
    assert resolve({}).k_values == (2, 3, 4, 5, 6, 7, 8, 9)
    assert resolve({"num_clusters": "6"}).k_values == (6,)


def test_replace_is_the_same_as_overwrite():
    assert not resolve({"output_mode": "replace"}).appends
    assert resolve({"output_mode": "append"}).appends


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        Settings().n_init = 3  # type: ignore[misc]
