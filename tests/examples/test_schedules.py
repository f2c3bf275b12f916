"""The examples of schedules are what their programs read."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from gpuseg.cli.jobs import WATCH_PARAMETERS

SCHEDULES = Path(__file__).parents[2] / "examples" / "schedules"
RUN = "gpuseg run --config /etc/gpuseg/clustering.dig"


def text(name: str) -> str:
    return (SCHEDULES / name).read_text(encoding="utf-8")


def test_each_runs_the_same_job():
    plain = {"crontab", "gpuseg.service"}
    assert all(RUN in text(name) for name in plain)
    assert '"gpuseg", "run", "--config", "/etc/gpuseg/clustering.dig"' in text("airflow_dag.py")
    assert "[gpuseg, run, --config, /etc/gpuseg/clustering.dig" in text("kubernetes_cronjob.yml")


def test_the_crontab_has_times_and_a_command_that_bash_reads(tmp_path):
    lines = [line for line in text("crontab").splitlines() if line and line[0] != "#"]
    [job] = [line for line in lines if "=" not in line.split()[0]]
    *times, command = job.split(None, 5)
    assert times == ["30", "4", "*", "*", "*"]
    assert "%" not in command  # cron would end the line there
    checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("codes", "expected"), [([0], 0), ([4, 0], 0), ([4, 4], 4), ([2], 2)])
def test_the_crontab_tries_again_after_a_failed_service_only(tmp_path, codes, expected):
    """Run the very command, with a gpuseg that ends as told and a sleep that does not wait."""
    command = text("crontab").splitlines()[-1].split(None, 5)[5]
    command = command.replace("/var/lib/gpuseg", str(tmp_path)).replace("/etc", str(tmp_path))
    command = command.replace("/opt/gpuseg/bin", str(tmp_path)).replace("sleep 1800", "true")
    (tmp_path / "gpuseg.d").mkdir()
    command = command.replace(f"{tmp_path}/gpuseg/td.env", str(tmp_path / "td.env"))
    (tmp_path / "td.env").write_text("TD_API_KEY=1/x\n")
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    program = tmp_path / "gpuseg"
    program.write_text(
        "#!/bin/bash\n"
        '[ "$TD_API_KEY" = 1/x ] || exit 99\n'
        f"code=$(head -1 {tmp_path}/codes); sed -i 1d {tmp_path}/codes; exit $code\n"
    )
    program.chmod(0o755)
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, check=False)
    assert (ran.returncode == 0) == (expected == 0)
    assert (tmp_path / "codes").read_text() == ""


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_systemd_reads_its_units(tmp_path):
    service = text("gpuseg.service").replace("/opt/gpuseg/bin/gpuseg", shutil.which("true"))
    (tmp_path / "gpuseg.service").write_text(service.replace("User=gpuseg\n", ""))
    (tmp_path / "gpuseg.timer").write_text(text("gpuseg.timer"))
    watch = text("gpuseg-watch.service").replace("/opt/gpuseg/bin/gpuseg", shutil.which("true"))
    (tmp_path / "gpuseg-watch.service").write_text(watch.replace("User=gpuseg\n", ""))
    names = ("gpuseg.service", "gpuseg.timer", "gpuseg-watch.service")
    units = [str(tmp_path / name) for name in names]
    ran = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    own = [line for line in ran.stderr.splitlines() if str(tmp_path) in line]
    assert own == []
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", "*-*-* 04:30:00"], capture_output=True, check=False
    )
    assert calendar.returncode == 0


def test_the_cron_job_has_what_kubernetes_needs():
    job = yaml.safe_load(text("kubernetes_cronjob.yml"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    spec = job["spec"]
    assert spec["schedule"].split() == ["30", "4", "*", "*", "*"]
    assert spec["concurrencyPolicy"] == "Forbid"
    work = spec["jobTemplate"]["spec"]
    [rule] = work["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert 4 not in rule["onExitCodes"]["values"]
    pod = work["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    [container] = pod["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    [key] = [entry for entry in container["env"] if entry["name"] == "TD_API_KEY"]
    assert "secretKeyRef" in key["valueFrom"]


def watching() -> list[list[str]]:
    """Return the arguments after ``gpuseg watch`` of each example."""
    line = re.search(
        r"^ExecStart=\S+/gpuseg watch (.*)$", text("gpuseg-watch.service"), re.MULTILINE
    )
    deployment = yaml.safe_load(text("kubernetes_watch.yml"))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][:2] == ["gpuseg", "watch"]
    return [re.sub(r"(--\S+) (?!--)", r"\1=", line[1]).split(), container["args"][2:]]


def test_watches_are_told_what_the_command_knows():
    unit, deployment = watching()
    assert sorted(unit) == sorted(deployment)
    options = {argument.partition("=")[0] for argument in unit}
    known = {f"--{name.replace('_', '-')}" for name in WATCH_PARAMETERS} | {"--interval"}
    assert options <= known
    assert "SuccessExitStatus=130" in text("gpuseg-watch.service")


def test_the_deployment_lets_a_round_end_and_keeps_its_secret_apart():
    spec = yaml.safe_load(text("kubernetes_watch.yml"))["spec"]
    pod = spec["template"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    [container] = pod["containers"]
    [password] = [entry for entry in container["env"] if entry["name"] == "PGPASSWORD"]
    assert "secretKeyRef" in password["valueFrom"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def dag(monkeypatch, returncode: int):
    """Load the DAG with a stand-in for Airflow, and return its task."""
    found: dict = {}

    def decorated(**_options):
        def keep(function):
            found[function.__name__] = function
            return function

        return keep

    decorators = types.SimpleNamespace(dag=decorated, task=decorated)
    errors = types.SimpleNamespace(
        AirflowException=type("AirflowException", (Exception,), {}),
        AirflowFailException=type("AirflowFailException", (Exception,), {}),
    )
    monkeypatch.setitem(sys.modules, "airflow", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "airflow.decorators", decorators)
    monkeypatch.setitem(sys.modules, "airflow.exceptions", errors)
    ended = types.SimpleNamespace(returncode=returncode, stdout="{}", stderr="why")
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: ended)
    return found, errors


@pytest.mark.parametrize(
    ("code", "error"), [(0, None), (4, "AirflowException"), (2, "AirflowFailException")]
)
def test_airflow_tries_again_after_a_failed_service_only(monkeypatch, code, error):
    source = text("airflow_dag.py")
    ast.parse(source)
    _found, errors = dag(monkeypatch, code)
    run = compile(source, "airflow_dag.py", "exec")
    if error is None:
        exec(run, {})
        return
    with pytest.raises(getattr(errors, error), match="why"):
        exec(run, {})
