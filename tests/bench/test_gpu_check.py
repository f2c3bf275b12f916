"""``make gpu-check`` goes on after a failure, and says what it did; tried without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"

sys.path.insert(0, str(BENCH))
try:
    import gpu_check
finally:
    sys.path.remove(str(BENCH))


def fails() -> str:
    raise gpu_check.StepFailedError("wrong")


def skips() -> str:
    raise gpu_check.StepSkippedError("no tool")


def test_later_steps_run_after_one_that_failed(capsys):
    chosen = [("a", lambda: "fine"), ("b", fails), ("c", skips), ("d", lambda: "fine too")]
    outcomes = gpu_check.run_steps(chosen)
    assert [(o.name, o.state, o.detail) for o in outcomes] == [
        ("a", "passed", "fine"),
        ("b", "failed", "wrong"),
        ("c", "skipped", "no tool"),
        ("d", "passed", "fine too"),
    ]
    table = gpu_check.summary(outcomes).splitlines()
    assert table[1].split() == ["failed", "b", "0.0", "s", "wrong"]
    assert table[-1] == "2 passed, 1 failed, 1 skipped"
    assert "== d" in capsys.readouterr().out


def test_steps_cover_what_only_a_gpu_can_check():
    assert [name for name, _ in gpu_check.steps(quick=True)] == [
        "doctor", "library API", "GPU tests", "sanitizer memcheck", "sanitizer racecheck",
        "sanitizer synccheck", "run like NumPy", "benchmark",
    ]  # fmt: skip


@pytest.mark.parametrize("shown", [False, True])
def test_a_command_that_fails_is_a_failed_step_with_its_last_line(shown, capfd):
    text = "print('begin'); import sys; sys.exit('it went wrong')"
    with pytest.raises(gpu_check.StepFailedError, match="exit code 1: it went wrong"):
        gpu_check.output(sys.executable, "-c", text, shown=shown)
    assert "begin" in capfd.readouterr().out


def test_output_and_environment_of_a_command():
    text = "import os; print(os.environ['GPUSEG_TEST']); print('======= 3 passed =======')"
    found = gpu_check.output(sys.executable, "-c", text, GPUSEG_TEST="here")
    assert found.startswith("here\n")
    assert gpu_check.last_line(found) == "3 passed"
    assert gpu_check.last_line("") == ""


def without_gpu(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("options", [(), ("--only-driver",), ("--quick",)])
def test_without_a_gpu_it_ends_at_once(tmp_path, options):
    ran = subprocess.run(
        [sys.executable, str(BENCH / "gpu_check.py"), *options],
        capture_output=True,
        text=True,
        check=False,
        env=without_gpu(tmp_path),
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("gpu-check needs a GPU: ")
    assert ran.stderr.count("\n") == 1


def test_the_engines_are_not_compared_when_the_gpu_cannot_run(tmp_path, monkeypatch):
    for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, without_gpu(tmp_path)[name])
    monkeypatch.syspath_prepend(str(BENCH))
    ((_, state, _, detail),) = gpu_check.run_steps([("e", gpu_check.compare_engines)])
    assert state == "failed"
    assert detail.startswith("exit code 2: gpuseg: the GPU backend was asked for, but")


def test_the_doctor_step_fails_where_numpy_would_run(tmp_path, monkeypatch):
    for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, without_gpu(tmp_path)[name])
    with pytest.raises(gpu_check.StepFailedError, match=r"numpy \(auto: "):
        gpu_check.check_doctor()


def test_results_are_named_after_the_device():
    detail = "NVIDIA H100 80GB HBM3, compute capability 9.0, the first of 8"
    assert gpu_check.results_name(detail, quick=False) == "gpu-nvidia-h100-80gb-hbm3.json"
    assert gpu_check.results_name(detail, quick=True) == "gpu-nvidia-h100-80gb-hbm3-quick.json"
