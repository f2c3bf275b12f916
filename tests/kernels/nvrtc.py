"""Compiles kernel text with NVRTC, which needs neither a driver nor a device."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import pytest

from gpuseg.backends.kernel_loader import COMPILE_OPTIONS


class Usage(NamedTuple):
    """What the assembler says about a kernel."""

    registers: int
    spill_bytes: int
    stack_bytes: int
    static_shared_bytes: int


def require_nvrtc():
    """Return the bindings, or skip; under GPUSEG_REQUIRE_NVRTC=1 absence is a failure."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        reason = f"NVRTC is not installed (pip install gpuseg[kernels]): {error}"
        if os.environ.get("GPUSEG_REQUIRE_NVRTC") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return nvrtc


def version() -> str:
    _, major, minor = require_nvrtc().nvrtcVersion()
    return f"{major}.{minor}"


def compile_for(text: str, arch: int) -> dict[str, Usage]:
    """Compile to machine code; return each kernel's usage, or fail with the compiler's log."""
    nvrtc = require_nvrtc()
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], [])
    options = [*COMPILE_OPTIONS, f"--gpu-architecture=sm_{arch}", "--ptxas-options=-v"]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    report = log.decode(errors="replace")
    assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS, report
    entries = re.split(r"Compiling entry function '(\w+)'", report)[1:]
    return {name: _usage(part) for name, part in zip(entries[::2], entries[1::2], strict=True)}


def ptx_of(text: str, arch: int) -> str:
    """Compile to the virtual machine's text, in which each instruction can be read."""
    nvrtc = require_nvrtc()
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], [])
    options = [*COMPILE_OPTIONS, f"--gpu-architecture=compute_{arch}"]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = b" " * size
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(program)
    return ptx.decode()


def _usage(report: str) -> Usage:
    def number(pattern: str, default: str | None = None) -> int:
        found = re.search(pattern, report)
        if found is None and default is None:
            raise AssertionError(f"no '{pattern}' in the assembler's report:\n{report}")
        return int(found[1] if found else default)

    return Usage(
        registers=number(r"Used (\d+) registers"),
        spill_bytes=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        stack_bytes=number(r"(\d+) bytes stack frame"),
        static_shared_bytes=number(r"(\d+) bytes smem", default="0"),
    )
