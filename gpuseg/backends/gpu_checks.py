"""What the GPU engine needs, looked at in order, cheapest first.

The GPU libraries are looked up by their metadata: importing cuML alone takes ten seconds.
CuPy is imported by the last check only, when all others have passed.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gpuseg.backends.cuda_driver import DRIVER, NO_DEVICE, DeviceFacts, Driver, DriverCallError

#: Turing. Neither CUDA 13 nor RAPIDS for it has code for older devices.
MIN_CAPABILITY = (7, 5)

#: The context and the libraries' own kernels and workspaces take some hundred MiB before
#: the first row arrives (an estimate); with less than this a run would only fail later.
MIN_FREE_BYTES = 2**30

#: CUDA versions that the libraries are built for; pyproject.toml has an extra for each.
CUDA_MAJORS = (13, 12)

#: Supported releases, as pyproject.toml has them; a test compares.
CUPY_MIN, CUPY_BROKEN = (14, 0, 1), (14, 1, 0)
RAPIDS_MIN, RAPIDS_BEFORE = (26, 8), (27,)

#: CuPy under every name that installs a package called cupy.
CUPY_BUILDS = ("cupy", "cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x")

_INSTALL = "install gpuseg with the extra cuda{major}, or make the conda environment.yml"


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    passed: bool | None  # None: not looked at, because something before it failed
    detail: str
    remedy: str = ""


class Library(NamedTuple):
    """An installed distribution."""

    name: str
    version: str

    @property
    def cuda_major(self) -> int | None:
        """The CUDA that it is built for; None where nothing tells."""
        in_name = re.search(r"-cu(?:da)?(\d\d)x?$", self.name)
        if in_name:
            return int(in_name[1])
        # conda's packages have no suffix; these bindings come along for the same CUDA
        bindings = installed_version("cuda-bindings")
        return None if bindings is None else release(bindings)[0]


class _ObstacleError(Exception):
    """What keeps a check from passing, and what to do about it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.remedy = remedy


class _Machine:
    """What was found so far: each look may use what earlier ones left here."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.driver: Driver
        self.cuda: tuple[int, int] | None = None  # what the driver supports
        self.device: DeviceFacts
        self.cupy: Library | None = None


def gpu_checks(library: str = DRIVER) -> Iterator[Check]:
    """Yield one check after another; who needs only the first failure stops there.

    Parameters
    ----------
    library
        Name or path of the driver's library.
    """
    machine = _Machine(library)
    passed: set[str] = set()
    for name, needs, look in _LOOKS:
        missing = [need for need in needs if need not in passed]
        if missing:
            yield Check(name, None, f"not looked at, because of: {missing[0]}")
            continue
        try:
            detail = look(machine)
        except _ObstacleError as obstacle:
            yield Check(name, False, str(obstacle), obstacle.remedy)
        else:
            passed.add(name)
            yield Check(name, True, detail)


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, as far as they compare.

    Examples
    --------
    >>> release("26.10.00a38"), release("14.0.1")
    ((26, 10, 0), (14, 0, 1))
    """
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


# -- the looks, in order -------------------------------------------------------------


def _look_for_driver(machine: _Machine) -> str:
    try:
        machine.driver = Driver(machine.library)
    except OSError:
        raise _ObstacleError(
            f"no NVIDIA driver was found ({machine.library} cannot be loaded)",
            "install NVIDIA's driver, or run where there is a GPU (a container must be started "
            "with access to it)",
        ) from None
    try:
        machine.cuda = machine.driver.cuda_version()
    except DriverCallError as error:
        raise _ObstacleError(f"the driver does not work: {error}", _DRIVER_REMEDY) from None
    version = f"the driver supports CUDA {machine.cuda[0]}.{machine.cuda[1]}"
    if machine.cuda[0] < min(CUDA_MAJORS):
        raise _ObstacleError(
            f"{version}, the libraries need {min(CUDA_MAJORS)}", "update NVIDIA's driver"
        )
    return version


_DRIVER_REMEDY = "nvidia-smi shows what the driver says; after an update, restart the machine"


def _look_for_device(machine: _Machine) -> str:
    try:
        machine.driver.start()
        count = machine.driver.device_count()
        if count:
            machine.device = machine.driver.device(0)
    except DriverCallError as error:
        if error.code != NO_DEVICE:
            raise _ObstacleError(f"the driver does not work: {error}", _DRIVER_REMEDY) from None
        count = 0
    if not count:
        raise _no_device()
    name, capability = machine.device
    text = f"{name}, compute capability {capability[0]}.{capability[1]}"
    others = f", the first of {count}" if count > 1 else ""
    if capability < MIN_CAPABILITY:
        raise _ObstacleError(
            f"the GPU is too old: {text}{others}; {MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} or "
            "newer is needed",
            "choose another GPU with CUDA_VISIBLE_DEVICES, if there is one",
        )
    return text + others


def _no_device() -> _ObstacleError:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return _ObstacleError(
            f"the driver shows no GPU: CUDA_VISIBLE_DEVICES is {visible!r}",
            "unset CUDA_VISIBLE_DEVICES, or set it to the number of a GPU",
        )
    return _ObstacleError("the driver sees no GPU", _DRIVER_REMEDY)


