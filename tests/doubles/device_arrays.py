"""Stands in for CuPy's arrays where there is no device: NumPy behind a wall.

What is strict about CuPy is strict here: nothing turns into a NumPy array by itself, host
and device arrays do not mix, an index is a device array, too. The module has no function
that CuPy does not have, and of those only what is listed.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import contextmanager
from types import ModuleType

import numpy as np

_FUNCTIONS = """
    abs all any arange argmax argmin argsort ascontiguousarray bincount ceil clip concatenate
    copysign cos cumsum empty flatnonzero floor full isfinite isinf isnan log1p maximum mean
    minimum ones
    rint searchsorted sign sin sort sqrt stack sum unique where zeros
"""
_METHODS = "all any argmax argmin astype copy cumsum max mean min ravel reshape sum take"
_OPERATORS = """
    add sub mul truediv floordiv mod pow matmul and or xor lshift rshift
    radd rsub rmul rtruediv rfloordiv rmod rpow rmatmul rand ror rxor
    lt le gt ge eq ne
"""
_IN_PLACE = "add sub mul truediv floordiv and or xor lshift rshift"
_PROPERTIES = "dtype shape ndim size nbytes itemsize strides flags"

#: Functions of CuPy that behave as NumPy's on arrays of a device.
FUNCTIONS = frozenset(_FUNCTIONS.split())

#: Those of them that take a list of arrays.
TAKE_LISTS = frozenset(["concatenate", "stack"])

CONSTANTS = ("inf", "nan", "pi", "newaxis")
DTYPES = ("bool_", "float32", "float64", "int32", "int64", "uint32", "uint64")


class Place:
    """The one device there is."""

    def __repr__(self) -> str:
        return "<device of the tests>"


PLACE = Place()


class Memory:
    """The device's memory: counts what is in use, and refuses what does not fit.

    Parameters
    ----------
    n_bytes
        How much there is.
    fails_at
        The number of an allocation, from 0, that is refused although there is room.
    """

    def __init__(self, n_bytes: float = float("inf"), fails_at: int | None = None) -> None:
        self.n_bytes, self.fails_at = n_bytes, fails_at
        self.used = self.peak = self.n_allocations = self.n_refused = 0
        self._alive: set[int] = set()

    def hold(self, host: np.ndarray) -> None:
        """Count an array's memory once, however many views of it there are."""
        while isinstance(host.base, np.ndarray):
            host = host.base
        if id(host) in self._alive:
            return
        number, self.n_allocations = self.n_allocations, self.n_allocations + 1
        if number == self.fails_at or self.used + host.nbytes > self.n_bytes:
            self.n_refused += 1
            raise MemoryError(f"Out of memory allocating {host.nbytes:,} bytes")
        self._alive.add(id(host))
        self.used += host.nbytes
        self.peak = max(self.peak, self.used)
        weakref.finalize(host, self._gone, id(host), host.nbytes)

    def _gone(self, key: int, n_bytes: int) -> None:
        self._alive.discard(key)
        self.used -= n_bytes


#: What is counted now, one for each `counted` that is entered.
_MEMORIES: list[Memory] = []


@contextmanager
def counted(memory: Memory):
    """Let arrays made from here on take memory; results of NumPy's functions are arrays."""
    _MEMORIES.append(memory)
    try:
        yield memory
    finally:
        _MEMORIES.remove(memory)


class DeviceArray:
    """An array that can be reached only as one on a device can."""

    __array_ufunc__ = None  # NumPy's operators then leave the work to ours, which refuse
    __hash__ = None

    def __init__(self, host: np.ndarray) -> None:
        for memory in _MEMORIES:
            memory.hold(host)
        self._host = host

    def __array__(self, *_args, **_options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_function__(self, function, *_rest):
        raise TypeError(f"numpy.{function.__name__} was called with an array of a device")

    def get(self) -> np.ndarray:
        return self._host.copy()

    def __getitem__(self, index):
        return to_device(self._host[unwrapped(index)])

    def __setitem__(self, index, value) -> None:
        self._host[unwrapped(index)] = unwrapped(value)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def view(self, dtype):
        return DeviceArray(self._host.view(dtype))

    def transpose(self, *axes):
        return DeviceArray(self._host.transpose(*axes))

    def tolist(self):
        return self._host.tolist()

    def item(self):
        return self._host.item()

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __neg__(self):
        return to_device(-self._host)

    def __invert__(self):
        return to_device(~self._host)

    def __repr__(self) -> str:
        return f"Device{self._host!r}"

    @property
    def T(self):  # noqa: N802
        return DeviceArray(self._host.T)

    @property
    def device(self) -> Place:
        return PLACE


def unwrapped(value, lists=False):
    """Return what NumPy can work with, unless it was NumPy's already."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: it is on the host")
    if isinstance(value, tuple) or (lists and isinstance(value, list)):
        return type(value)(unwrapped(item) for item in value)
    if isinstance(value, list):
        raise TypeError("Unsupported type <class 'list'>")
    return value


def to_device(value):
    """Put every array among the results on the device, also those of a single number."""
    if isinstance(value, tuple):
        return tuple(to_device(item) for item in value)
    return DeviceArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _operator(name):
    def operate(self, other):
        function = getattr(self._host, f"__{name}__")
        return to_device(function(unwrapped(other)))

    return operate


def _in_place(name):
    def operate(self, other):
        self._host = getattr(self._host, f"__i{name}__")(unwrapped(other))
        return self

    return operate


def _method(name):
    def method(self, *args, **options):
        found = getattr(self._host, name)(*unwrapped(args), **_options(options))
        return to_device(found)

    return method


def _options(options):
    return {name: unwrapped(value) for name, value in options.items()}


for _name in _OPERATORS.split():
    setattr(DeviceArray, f"__{_name}__", _operator(_name))
for _name in _IN_PLACE.split():
    setattr(DeviceArray, f"__i{_name}__", _in_place(_name))
for _name in _METHODS.split():
    setattr(DeviceArray, _name, _method(_name))
for _name in _PROPERTIES.split():
    setattr(DeviceArray, _name, property(lambda self, name=_name: getattr(self._host, name)))


def _function(name):
    def function(*args, **options):
        if name == "argsort" and options.get("kind") not in (None, "stable"):
            raise ValueError("CuPy sorts in one way: kind must be 'stable'")
        lists = name in TAKE_LISTS
        args = tuple(unwrapped(arg, lists) for arg in args)
        return to_device(getattr(np, name)(*args, **_options(options)))

    return function


def asarray(values, dtype=None):
    """Return an array of the device: the same one, or a copy of what is on the host."""
    if isinstance(values, DeviceArray):
        return values if dtype is None else DeviceArray(values._host.astype(dtype, copy=False))
    return array(values, dtype)


def array(values, dtype=None):
    host = values._host if isinstance(values, DeviceArray) else values
    return DeviceArray(np.array(host, dtype=dtype))


def asnumpy(values):
    return values.get() if isinstance(values, DeviceArray) else np.asarray(values)


def _module() -> ModuleType:
    module = ModuleType("cupy")
    for name in FUNCTIONS:
        setattr(module, name, _function(name))
    for name in (*CONSTANTS, *DTYPES):
        setattr(module, name, getattr(np, name))
    module.ndarray = DeviceArray
    for function in (asarray, array, asnumpy):
        setattr(module, function.__name__, function)
    return module


#: What the engine takes for CuPy. Not put where ``import cupy`` would find it.
xp = _module()
assert "cupy" not in sys.modules or sys.modules["cupy"] is not xp
