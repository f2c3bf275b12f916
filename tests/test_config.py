"""Parameters from YAML, and from a digdag workflow as it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpuseg.config import read_config
from gpuseg.errors import SettingsError

NOW = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[1] / "examples"


def read(folder: Path, text: str, name: str = "job.yml", environ: dict[str, str] | None = None):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_config(path, environ=environ or {}, now=NOW)


def test_yaml_keys_may_be_underscored_or_dashed(tmp_path):
    assert read(tmp_path, "min_clusters: 3\nmax-clusters: 5\n") == {
        "min_clusters": 3,
        "max_clusters": 5,
    }


def test_the_example_workflow_is_read_without_edits():
    found = read_config(EXAMPLES / "clustering.dig", environ={}, now=NOW)
    stamp = int(NOW.timestamp())
    assert found == {
        "input_table": "ml_datasets.gluon_train",
        "output_table": "ml_test.gluon_train_clusters",
        "export_feature_importance": f"ml_test.importance_{stamp}",
        "export_shap_values": f"ml_test.shap_{stamp}",
        "audience_name": "Customers",
        "foreign_key": "customer_id",
        "rowid_column": "rowid",
    }


DIG = """
timezone: UTC
_export:
  target: ml_test
  td: {database: ml_datasets}
  !include : config/params.yml
+outer:
  _export:
    suffix: ${target}_${session_date}
  +load:
    ipynb>: {notebook: ml_datasets}
  +cluster:
    ipynb>:
      notebook: clustering
      docker: {task_mem: 128g}
      input_table: ${td.database}.x
      output_table: ${suffix}
      num_clusters: 4
      audience_name: ${audience}
"""


def test_variables_come_from_export_then_environment_then_the_clock(tmp_path):
    found = read(tmp_path, DIG, "job.dig", environ={"audience": "People"})
    assert found == {
        "input_table": "ml_datasets.x",
        "output_table": "ml_test_2026-11-23",
        "num_clusters": 4,
        "audience_name": "People",
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("job.dig", DIG, r"uses \$\{audience\}"),
        ("job.dig", "+a:\n  echo>: hi\n", "holds 0 tasks"),
        (
            "job.dig",
            "+a:\n  ipynb>: {notebook: clustering}\n+b:\n  ipynb>: {notebook: clustering}\n",
            "holds 2 tasks",
        ),
        (
            "job.dig",
            "_export: {a: '${a}'}\n+a:\n  ipynb>: {notebook: clustering, x: '${a}'}\n",
            "uses",
        ),
        ("job.yml", "a: [1", r"not valid YAML \(line"),
        ("job.yml", "- a\n- b\n", "'parameter: value' lines"),
        ("job.yml", "a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_unusable_files_are_refused(tmp_path, name, text, words):
    with pytest.raises(SettingsError, match=words):
        read(tmp_path, text, name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nothing\.yml' does not exist"):
        read_config(tmp_path / "nothing.yml", environ={})