def _look_for_cupy(machine: _Machine) -> str:
    builds = [
        Library(name, version)
        for name in CUPY_BUILDS
        if (version := installed_version(name)) is not None
    ]
    if not builds:
        raise _ObstacleError("CuPy is not installed", _install(machine))
    if len(builds) > 1:
        names = " and ".join(library.name for library in builds)
        raise _ObstacleError(
            f"{names} are both installed and overwrite each other",
            f"uninstall all of them, then {_install(machine)}",
        )
    build = machine.cupy = builds[0]
    _check_release(build, CUPY_MIN, None, machine)
    if release(build.version) == CUPY_BROKEN:
        raise _ObstacleError(f"{build.name} {build.version} is broken", "install another release")
    return f"{build.name} {build.version}"


def _look_for_rapids(machine: _Machine) -> str:
    major = machine.cupy.cuda_major if machine.cupy else None
    found = []
    for name in ("cuml", "cudf"):
        candidates = (name, *(f"{name}-cu{number}" for number in CUDA_MAJORS))
        builds = [Library(c, v) for c in candidates if (v := installed_version(c)) is not None]
        # asked for both CUDAs, a resolver picks an empty placeholder for one of them
        builds = [library for library in builds if release(library.version) > (0, 0, 0)]
        if not builds:
            raise _ObstacleError(f"{name} is not installed", _install(machine))
        fitting = [b for b in builds if None in (major, b.cuda_major) or b.cuda_major == major]
        if not fitting:
            raise _ObstacleError(
                f"{builds[0].name} is built for CUDA {builds[0].cuda_major}, CuPy for {major}",
                f"uninstall one of them, then {_install(machine)}",
            )
        _check_release(fitting[0], RAPIDS_MIN, RAPIDS_BEFORE, machine)
        found.append(f"{fitting[0].name} {fitting[0].version}")
    return ", ".join(found)


def _check_release(
    library: Library, lowest: tuple[int, ...], before: tuple[int, ...] | None, machine: _Machine
) -> None:
    found = release(library.version)
    if found < lowest or (before is not None and found >= before):
        wanted = f"{'.'.join(map(str, lowest))} or newer"
        wanted += f", before {before[0]}" if before else ""
        raise _ObstacleError(
            f"{library.name} {library.version} is not supported: {wanted} is", _install(machine)
        )


def _install(machine: _Machine) -> str:
    """Say how to install the libraries, for the CUDA that the driver supports."""
    supported = machine.cuda[0] if machine.cuda else max(CUDA_MAJORS)
    return _INSTALL.format(major=max(m for m in CUDA_MAJORS if m <= max(supported, 12)))


def _compare_cuda(machine: _Machine) -> str:
    assert machine.cupy is not None
    assert machine.cuda is not None
    major = machine.cupy.cuda_major
    if major is not None and major > machine.cuda[0]:
        raise _ObstacleError(
            f"{machine.cupy.name} is built for CUDA {major}, the driver supports "
            f"{machine.cuda[0]}.{machine.cuda[1]} only",
            f"update NVIDIA's driver, or uninstall the libraries and {_install(machine)}",
        )
    return f"libraries for CUDA {major or 'as conda has it'}, driver for {machine.cuda[0]}"


def _look_at_memory(machine: _Machine) -> str:
    cupy = sys.modules.get("cupy")
    if cupy is not None:  # what an earlier run of this process left in the pool is free
        cupy.get_default_memory_pool().free_all_blocks()
    try:
        free, total = machine.driver.memory(0)
    except DriverCallError as error:
        raise _ObstacleError(
            f"the GPU cannot be used: {error}",
            "see with nvidia-smi whether another process holds it",
        ) from None
    if free < MIN_FREE_BYTES:
        raise _ObstacleError(
            f"only {free / 2**20:,.0f} MiB of GPU memory are free, "
            f"{MIN_FREE_BYTES / 2**20:,.0f} are needed",
            "end what else runs on the GPU (nvidia-smi lists it)",
        )
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def _launch_kernel(_machine: _Machine) -> str:
    """Compile a kernel of one line and compare what it computes."""
    failures: tuple[type[Exception], ...] = (ImportError, OSError, RuntimeError, MemoryError)
    try:
        import cupy

        failures = (*failures, cupy.cuda.compiler.CompileException)
        twice = cupy.ElementwiseKernel("int32 x", "int32 y", "y = 2 * x", "gpuseg_probe")
        found: list[Any] = cupy.asnumpy(twice(cupy.arange(4, dtype=cupy.int32))).tolist()
    except failures as error:
        first_line = f"{error}".strip().partition("\n")[0]
        raise _ObstacleError(
            f"CuPy cannot run a kernel: {type(error).__name__}: {first_line}",
            "see with `python -c 'import cupy; cupy.show_config()'` what CuPy finds",
        ) from error
    if found != [0, 2, 4, 6]:
        raise _ObstacleError(f"the GPU computes 2 × 0, 1, 2, 3 as {found}", _DRIVER_REMEDY)
    return "compiled, launched, right"


_Look = Callable[[_Machine], str]

_EARLIER = ("driver", "device", "CuPy", "RAPIDS", "CUDA version", "memory")

#: Name, what must have passed before, and the look itself.
_LOOKS: tuple[tuple[str, tuple[str, ...], _Look], ...] = (
    ("driver", (), _look_for_driver),
    ("device", ("driver",), _look_for_device),
    ("CuPy", (), _look_for_cupy),
    ("RAPIDS", (), _look_for_rapids),
    ("CUDA version", ("driver", "CuPy"), _compare_cuda),
    ("memory", ("driver", "device"), _look_at_memory),
    ("kernel", _EARLIER, _launch_kernel),
)
