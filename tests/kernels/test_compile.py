"""Every kernel compiles for every architecture we name, within its register budget."""

import json
import re
from pathlib import Path

import pytest

from gpuseg.backends.kernel_loader import KERNEL_FOLDERS, kernel_text
from kernels import nvrtc

BUDGET = json.loads((Path(__file__).parent / "register_budget.json").read_text())
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
FILES = sorted(path.stem for path in KERNEL_FOLDERS[1].glob("*.cu"))


def test_every_kernel_has_a_budget_for_every_architecture():
    assert FILES
    assert sorted(BUDGET["kernels"]) == FILES
    for functions in BUDGET["kernels"].values():
        for per_arch in functions.values():
            assert sorted(map(int, per_arch)) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_kernel_spills_nothing_and_stays_in_its_budget(file, arch):
    measured = f"compiled with NVRTC {nvrtc.version()}; budget of NVRTC {BUDGET['nvrtc']}"
    functions = nvrtc.compile_for(kernel_text(file), arch)

    assert sorted(functions) == sorted(BUDGET["kernels"][file])
    for name, usage in functions.items():
        budget = BUDGET["kernels"][file][name][str(arch)]
        assert usage.spill_bytes == 0, measured
        assert usage.stack_bytes == 0, measured
        assert usage.registers <= budget["registers"], measured
        assert usage.static_shared_bytes <= budget["static_shared_bytes"], measured


def test_a_kernel_that_spills_is_noticed():
    one_register_short = kernel_text("silhouette").replace(
        "512 / BLOCK_THREADS)", "1024 / BLOCK_THREADS)"
    )
    assert nvrtc.compile_for(one_register_short, 90)["distance_sums"].spill_bytes > 0


def test_compiler_messages_name_the_file_that_people_edit():
    broken = kernel_text("silhouette").replace("float pairs[kMicro][kMicro];", "floot pairs;", 1)
    with pytest.raises(AssertionError, match=r"silhouette\.cu\(\d+\)"):
        nvrtc.compile_for(broken, 90)


@pytest.mark.parametrize("arch", [75, 90, 120])
@pytest.mark.parametrize("file", ["nearest", "project"])
def test_kernels_that_promise_the_cpus_bits_keep_denormals_and_fuse_nothing(file, arch):
    """CuPy compiles with -ftz=true; these instructions must not listen to it."""
    instructions = re.findall(
        r"^\s+(?:@\S+ )?([a-z][\w.]+)", nvrtc.ptx_of(kernel_text(file), arch), re.MULTILINE
    )
    arithmetic = {i for i in instructions if re.search(r"\.f(32|64)$", i)}
    moved = ("ld.", "st.", "mov.", "selp.")
    computed = {i for i in arithmetic if not i.startswith(moved)}
    expected = {
        "nearest": {"fma.rn.f32"},
        "project": {"cvt.f64.f32", "cvt.rn.f32.f64", "sub.rn.f64", "mul.rn.f64", "add.rn.f64"},
    }
    assert computed == expected[file]


def test_an_instruction_that_flushes_denormals_would_be_seen():
    assert ".ftz" in nvrtc.ptx_of(kernel_text("silhouette"), 90)
