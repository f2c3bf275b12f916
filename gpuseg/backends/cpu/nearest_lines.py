"""The nearest centroids of a tile of rows, spelled out in vector instructions.

A tile is `LINES` lines of 16 rows, stored in panels (see `simd`). Its distances to a few
centroids at a time live in registers over all features, and so do the nearest centroids
found so far, which a compiler does not find by itself in loops.

A distance is the sum of ``(x - c)**2`` over the features in their order, by fused
multiply-add in float32. Every row goes through the same operations wherever it stands, so
its label depends on nothing but the row and the centroids; and differences, unlike
``|c|**2 - 2 x.c``, keep their digits when the data lie far from the origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from gpuseg.backends.cpu.simd import MANY_REGISTERS, VectorCode

#: Rows in a line.
LANES = 16

#: Lines of a tile. With `BATCH` centroids they make twelve chains of sums where AVX-512 has 32
#: registers of a line each: enough to hide the latency of the multiply-adds. Elsewhere a line
#: takes two registers of 16, and there are four chains of two.
LINES = 4 if MANY_REGISTERS else 2

#: Rows in a tile.
TILE = LANES * LINES

#: Centroids that a tile meets at a time.
BATCH = 3 if MANY_REGISTERS else 2

#: Features of a row that are added at a time: so many while there are, then fewer.
_GROUPS = (8, 4, 1)

intrinsic: Callable[..., Any] = extending.intrinsic

_INT64 = ir.IntType(64)
_LABEL = ir.IntType(32)
_LABELS = ir.VectorType(_LABEL, LANES)
_BITS = ir.IntType(LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)


class _Nearest(NamedTuple):
    """Vectors of one line: the nearest centroid so far, and the second nearest."""

    sq: Any
    label: Any
    second_sq: Any
    second_label: Any


class _Tile:
    """Emits the search of one tile through all centroids of a run."""

    def __init__(self, code: VectorCode, panels: Any, stride: Any, n_features: Any) -> None:
        self.code, self.builder = code, code.builder
        self.n_features = n_features
        # the same feature of the next line is a whole panel further on
        self.lines = [panels]
        for _line in range(1, LINES):
            self.lines.append(self.builder.gep(self.lines[-1], [stride]))

    def search(self, centroids: Any, n_batches: Any, *, two: bool) -> list[_Nearest]:
        """Emit the loop over batches of centroids; return what is nearest for each line."""
        builder = self.builder
        before = builder.block
        loop = builder.append_basic_block("centroids")
        after = builder.append_basic_block("found")
        builder.branch(loop)
        builder.position_at_end(loop)
        batch = builder.phi(_INT64)
        width = len(_Nearest._fields) if two else 2
        starts = (self._all(math.inf), self._labels(-1), self._all(math.inf), self._labels(-1))
        phis = [[builder.phi(start.type) for start in starts[:width]] for _line in range(LINES)]
        found = [_Nearest(*phi, *starts[width:]) for phi in phis]
        offset = builder.mul(batch, builder.mul(self.n_features, _int64(BATCH)))
        distances = self._sq_distances(builder.gep(centroids, [offset]))
        smallest = builder.trunc(builder.mul(batch, _int64(BATCH)), _LABEL)
        for position in range(BATCH):
            label = self._repeat(builder.add(smallest, ir.Constant(_LABEL, position)))
            found = [
                self._closer(nearest, distances[position][line], label, two=two)
                for line, nearest in enumerate(found)
            ]
        following = builder.add(batch, _int64(1))
        batch.add_incoming(_int64(0), before)
        batch.add_incoming(following, builder.block)
        for phi, nearest in zip(phis, found, strict=True):
            for value, start, updated in zip(phi, starts, nearest, strict=False):
                value.add_incoming(start, before)
                value.add_incoming(updated, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, n_batches), loop, after)
        builder.position_at_end(after)
        return [self._with_some_label(nearest) for nearest in found]

    def _sq_distances(self, centroids: Any) -> list[list[Any]]:
        """Emit the loop over features; return a vector for each centroid and line."""
        builder, code = self.builder, self.code
        before = builder.block
        loop = builder.append_basic_block("feature")
        after = builder.append_basic_block("distances")
        builder.branch(loop)
        builder.position_at_end(loop)
        feature = builder.phi(_INT64)
        sums = [[builder.phi(code.line) for _line in self.lines] for _c in range(BATCH)]
        offset = builder.mul(feature, _int64(LANES))
        rows = [code.load(builder.gep(line, [offset])) for line in self.lines]
        place = builder.gep(centroids, [feature])
        longer = []
        for of_centroid in sums:
            coordinate = code.repeat(place)
            place = builder.gep(place, [self.n_features])
            differences = [builder.fsub(row, coordinate) for row in rows]
            longer.append(
                [
                    code.call("fma", difference, difference, total)
                    for difference, total in zip(differences, of_centroid, strict=True)
                ]
            )
        following = builder.add(feature, _int64(1))
        feature.add_incoming(_int64(0), before)
        feature.add_incoming(following, loop)
        for of_centroid, updated in zip(sums, longer, strict=True):
            for total, more in zip(of_centroid, updated, strict=True):
                total.add_incoming(code.zero, before)
                total.add_incoming(more, loop)
        builder.cbranch(builder.icmp_signed("<", following, self.n_features), loop, after)
        builder.position_at_end(after)
        return longer

    def _closer(self, so_far: _Nearest, sq: Any, label: Any, *, two: bool) -> _Nearest:
        """Emit the comparison with one more centroid; ties stay with the earlier one."""
        builder = self.builder
        wins = builder.fcmp_ordered("<", sq, so_far.sq)
        nearest = builder.select(wins, sq, so_far.sq), builder.select(wins, label, so_far.label)
        if not two:
            return so_far._replace(sq=nearest[0], label=nearest[1])
        is_second = builder.fcmp_ordered("<", sq, so_far.second_sq)
        second_sq = builder.select(is_second, sq, so_far.second_sq)
        second_label = builder.select(is_second, label, so_far.second_label)
        second_sq = builder.select(wins, so_far.sq, second_sq)
        second_label = builder.select(wins, so_far.label, second_label)
        return _Nearest(*nearest, second_sq, second_label)

    def _with_some_label(self, nearest: _Nearest) -> _Nearest:
        """Give a row that is beyond the range of float32 from everything to the first."""
        builder, first = self.builder, self._labels(0)
        found = builder.icmp_signed(">", nearest.label, first)
        return nearest._replace(label=builder.select(found, nearest.label, first))

    def _all(self, value: float) -> Any:
        return ir.Constant(self.code.line, [value] * LANES)

    def _labels(self, value: int) -> Any:
        return ir.Constant(_LABELS, [value] * LANES)

    def _repeat(self, label: Any) -> Any:
        nothing = ir.Constant(_LABELS, ir.Undefined)
        single = self.builder.insert_element(nothing, label, ir.Constant(_LABEL, 0))
        everywhere = ir.Constant(_LABELS, [0] * LANES)
        return self.builder.shuffle_vector(single, nothing, everywhere)


def _int64(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _searched(context: Any, builder: Any, kinds: Any, args: Any, *, two: bool) -> Any:
    """Emit a search from the first seven arguments, which both intrinsics share."""
    code = VectorCode(context, builder, kinds[0])
    panels = code.pointer(kinds[0], args[0], args[1])
    stride = builder.mul(args[2], _int64(LANES))
    centroids = code.pointer(kinds[3], args[3], args[4])
    tile = _Tile(code, panels, stride, args[2])
    return code, tile.search(centroids, args[5], two=two)


def _vector_at(code: VectorCode, kind: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Point to as many elements of an array as the vector has."""
    pointer = code.pointer(kind, array, offset)
    return code.builder.bitcast(pointer, vector.as_pointer())


