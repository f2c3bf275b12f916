"""The stand-in for CuPy's arrays refuses what CuPy refuses."""

from __future__ import annotations

import numpy as np
import pytest
from doubles.device_arrays import DeviceArray, xp


@pytest.fixture
def values():
    return xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


HOST = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "misuse",
    [
        np.asarray,
        np.array,
        np.sum,
        np.sqrt,
        lambda there: np.concatenate([there, there]),
        lambda there: there + HOST,
        lambda there: HOST + there,
        lambda there: HOST * there,
        lambda there: there @ HOST.T,
        lambda there: HOST.T @ there,
        lambda there: there == HOST,
        lambda there: there[np.array([0, 1])],
        lambda there: there[:, np.array([True, False, True])],
        lambda there: there.__setitem__(0, HOST[0]),
        lambda there: there.__iadd__(HOST),
        lambda there: there.take(np.array([0]), axis=0),
        lambda there: there.__add__([1.0, 2.0, 3.0]),
        lambda there: xp.maximum(there, HOST),
        lambda there: xp.stack([there, HOST]),
        lambda there: xp.where(there > 1, HOST, there),
        lambda _there: xp.sqrt(HOST),
        lambda _there: xp.sort([2.0, 1.0]),
        lambda there: HOST.__setitem__(slice(None), there),
    ],
)
def test_host_and_device_do_not_mix(values, misuse):
    with pytest.raises(TypeError):
        misuse(values)


def test_what_cupy_does_not_have_is_not_there(values):
    for name in ("memmap", "nditer", "frompyfunc", "recarray"):
        assert not hasattr(xp, name)
    assert not hasattr(values, "tobytes")
    with pytest.raises(ValueError, match="stable"):
        xp.argsort(values, kind="quicksort")


def test_every_listed_function_is_numpys_too():
    from doubles.device_arrays import FUNCTIONS

    assert all(callable(getattr(np, name)) for name in FUNCTIONS)


def test_single_numbers_stay_on_the_device_until_asked(values):
    total = values.sum()
    assert isinstance(total, DeviceArray)
    assert (float(total), int(total), bool(total), total.shape) == (15.0, 15, True, ())
    assert isinstance(values[1, 2], DeviceArray)
    assert isinstance(values.max(axis=0), DeviceArray)


def test_scalars_of_the_host_are_welcome(values):
    assert float((np.float32(2) * values + 1)[1, 2]) == 11
    assert float((np.float64(2) - values)[0, 0]) == 2


def test_copies_and_views(values):
    host = np.zeros(3)
    there = xp.asarray(host)
    host[0] = 1
    assert float(there.sum()) == 0  # a device cannot see the host change
    row = values[0]
    row += 1
    assert float(values[0, 0]) == 1  # but a view is one
    got = values.get()
    got[:] = 0
    assert float(values.sum()) > 0


def test_indices_and_masks_of_the_device(values):
    assert values[:, xp.asarray(np.array([2, 0]))].tolist() == [[2, 0], [5, 3]]
    assert values[values > 3].tolist() == [4, 5]
    values[values > 3] = 0
    assert values.get().tolist() == [[0, 1, 2], [3, 0, 0]]


def test_the_shapes_of_what_comes_back(values):
    assert values.T.flags.c_contiguous is False
    unique, inverse = xp.unique(xp.asarray(np.array([3, 1, 3])), return_inverse=True)
    assert (unique.tolist(), inverse.tolist()) == ([1, 3], [1, 0, 1])
    assert [row.tolist() for row in values] == [[0, 1, 2], [3, 4, 5]]
    assert xp.asnumpy(values).shape == (2, 3)
    assert xp.asnumpy(HOST) is HOST
