"""With ``--log-format json`` every line on stderr is one JSON object."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from gpuseg.observing import json_log
from gpuseg.observing.json_log import JsonHandler, JsonLog
from gpuseg.records import StageCost

FIELDS = {"timestamp", "severity_number", "severity_text", "body", "resource", "attributes"}


def lines(text: str) -> list[dict]:
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert set(line) == FIELDS
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
        assert line["resource"]["service.name"] == "gpuseg"
    return found


def test_stages_become_lines(monkeypatch):
    stream = io.StringIO()
    log = JsonLog(stream)
    log.started("sweep")
    log.progress("sweep", 0.2, 100)
    monkeypatch.setattr(json_log, "PROGRESS_SECONDS", 0.0)
    log.progress("sweep", 0.5, 100)
    log.progress("sweep", 1.0, 100)
    log.finished("sweep", StageCost(1.23456, 2048), "k = 3\nhas the highest silhouette")
    found = lines(stream.getvalue())
    assert [line["attributes"] for line in found] == [
        {"event": "stage.started", "stage": "sweep"},
        {"event": "stage.progress", "stage": "sweep", "fraction": 0.5, "rows": 100},
        {
            "event": "stage.finished", "stage": "sweep", "fraction": 1.0, "seconds": 1.2346,
            "peak_bytes": 2048,
        },
    ]  # fmt: skip
    assert {line["severity_text"]: line["severity_number"] for line in found} == {"INFO": 9}


def test_numbers_that_json_does_not_know_and_secrets_stay_out():
    stream = io.StringIO()
    JsonLog(stream).write("WARN", "postgresql://ann:pw@host/db is slow", share=float("nan"), n=None)
    [line] = lines(stream.getvalue())
    assert line["attributes"] == {"share": None}
    assert line["body"] == "postgresql://ann:***@host/db is slow"


def test_what_libraries_log_comes_too():
    stream = io.StringIO()
    handler = JsonHandler(JsonLog(stream))
    try:
        raise ValueError("inner")
    except ValueError:
        record = logging.LogRecord(
            "lib", logging.ERROR, "f", 1, "it %s", ("broke",), sys.exc_info()
        )
    handler.emit(record)
    [line] = lines(stream.getvalue())
    assert (line["severity_text"], line["body"]) == ("ERROR", "it broke")
    assert "ValueError: inner" in line["attributes"]["exception.stacktrace"]


def gpuseg(folder, *arguments: str, **env: str):
    return subprocess.run(
        [sys.executable, "-m", "gpuseg", *arguments], cwd=folder, capture_output=True, text=True,
        check=False, env=os.environ | env,
    )  # fmt: skip


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(1)
    group = rng.integers(0, 2, 60)
    pl.DataFrame({"a": rng.normal(group * 9, 1), "secret": np.array(["Zanzibar", "Yerevan"])[group]}
    ).write_parquet(tmp_path / "t.parquet")  # fmt: skip
    return tmp_path


def test_a_run_writes_nothing_else(table):
    ran = gpuseg(
        table, "run", "--input-table", "t.parquet", "--max-clusters", "2", "--model-name", "m",
        "--json", "--log-format", "json", "--metrics-file", "m.prom", "--debug",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = lines(ran.stderr)
    stages = [f["attributes"].get("stage") for f in found]
    assert {"read", "prepare", "sweep", "explain", "publish"} <= set(stages)
    summary = json.loads(ran.stdout)["summary"]
    assert summary.startswith("m: 2 segments of 60 rows, silhouette 0.")
    for text in (ran.stderr, (table / "m.prom").read_text(), summary):
        assert "Zanzibar" not in text
        assert "Yerevan" not in text


@pytest.mark.parametrize("how", ["option", "environment", "file"])
def test_errors_are_lines_too(table, how):
    (table / "c.yml").write_text("log_format: json\n")
    options = {
        "option": (("--log-format", "json"), {}),
        "environment": ((), {"GPUSEG_LOG_FORMAT": "json"}),
        "file": (("--config", "c.yml"), {}),
    }
    arguments, env = options[how]
    ran = gpuseg(
        table, "run", "--input-table", "away.parquet", "--metrics-file", "m.prom", *arguments, **env
    )
    assert ran.returncode == 2
    *before, line = lines(ran.stderr)
    assert [found["severity_text"] for found in before] == ["INFO"], "reading began"
    assert line["severity_text"] == "ERROR"
    assert line["attributes"] == {"event": "failed", "exit_code": 2}
    assert line["body"].startswith("there is no file 'away.parquet'")
    assert 'gpuseg_run_exit_code{model="away"} 2.0' in (table / "m.prom").read_text()
