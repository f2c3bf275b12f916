"""Both engines have the operations of the seam: the same names, order and defaults."""

from __future__ import annotations

import inspect

import pytest

from gpuseg.backends.base import Backend
from gpuseg.backends.gpu import GpuBackend
from gpuseg.backends.numpy import NumPyBackend


def operations(engine):
    return {
        name: inspect.signature(function)
        for name, function in vars(engine).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }


@pytest.mark.parametrize("engine", [NumPyBackend, GpuBackend])
def test_operations_are_those_of_the_seam(engine):
    asked, found = operations(Backend), operations(engine)
    assert list(found) == list(asked)
    for name, signature in asked.items():
        assert list(found[name].parameters.values()) == list(signature.parameters.values()), name
        assert found[name].return_annotation == signature.return_annotation, name


def test_there_is_a_seam():
    assert len(operations(Backend)) >= 11


def test_engines_have_names():
    assert (NumPyBackend.name, GpuBackend.name) == ("numpy", "gpu")
