"""Everything that can only be checked on a GPU, one step after another.

    make gpu-check               in an environment that it makes itself
    make gpu-check QUICK=1       with small benchmarks
    python bench/gpu_check.py    in an environment that has gpuseg[dev] and the libraries

A failed step does not keep the next from running. The summary says which passed; the exit
code is 0 if none failed, 1 if one did, 2 at once where there is no GPU to use.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpuseg.backends.gpu_checks import gpu_checks, installed_version

HERE = Path(__file__).parent
ROOT = HERE.parent
EXAMPLE = ROOT / "examples" / "gluon_train.parquet"

#: What the driver must show before anything is installed.
DRIVER_CHECKS = ("driver", "device")

#: Tools of NVIDIA's compute-sanitizer: accesses outside arrays, races in shared memory,
#: barriers that not all threads reach.
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck")
SANITIZER_EXIT_CODE = 9


class StepFailedError(Exception):
    """A step did not pass: why, in one line."""


class StepSkippedError(Exception):
    """A step could not be tried here: why, in one line."""


class Outcome(NamedTuple):
    """What became of a step."""

    name: str
    state: str  # passed | failed | skipped
    seconds: float
    detail: str


Step = tuple[str, Callable[[], str]]


# -- the steps -----------------------------------------------------------------------


def check_doctor() -> str:
    """Ask the doctor: the GPU engine would run, and computes what it should."""
    # an ill engine is told by exit code 1, with the same JSON
    ran = output(sys.executable, "-m", "gpuseg", "doctor", "--json", accepted=(0, 1))
    found = json.loads(ran)
    failed = [check["name"] for check in found["checks"] if not check["passed"]]
    if found["backend"] != "gpu" or failed:
        raise StepFailedError(f"{found['backend']} ({found['backend_reason']}) {failed or ''}")
    return str(found["backend_reason"])


def check_api() -> str:
    """Hold gpuseg's calls against the libraries that are installed here."""
    if installed_version("cuml-cu13") is None:
        raise StepSkippedError("the libraries are not those of the extra cuda13")
    return last_line(output(sys.executable, "-m", "gpu_api.snapshot", "--check"))


def run_tests() -> str:
    """Run what is marked gpu; a missing GPU fails instead of skipping."""
    return last_line(output(*pytest("-m", "gpu"), GPUSEG_REQUIRE_GPU="1", shown=True))


def sanitize(tool: str) -> str:
    """Run the kernels' own tests under a tool of compute-sanitizer."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise StepSkippedError("compute-sanitizer is not installed (it is part of CUDA's toolkit)")
    options = ("--tool", tool, "--error-exitcode", str(SANITIZER_EXIT_CODE))
    tests = pytest("-m", "gpu", "tests/kernels")
    ran = output(sanitizer, *options, "--target-processes", "all", *tests, GPUSEG_REQUIRE_GPU="1")
    return last_line(ran)


def measure(quick: bool) -> str:
    """Run the benchmark; its JSON goes to ``bench/results``."""
    out = HERE / "results" / results_name(device_detail(), quick)
    command = [sys.executable, str(HERE / "gpu.py"), "--out", str(out)]
    output(*command, *(["--quick"] if quick else []), shown=True)
    return str(out.relative_to(ROOT))


def compare_engines() -> str:
    """Segment the bundled table on both engines: same k, same segments, same schema."""
    from gpu import check_runs, run_command

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(EXAMPLE, folder / "people.parquet")
        for backend in ("gpu", "numpy"):
            output(*run_command(folder, "people", backend))
        try:
            agreement = check_runs(folder / "people-gpu", folder / "people-numpy")
        except SystemExit as stopped:
            raise StepFailedError(str(stopped)) from None
    return f"same k and schema, adjusted Rand index {agreement:.4f}"


def steps(quick: bool) -> list[Step]:
    """Return all steps in their order."""
    return [
        ("doctor", check_doctor),
        ("library API", check_api),
        ("GPU tests", run_tests),
        *((f"sanitizer {tool}", lambda tool=tool: sanitize(tool)) for tool in SANITIZER_TOOLS),
        ("run like NumPy", compare_engines),
        ("benchmark", lambda: measure(quick)),
    ]


# -- running them --------------------------------------------------------------------


def run_steps(chosen: Iterable[Step]) -> list[Outcome]:
    """Run every step, also after one that failed."""
    outcomes = []
    for name, step in chosen:
        print(f"\n== {name}", flush=True)
        begin = time.perf_counter()
        try:
            state, detail = "passed", step()
        except StepSkippedError as error:
            state, detail = "skipped", str(error)
        except (StepFailedError, OSError, ValueError) as error:
            state, detail = "failed", str(error)
        outcomes.append(Outcome(name, state, time.perf_counter() - begin, detail))
        print(f"{state}: {detail}", flush=True)
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the closing table."""
    lines = [f"{o.state:<8} {o.name:<20} {o.seconds:>8.1f} s  {o.detail}" for o in outcomes]
    count = {state: sum(o.state == state for o in outcomes) for state in ("passed", "failed")}
    skipped = len(outcomes) - sum(count.values())
    return "\n".join(
        [*lines, f"{count['passed']} passed, {count['failed']} failed, {skipped} skipped"]
    )


