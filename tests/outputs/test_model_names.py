"""Names of models become folders: anywhere, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuseg.errors import SettingsError
from gpuseg.outputs.model_names import check_model_name, default_model_name


@pytest.mark.parametrize(
    "name", ["customers", "CC GENERAL", "ml_datasets.gluon_train", "顧客", "a", "v1.2-b", "x" * 100]
)
def test_good_names_pass(name):
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "/etc", "C:", "a\0b", "a\nb", "a\u202eb", "a\u00a0b",
     "x" * 101, "顧" * 70, "con", "CON", "nul.txt", "LPT1", "aux .x", "a.", "a ", " a", "-rf", "a*",
     "a?", 'a"', "a<b", "a|b", "\ud800", "\ue000"],
)  # fmt: skip
def test_bad_names_are_refused_with_the_rule(name):
    with pytest.raises(SettingsError, match=r"the model name .* use letters, digits"):
        check_model_name(name)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("ml_datasets.gluon_train", "ml_datasets.gluon_train"),
        ("data/CC GENERAL.csv", "cc_general"),
        ("C:\\tables\\Kunden 2026.parquet", "kunden_2026"),
        ("rows.csv.gz", "rows"),
        ("parts/", "parts"),
        ("db.顧客", "db.顧客"),
        ("con.csv", "table_con"),
        ("../..", "model"),
        ("", "model"),
    ],
)
def test_the_default_name_comes_from_the_table(table, name):
    assert default_model_name(table) == name


@given(st.text())
def test_any_table_gives_a_good_name(table):
    check_model_name(default_model_name(table))
