"""Finds the CUDA kernels' text and has it compiled when a kernel is first used."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from gpuseg.errors import BackendUnavailableError

#: Inside an installed wheel, then beside the package in a checkout.
KERNEL_FOLDERS = (
    Path(__file__).parents[1] / "kernels",
    Path(__file__).parents[2] / "kernels",
)

#: CuPy appends -ftz=true in any case; said here so that the tests compile the same way.
COMPILE_OPTIONS = ("-std=c++17", "-ftz=true")


def kernel_text(name: str) -> str:
    """Return a kernel's whole text: ``common.cuh``, then ``<name>.cu``.

    Common text is put in front instead of included by path, because CuPy's cache of
    compiled kernels knows only the text it is given. ``#line`` keeps the compiler's
    messages about the files that people edit.

    Raises
    ------
    BackendUnavailableError
        If one of the files is in none of `KERNEL_FOLDERS`.
    """
    parts = ("common.cuh", f"{name}.cu")
    return "".join(f'#line 1 "{part}"\n{_read(part)}' for part in parts)


@cache
def compiled_kernel(name: str, function: str) -> Any:
    """Return a function of a kernel file as a ``cupy.RawKernel``, compiled at its first launch.

    Raises
    ------
    BackendUnavailableError
        If the file, or CuPy, is not installed.
    """
    text = kernel_text(name)
    try:
        import cupy
    except ImportError as error:
        raise BackendUnavailableError(
            f"kernel '{name}' needs CuPy, which cannot be imported ({error}); "
            "install gpuseg[cuda13] or gpuseg[cuda12]"
        ) from error
    return cupy.RawModule(code=text, options=COMPILE_OPTIONS).get_function(function)


def _read(file_name: str) -> str:
    for folder in KERNEL_FOLDERS:
        path = folder / file_name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    places = " or ".join(str(folder) for folder in KERNEL_FOLDERS)
    raise BackendUnavailableError(
        f"kernel file '{file_name}' is missing; expected it in {places}; install gpuseg again"
    )
