"""Choosing an engine: every obstacle on the way to a GPU is named, with what to do.

The driver is a small shared library loaded as the real one is, the GPU libraries are
folders on the path. Each case is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kernels.cuda_on_host import require_gxx

HERE = Path(__file__).parent

CHECKS = """
import json
from gpuseg.backends.gpu_checks import gpu_checks
print(json.dumps([check._asdict() for check in gpu_checks()]))
"""

SELECT = """
import sys
from gpuseg.backends.select import select_backend
from gpuseg.errors import BackendUnavailableError
try:
    engine = select_backend(sys.argv[1])
    print(engine.backend.name, engine.reason, sep=": ")
except BackendUnavailableError as error:
    print(error.exit_code, error, sep=": ")
print([name for name in ("cupy", "cuml", "cudf", "rmm") if name in sys.modules])
"""

LIBRARIES = {"cupy-cuda13x": "14.2.0", "cuml-cu13": "26.10.0", "cudf-cu13": "26.10.2"}
ORDER = ["driver", "device", "CuPy", "RAPIDS", "CUDA version", "memory", "kernel"]

#: A CuPy that does what FAKE_CUPY says, and libraries that nobody may import.
CUPY = """
import os
from types import SimpleNamespace
import numpy

how = os.environ.get("FAKE_CUPY", "works")
if how == "import fails":
    raise ImportError("libcublas.so.13: cannot open\\nand a long story")

class CompileException(Exception): ...
class Pool:
    def free_all_blocks(self): print("freed", file=__import__("sys").stderr)

def get_default_memory_pool(): return Pool()

def Device():
    limits = ("MultiProcessorCount", "MaxSharedMemoryPerBlockOptin",
              "MaxSharedMemoryPerMultiprocessor")
    return SimpleNamespace(id=0, attributes=dict.fromkeys(limits, 65536))

compiler = SimpleNamespace(CompileException=CompileException)
cuda = SimpleNamespace(compiler=compiler, Device=Device)
int32, ndarray, arange, asnumpy = numpy.int32, numpy.ndarray, numpy.arange, numpy.asarray

class ElementwiseKernel:
    def __init__(self, in_params, out_params, operation, name): ...
    def __call__(self, x):
        if how == "launch fails": raise RuntimeError("cudaErrorNoKernelImageForDevice: no image")
        if how == "does not compile": raise CompileException("nvrtc: error")
        if how == "memory": raise MemoryError("out of memory")
        return x * (3 if how == "computes wrongly" else 2)
