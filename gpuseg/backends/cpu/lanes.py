"""Four float64 at once. Numba leaves four scalar additions in a row as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 4

_INDEX = ir.IntType(32)
_FOUR = ir.VectorType(ir.DoubleType(), LANES)

# may be fused to a multiply-add where the machine has one; nothing else is relaxed
_FUSED = ("contract",)


def _row(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Point to row `row` of a C-ordered array of shape (n, 4)."""
    data = context.make_array(array_type)(context, builder, array).data
    first = builder.gep(data, [builder.mul(row, row.type(LANES))])
    return builder.bitcast(first, _FOUR.as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    # Numba promises no more than the alignment of one element.
    return builder.load(pointer, align=8)


def _add_row(
    _typing: Any, target: Any, i: Any, source: Any, j: Any
) -> tuple[Any, Callable[..., Any]]:
    """``target[i] += source[j]`` for C-ordered float64 arrays of shape (n, 4).

    Row numbers are not checked.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        into = _row(context, builder, signature.args[0], args[0], args[1])
        more = _row(context, builder, signature.args[2], args[2], args[3])
        builder.store(builder.fadd(_load(builder, into), _load(builder, more)), into, align=8)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


def _add_scaled_row(
    _typing: Any, target: Any, i: Any, source: Any, j: Any, scale: Any
) -> tuple[Any, Callable[..., Any]]:
    """``target[i] += scale * source[j]`` for C-ordered float64 arrays of shape (n, 4).

    Row numbers are not checked.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        into = _row(context, builder, signature.args[0], args[0], args[1])
        more = _row(context, builder, signature.args[2], args[2], args[3])
        nothing = ir.Constant(_FOUR, ir.Undefined)
        single = builder.insert_element(nothing, args[4], ir.Constant(_INDEX, 0))
        everywhere = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
        scales = builder.shuffle_vector(single, nothing, everywhere)
        product = builder.fmul(scales, _load(builder, more), flags=_FUSED)
        builder.store(builder.fadd(_load(builder, into), product, flags=_FUSED), into, align=8)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.float64), generate


# Annotated, because mypy takes a call of an intrinsic for a call of the function above.
add_row: Any = intrinsic(_add_row)
add_scaled_row: Any = intrinsic(_add_scaled_row)
