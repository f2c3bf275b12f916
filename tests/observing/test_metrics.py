"""The metrics file: read by Prometheus' own parser, and by a grammar of our own."""

from __future__ import annotations

import importlib.util
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

from gpuseg.errors import DataError, GateRefusedError, SettingsError, SourceError
from gpuseg.observing.metrics import METRICS, Meter, measured
from gpuseg.records import StageCost

ODD = 'a\\b "c"\nd'
VALUE = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|Inf|NaN)"
LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
GRAMMAR = re.compile(
    rf"(?:# HELP [a-z_]+ [^\n]*|# TYPE [a-z_]+ gauge|[a-z_]+\{{{LABEL}(?:,{LABEL})*\}} {VALUE})"
)


def result(change=None, **stages: float):
    costs = {name: StageCost(seconds, 1_000_000) for name, seconds in stages.items()}
    return SimpleNamespace(
        labels=np.zeros(9768, np.int32), n_clusters=7, silhouette=0.1441, stages=costs,
        warnings=("one",), change=change,
    )  # fmt: skip


def parsed(path) -> dict[tuple[str, str | None], float]:
    """Read a file by the grammar: (metric, stage) -> value."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    found: dict[tuple[str, str | None], float] = {}
    announced: list[str] = []
    for line in text[:-1].split("\n"):
        assert GRAMMAR.fullmatch(line), line
        if line.startswith("# TYPE"):
            announced.append(line.split()[2])
        if line[0] != "#":
            name = line.partition("{")[0]
            assert announced[-1] == name, "figures of one metric stand together, after their type"
            stage = re.search(r'stage="(\w+)"', line)
            key = (name, stage[1] if stage else None)
            assert key not in found
            found[key] = float(line.rpartition(" ")[2])
    assert len(announced) == len(set(announced))
    return found


def by_prometheus(path) -> dict:
    if importlib.util.find_spec("prometheus_client") is None:
        pytest.skip("prometheus_client is not installed")
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    return {
        (s.name, s.labels.get("stage")): (s.value, s.labels) for f in families for s in f.samples
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gpuseg.prom"


def test_a_run_leaves_its_figures(path):
    change = SimpleNamespace(churn=0.032, max_psi=0.11)
    begin = time.time()
    with measured(str(path), lambda: "people") as meter:
        pass
    meter.done(result(change, read=0.5, sweep=3.25))
    found = parsed(path)
    assert found[("gpuseg_run_rows", None)] == 9768
    assert found[("gpuseg_run_n_clusters", None)] == 7
    assert found[("gpuseg_run_silhouette", None)] == 0.1441
    assert found[("gpuseg_run_churn", None)] == 0.032
    assert found[("gpuseg_run_max_psi", None)] == 0.11
    assert found[("gpuseg_run_seconds", "sweep")] == 3.25
    assert found[("gpuseg_run_peak_bytes", None)] == 1_000_000
    assert found[("gpuseg_run_exit_code", None)] == 0
    assert (
        begin - 1 <= found[("gpuseg_run_last_success_timestamp_seconds", None)] <= time.time() + 1
    )
    assert [p.name for p in path.parent.iterdir()] == ["gpuseg.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_prometheus_reads_the_same(path):
    Meter(str(path), ODD).done(result(read=0.5, sweep=3.25))
    theirs = by_prometheus(path)
    assert {key: value for key, (value, _labels) in theirs.items()} == parsed(path)
    assert {labels["model"] for _value, labels in theirs.values()} == {ODD}


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (GateRefusedError("churn"), 3, "refused"),
        (SourceError("down"), 4, "failure"),
        (DataError("bad"), 2, "failure"),
        (KeyboardInterrupt(), 130, "failure"),
        (MemoryError(), 4, "failure"),
        (ZeroDivisionError(), 1, "failure"),
    ],
)
def test_a_run_that_fails_keeps_the_figures_of_the_last_one(path, error, code, what):
    Meter(str(path), ODD).done(result(read=0.5))
    before = parsed(path)
    with pytest.raises(type(error)), measured(str(path), lambda: ODD):
        raise error
    after = parsed(path)
    moment = f"gpuseg_run_last_{what}_timestamp_seconds"
    assert after.pop((moment, None)) > 1e9
    assert after.pop(("gpuseg_run_exit_code", None)) == code
    assert before.pop(("gpuseg_run_exit_code", None)) == 0
    assert after == before
    Meter(str(path), ODD).done(result(read=0.5))
    assert (moment, None) in parsed(path), "when it last failed is still known"


def test_what_is_no_longer_so_does_not_stay(path):
    Meter(str(path), "m").done(result(SimpleNamespace(churn=0.1, max_psi=None), explain=1.0))
    assert ("gpuseg_run_max_psi", None) not in parsed(path)
    Meter(str(path), "m").done(result(read=0.5))
    found = parsed(path)
    assert ("gpuseg_run_churn", None) not in found
    assert ("gpuseg_run_seconds", "explain") not in found


def test_figures_of_another_model_and_damage_are_left_behind(path):
    Meter(str(path), "m2").done(result())
    Meter(str(path), "m").failed(4)
    assert "m2" not in path.read_text()
    path.write_bytes(b"\xff\x00 nonsense{")
    Meter(str(path), "m").failed(4)
    assert parsed(path)[("gpuseg_run_exit_code", None)] == 4


def test_a_place_that_cannot_be_is_refused_before_the_run(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere" / "x.prom"):
        with pytest.raises(SettingsError, match="metrics_file"):
            Meter(str(place), "m")


def test_a_full_disk_does_not_fail_the_run(path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpuseg.observing.metrics.replace_file", full)
    meter = Meter(str(path), "m")
    meter.done(result())
    assert meter.problems == (f"metrics_file '{path}' was not written: No space left on device",)


def test_every_metric_is_said_to_be_something():
    assert all(name.startswith("gpuseg_run_") and text for name, text in METRICS.items())