"""
FORBIDDEN = "raise SystemExit('imported only to find out')"


@pytest.fixture(scope="session")
def driver(tmp_path_factory) -> Path:
    """Return the folder with the driver's library."""
    folder = tmp_path_factory.mktemp("driver")
    command = [require_gxx(), "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(HERE / "fake_libcuda.cpp")], check=True)
    return folder


@pytest.fixture
def site(tmp_path) -> Path:
    """Return a folder with the packages, without their metadata."""
    for name, text in (("cupy", CUPY), ("cuml", FORBIDDEN), ("cudf", FORBIDDEN)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    return tmp_path


def install(site: Path, libraries: dict[str, str]) -> None:
    for name, version in libraries.items():
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)


def run(site: Path, driver: Path | None, *command: str, **environment: object):
    path = {"LD_LIBRARY_PATH": str(driver)} if driver else {}
    fakes = {name: str(value) for name, value in environment.items()}
    clean = {n: v for n, v in os.environ.items() if n not in ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")}
    root = str(HERE.parents[1])
    return subprocess.run(
        [sys.executable, *command],
        env=clean | path | {"PYTHONPATH": os.pathsep.join((str(site), root))} | fakes,
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )


def checks(site: Path, driver: Path | None, **environment: object) -> dict[str, dict]:
    ran = run(site, driver, "-c", CHECKS, **environment)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [check["name"] for check in found] == ORDER
    return {check["name"]: check for check in found}


def failing(found: dict[str, dict]) -> dict:
    return next(check for check in found.values() if not check["passed"])


def test_everything_is_there(site, driver):
    install(site, LIBRARIES)
    found = checks(site, driver)
    assert all(check["passed"] for check in found.values()), found
    assert found["driver"]["detail"] == "the driver supports CUDA 13.0"
    assert found["device"]["detail"] == "Fake GPU, compute capability 9.0"
    assert found["CuPy"]["detail"] == "cupy-cuda13x 14.2.0"
    assert found["RAPIDS"]["detail"] == "cuml-cu13 26.10.0, cudf-cu13 26.10.2"
    assert found["memory"]["detail"] == "70.0 of 80.0 GiB free"


@pytest.mark.parametrize(
    ("environment", "name", "detail", "remedy"),
    [
        ({"FAKE_CUDA_VERSION": 11080}, "driver", "supports CUDA 11.8", "update"),
        ({"FAKE_CUDA_VERSION_CODE": 34}, "driver", "does not work", "nvidia-smi"),
        ({"FAKE_CUDA_INIT": 100}, "device", "sees no GPU", "nvidia-smi"),
        ({"FAKE_CUDA_COUNT": 0}, "device", "sees no GPU", "nvidia-smi"),
        (
            {"FAKE_CUDA_INIT": 100, "CUDA_VISIBLE_DEVICES": "-1"},
            "device",
            "CUDA_VISIBLE_DEVICES is '-1'",
            "unset CUDA_VISIBLE_DEVICES",
        ),
        ({"FAKE_CUDA_INIT": 803}, "device", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)", "restart"),
        ({"FAKE_CUDA_INIT": 999}, "device", "cuInit failed with error 999", "nvidia-smi"),
        ({"FAKE_CUDA_CAPABILITY": 70}, "device", "compute capability 7.0; 7.5 or newer", "another"),
        (
            {"FAKE_CUDA_CAPABILITY": 61, "FAKE_CUDA_COUNT": 3},
            "device",
            "6.1, the first of 3",
            "CUDA_VISIBLE_DEVICES",
        ),
        ({"FAKE_CUDA_VERSION": 12090}, "CUDA version", "for CUDA 13, the driver", "extra cuda12"),
        ({"FAKE_CUDA_FREE_MIB": 1023}, "memory", "only 1,023 MiB", "nvidia-smi lists"),
        ({"FAKE_CUDA_CONTEXT": 2}, "memory", "CUDA_ERROR_OUT_OF_MEMORY (2)", "another process"),
        ({"FAKE_CUDA_MEMORY": 2}, "memory", "cuMemGetInfo_v2 failed", "another process"),
        ({"FAKE_CUPY": "import fails"}, "kernel", "ImportError: libcublas.so.13: cannot", "config"),
        ({"FAKE_CUPY": "launch fails"}, "kernel", "RuntimeError: cudaErrorNoKernel", "config"),
        ({"FAKE_CUPY": "does not compile"}, "kernel", "CompileException: nvrtc", "config"),
        ({"FAKE_CUPY": "memory"}, "kernel", "MemoryError: out of memory", "config"),
        ({"FAKE_CUPY": "computes wrongly"}, "kernel", "[0, 3, 6, 9]", "nvidia-smi"),
    ],
)
def test_what_machine_or_driver_lack(site, driver, environment, name, detail, remedy):
    install(site, LIBRARIES)
    found = checks(site, driver, **environment)
    assert failing(found)["name"] == name
    assert detail in found[name]["detail"]
    assert remedy in found[name]["remedy"]
    # what does not depend on it was looked at all the same
    assert found["CuPy"]["passed"]
    assert found["RAPIDS"]["passed"]
    assert found["kernel"]["passed"] is (False if name == "kernel" else None)


@pytest.mark.parametrize("capability", [75, 80, 120])
def test_newer_devices_are_taken(site, driver, capability):
    assert checks(site, driver, FAKE_CUDA_CAPABILITY=capability)["device"]["passed"]


@pytest.mark.parametrize(
    ("change", "name", "detail", "remedy"),
    [
        ({"cupy-cuda13x": None}, "CuPy", "CuPy is not installed", "extra cuda13"),
        (
            {"cupy-cuda12x": "14.2.0"},
            "CuPy",
            "cupy-cuda13x and cupy-cuda12x are both installed and overwrite each other",
            "uninstall all",
        ),
        ({"cupy": "14.2.0"}, "CuPy", "cupy and cupy-cuda13x are both", "uninstall all"),
        ({"cupy-cuda13x": "13.6.0"}, "CuPy", "13.6.0 is not supported: 14.0.1 or newer", "extra"),
        ({"cupy-cuda13x": "14.1.0"}, "CuPy", "14.1.0 is broken", "another release"),
        ({"cuml-cu13": None}, "RAPIDS", "cuml is not installed", "extra cuda13"),
        ({"cudf-cu13": None}, "RAPIDS", "cudf is not installed", "extra cuda13"),
        ({"cudf-cu13": "0.0.0a0"}, "RAPIDS", "cudf is not installed", "extra cuda13"),
        ({"cuml-cu13": "26.06.0"}, "RAPIDS", "26.06.0 is not supported: 26.8 or newer", "extra"),
        ({"cuml-cu13": "27.02.0"}, "RAPIDS", "before 27 is", "extra cuda13"),
        (
            {"cuml-cu13": None, "cuml-cu12": "26.10.0"},
            "RAPIDS",
            "cuml-cu12 is built for CUDA 12, CuPy for 13",
            "uninstall one",
        ),
    ],
)
def test_what_the_libraries_lack(site, driver, change, name, detail, remedy):
    install(site, {n: v for n, v in (LIBRARIES | change).items() if v is not None})
    found = checks(site, driver)
    assert failing(found)["name"] == name
    assert detail in found[name]["detail"]
    assert remedy in found[name]["remedy"]


def test_the_placeholder_beside_the_right_build_does_no_harm(site, driver):
    install(site, LIBRARIES | {"cudf-cu12": "0.0.0a0"})
    assert all(check["passed"] for check in checks(site, driver).values())


def test_libraries_for_cuda_12_run_with_an_old_and_a_new_driver(site, driver):
    install(site, {"cupy-cuda12x": "14.0.1", "cuml-cu12": "26.08.0", "cudf-cu12": "26.8.0"})
    for version in (12040, 13010):
        found = checks(site, driver, FAKE_CUDA_VERSION=version)
        assert all(check["passed"] for check in found.values()), found


def test_conda_packages_have_no_suffix(site, driver):
    install(site, {"cupy": "14.2.0", "cuml": "26.10.0", "cudf": "26.10.0"})
    assert all(check["passed"] for check in checks(site, driver).values())
    install(site, {"cuda-bindings": "13.0.3"})
    found = checks(site, driver, FAKE_CUDA_VERSION=12090)
    assert failing(found)["detail"].startswith("cupy is built for CUDA 13")


def test_a_library_that_is_no_driver(site, tmp_path):
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    command = [require_gxx(), "-shared", "-fPIC", "-x", "c++", "/dev/null"]
    subprocess.run([*command, "-o", str(empty / "libcuda.so.1")], check=True)
    found = checks(site, empty)
    assert "no such function" in found["driver"]["detail"]
    (empty / "libcuda.so.1").write_text("not a library")
    assert "cannot be loaded" in checks(site, empty)["driver"]["detail"]


def test_what_an_earlier_run_left_in_the_pool_counts_as_free(site, driver):
    install(site, LIBRARIES)
    ran = run(site, driver, "-c", f"import cupy\n{CHECKS}")
    assert ran.stderr == "freed\n"
    assert run(site, driver, "-c", CHECKS).stderr == ""


# -- choosing ------------------------------------------------------------------------


def select(site: Path, driver: Path | None, asked: str, **environment: object) -> list[str]:
    ran = run(site, driver, "-c", SELECT, asked, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_without_a_driver_auto_is_numpy_and_says_why(site):
    install(site, LIBRARIES)
    engine, imported = select(site, None, "auto")
    assert engine == ("numpy: auto: no NVIDIA driver was found (libcuda.so.1 cannot be loaded)")
    assert imported == "[]"


@pytest.mark.parametrize(
    ("environment", "obstacle"),
    [({"FAKE_CUDA_INIT": 100}, "sees no GPU"), ({"FAKE_CUDA_FREE_MIB": 9}, "only 9 MiB")],
)
def test_gpu_never_falls_back(site, driver, environment, obstacle):
    install(site, LIBRARIES)
    engine, imported = select(site, driver, "auto", **environment)
    assert engine.startswith("numpy: auto: ")
    assert obstacle in engine
    refusal, _ = select(site, driver, "gpu", **environment)
    assert refusal.startswith("2: the GPU backend was asked for, but ")
    assert obstacle in refusal
    assert "nvidia-smi" in refusal
    assert refusal.endswith("or use --backend auto or numpy")
    assert imported == "[]"


@pytest.mark.parametrize("asked", ["auto", "gpu"])
def test_a_gpu_that_works_is_taken(site, driver, asked):
    pytest.importorskip("gpuseg.backends.gpu")
    install(site, LIBRARIES)
    engine, imported = select(site, driver, asked)
    how = {"auto": "auto", "gpu": "asked for"}[asked]
    assert engine == (
        f"gpu: {how}: Fake GPU, compute capability 9.0, 70.0 of 80.0 GiB free, "
        "cupy-cuda13x 14.2.0, cuml-cu13 26.10.0, cudf-cu13 26.10.2"
    )
    assert imported == "['cupy']"


def test_numpy_is_taken_where_it_is_asked_for(site, driver):
    install(site, LIBRARIES)
    assert select(site, driver, "numpy") == ["numpy: asked for", "[]"]


def test_looking_takes_milliseconds():
    from gpuseg.backends.select import select_backend

    begin = time.perf_counter()
    for _ in range(10):
        select_backend("auto")
    assert time.perf_counter() - begin < 0.5


# -- the doctor, and the command line ------------------------------------------------


def test_the_doctor_names_the_first_obstacle_and_stays_healthy(site, driver):
    install(site, {"cupy-cuda13x": "14.2.0", "cupy-cuda12x": "14.2.0"})
    ran = run(site, driver, "-m", "gpuseg", "doctor", "--json")
    found = json.loads(ran.stdout)
    assert (ran.returncode, found["healthy"], found["backend"]) == (0, True, "numpy")
    assert found["gpu_obstacle"]["name"] == "CuPy"
    assert [check["passed"] for check in found["gpu"]] == [
        True, True, False, False, None, True, None,
    ]  # fmt: skip
    text = run(site, driver, "-m", "gpuseg", "doctor").stdout
    assert "no   CuPy: cupy-cuda13x and cupy-cuda12x are both installed" in text
    assert "to use the GPU: uninstall all of them" in text


def test_asking_for_the_gpu_in_vain_ends_with_2(site, driver):
    install(site, LIBRARIES)
    (site / "t.csv").write_text("a,b\n1,2\n")
    command = ("-m", "gpuseg", "run", "--input-table", "t.csv", "--backend", "gpu")
    ran = run(site, driver, *command, FAKE_CUDA_FREE_MIB=100)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "only 100 MiB of GPU memory are free" in ran.stderr
    assert "Traceback" not in ran.stderr