def output(
    *command: str, shown: bool = False, accepted: Sequence[int] = (0,), **environment: str
) -> str:
    """Return what a command prints, and with `shown` print it while it runs.

    Raises
    ------
    StepFailedError
        If it ends with another exit code than those accepted; with the line that says most.
    """
    # this checkout, whatever else is installed
    places = (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    errors = subprocess.STDOUT if shown else subprocess.PIPE
    kept: list[str] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    ) as process:
        if shown and process.stdout is not None:
            for line in process.stdout:
                print(line, end="", flush=True)
                kept.append(line)
        text, told = process.communicate()
    text = "".join(kept) or text
    if process.returncode not in accepted or (process.returncode and not text):
        if not shown:
            print(text, told, sep="", end="", flush=True)
        raise StepFailedError(f"exit code {process.returncode}: {reason(told or text)}")
    return text


def reason(text: str) -> str:
    """Return gpuseg's own message, or the last line, which in a traceback is the error."""
    ours = [line for line in text.splitlines() if line.startswith("gpuseg: ")]
    return ours[0] if ours else last_line(text)


def pytest(*arguments: str) -> tuple[str, ...]:
    # the libraries' own warnings are theirs; ours fail the ordinary tests
    return (sys.executable, "-m", "pytest", "-q", "-W", "default", *arguments)


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line for line in text.splitlines() if line.strip(" =")]
    return lines[-1].strip(" =") if lines else ""


def results_name(device: str, quick: bool) -> str:
    """Return the file of the results, named after the device.

    Examples
    --------
    >>> results_name("NVIDIA H100 80GB HBM3, compute capability 9.0", quick=False)
    'gpu-nvidia-h100-80gb-hbm3.json'
    """
    name = re.sub(r"[^a-z0-9]+", "-", device.partition(",")[0].lower()).strip("-")
    return f"gpu-{name}{'-quick' if quick else ''}.json"


def device_detail() -> str:
    return next(check.detail for check in gpu_checks() if check.name == "device")


def obstacle(only_driver: bool) -> str | None:
    """Say what keeps the GPU from being used; None if nothing does."""
    for check in gpu_checks():
        if not check.passed:
            return f"{check.detail}; {check.remedy}"
        if only_driver and check.name == DRIVER_CHECKS[-1]:
            return None
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small benchmarks")
    parser.add_argument("--only-driver", action="store_true", help="only say whether there is one")
    options = parser.parse_args()
    missing = obstacle(options.only_driver)
    if missing is not None:
        sys.stderr.write(f"gpu-check needs a GPU: {missing}\n")
        sys.exit(2)
    if options.only_driver:
        return
    outcomes = run_steps(steps(options.quick))
    print(f"\n{summary(outcomes)}")
    sys.exit(1 if any(outcome.state == "failed" for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