@intrinsic
def step_tile(
    _typing: Any,
    panels: Any,
    offset: Any,
    n_features: Any,
    centroids: Any,
    centroid_offset: Any,
    n_batches: Any,
    valid: Any,
    known: Any,
    known_offset: Any,
    labels: Any,
    inertia: Any,
    inertia_offset: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Find the nearest centroid of each row of a tile; return which rows have a new one.

    Parameters
    ----------
    panels, offset, n_features
        The tile's first panel; the other lines follow it.
    centroids, centroid_offset, n_batches
        ``BATCH * n_batches`` centroids of `n_features` float32; those of inf are nobody's.
    valid : int64
        Bit t is set if row t of the tile exists.
    known, known_offset : array of uint8 or int32
        The label that each row had.
    labels : array of shape (TILE,), int32
        Gets the labels.
    inertia, inertia_offset : array, float64
        From the offset on, `LANES` sums get the squared distances.

    Returns
    -------
    changed : int64
        Bit t is set if row t exists and its label is not the known one.
    """
    signature = types.int64(
        panels, offset, n_features, centroids, centroid_offset, n_batches,
        valid, known, known_offset, labels, inertia, inertia_offset,
    )  # fmt: skip
    return signature, _generate_step


def _generate_step(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds = signature.args
    code, found = _searched(context, builder, kinds, args, two=False)
    valid = args[6]
    known_line = ir.VectorType(context.get_data_type(kinds[7].dtype), LANES)
    totals = _vector_at(code, kinds[10], args[10], args[11], ir.VectorType(ir.DoubleType(), LANES))
    total = code.load_vector(totals, 8)
    changed = _int64(0)
    for line, nearest in enumerate(found):
        first = _int64(line * LANES)
        bits = builder.trunc(builder.lshr(valid, first), _BITS)
        exists = builder.bitcast(bits, _FLAGS)
        sq = builder.select(exists, nearest.sq, code.zero)
        total = builder.fadd(total, builder.fpext(sq, total.type))
        before = _vector_at(code, kinds[7], args[7], builder.add(args[8], first), known_line)
        old = code.load_vector(before, known_line.element.width // 8)
        new = nearest.label
        if known_line.element.width < _LABEL.width:
            new = builder.trunc(new, known_line)
        differs = builder.bitcast(builder.icmp_unsigned("!=", new, old), _BITS)
        differs = builder.zext(builder.and_(differs, bits), _INT64)
        changed = builder.or_(changed, builder.shl(differs, first))
        place = _vector_at(code, kinds[9], args[9], first, _LABELS)
        code.store_vector(nearest.label, place, 4)
    code.store_vector(total, totals, 8)
    return changed


@intrinsic
def two_nearest(
    _typing: Any,
    panels: Any,
    offset: Any,
    n_features: Any,
    centroids: Any,
    centroid_offset: Any,
    n_batches: Any,
    sq: Any,
    labels: Any,
    second_sq: Any,
    second_labels: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Find the two nearest centroids of each row of a tile.

    Parameters
    ----------
    panels, offset, n_features, centroids, centroid_offset, n_batches
        As for `step_tile`.
    sq, second_sq : arrays of shape (TILE,), float32
        Get the squared distances; inf where there is no second centroid.
    labels, second_labels : arrays of shape (TILE,), int32
        Get the labels; -1 where there is no second centroid.
    """
    signature = types.void(
        panels, offset, n_features, centroids, centroid_offset, n_batches,
        sq, labels, second_sq, second_labels,
    )  # fmt: skip
    return signature, _generate_two


def _generate_two(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds = signature.args
    code, found = _searched(context, builder, kinds, args, two=True)
    for line, nearest in enumerate(found):
        for vector, kind, array in zip(nearest, kinds[6:], args[6:], strict=True):
            place = _vector_at(code, kind, array, _int64(line * LANES), vector.type)
            code.store_vector(vector, place, 4)
    return context.get_dummy_value()


@intrinsic
def lowest_bit(_typing: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the number of the lowest bit that is set; `bits` is int64 and not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(bits), generate


@intrinsic
def count_bits(_typing: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """Return how many bits of an int64 are set."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(bits), generate


def _row_operation(operation: str) -> Callable[..., tuple[Any, Callable[..., Any]]]:
    """Return an intrinsic's text that adds, or subtracts, a row of float32 in float64."""

    def typed(
        _typing: Any, rows: Any, offset: Any, totals: Any, place: Any, n_features: Any
    ) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            code = VectorCode(context, builder, kinds[0])
            row = code.pointer(kinds[0], args[0], args[1])
            total = code.pointer(kinds[2], args[2], args[3])
            start = _int64(0)
            for lanes in _GROUPS:
                stop = builder.and_(args[4], _int64(-lanes))
                with cgutils.for_range_slice(builder, start, stop, _int64(lanes)) as (j, _n):
                    kind = ir.VectorType(ir.DoubleType(), lanes)
                    numbers = builder.bitcast(
                        builder.gep(row, [j]), ir.VectorType(ir.FloatType(), lanes).as_pointer()
                    )
                    more = builder.fpext(code.load_vector(numbers, 4), kind)
                    sums = builder.bitcast(builder.gep(total, [j]), kind.as_pointer())
                    updated = getattr(builder, operation)(code.load_vector(sums, 8), more)
                    code.store_vector(updated, sums, 8)
                start = stop
            return context.get_dummy_value()

        return types.void(rows, offset, totals, place, n_features), generate

    return typed


#: ``totals[place + j] += rows[offset + j]`` for each feature j: float32 added in float64.
add_row: Any = intrinsic(_row_operation("fadd"))
#: The same with ``-=``.
subtract_row: Any = intrinsic(_row_operation("fsub"))
