"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import gpuseg

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(gpuseg.__path__, "gpuseg.")
    if module.name not in ("gpuseg.__main__", "gpuseg.kernels")
)


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for name in MODULES:
        module = importlib.import_module(name)
        tests = finder.find(module, name, extraglobs={"gpuseg": gpuseg})
        found += [test for test in tests if test.examples]
    return found


EXAMPLES = examples()


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example):
    assert doctest.DocTestRunner().run(example).failed == 0
