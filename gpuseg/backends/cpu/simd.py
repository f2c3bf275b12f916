"""One tile of distances, spelled out in vector instructions.

A tile is `ROWS` points against a line of points, as many as fill `LINE_BYTES`: 16 in
float32, 8 in float64; or against a few lines. Its distances live in registers until they
are summed both ways, which a compiler does not find by itself in loops. LLVM cuts the
64-byte vectors to what the machine has: one AVX-512 register, two of AVX2, four of SSE or
NEON.

Points are stored in *panels*: panel b holds, for one feature after the other, the
coordinates of the points of line b. The same panel serves as the rows of one tile and as
the line of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import extending, types

#: Points on the short side of a tile. With a line of 64 bytes the sums take half of the 16
#: vector registers of AVX2 and leave room for coordinates and differences.
ROWS = 4

#: Registers hold four sums for each line, and hide the latency of the multiply-adds the better
#: the more there are: AVX-512 has 32 registers of a line each.
MANY_REGISTERS = bool(binding.get_host_cpu_features().get("avx512f"))
WIDE = 3 if MANY_REGISTERS else 1

#: Bytes of a vector, of a line of coordinates, and of a line of the cache.
LINE_BYTES = 64

# as an untyped decorator, because a call in compiled code has one argument less
intrinsic: Callable[..., Any] = extending.intrinsic

_INT64 = ir.IntType(64)
_INT32 = ir.IntType(32)

# may be fused to a multiply-add where the machine has one; nothing else is relaxed
_FUSED = ("contract",)


class VectorCode:
    """Emits vector code for lines of one floating point type, at the builder's position."""

    def __init__(self, context: Any, builder: Any, array_type: Any, lanes: int = 0) -> None:
        self.context, self.builder = context, builder
        self.bits = array_type.dtype.bitwidth
        self.lanes = lanes or 8 * LINE_BYTES // self.bits
        self.number = context.get_data_type(array_type.dtype)
        self.line = ir.VectorType(self.number, self.lanes)
        self.zero = ir.Constant(self.line, [0.0] * self.lanes)

    def pointer(self, array_type: Any, array: Any, offset: Any) -> Any:
        """Point to an element of a contiguous array."""
        data = self.context.make_array(array_type)(self.context, self.builder, value=array).data
        return self.builder.gep(data, [offset])

    def at(self, pointer: Any, offset: int) -> Any:
        """Point so many elements further."""
        return self.builder.gep(pointer, [ir.Constant(_INT64, offset)])

    def load(self, pointer: Any) -> Any:
        """Load a line."""
        pointer = self.builder.bitcast(pointer, self.line.as_pointer())
        return self.load_vector(pointer, self.bits // 8)

    def store(self, line: Any, pointer: Any) -> None:
        """Store a line."""
        pointer = self.builder.bitcast(pointer, self.line.as_pointer())
        self.store_vector(line, pointer, self.bits // 8)

    def load_vector(self, pointer: Any, align: int) -> Any:
        """Load a vector; Numba promises no more than the alignment of one element."""
        vector = self.builder.load(pointer)
        vector.align = align
        return vector

    def store_vector(self, vector: Any, pointer: Any, align: int) -> None:
        """Store a vector."""
        self.builder.store(vector, pointer).align = align

    def shuffle(self, first: Any, second: Any, lanes: list[int]) -> Any:
        """Take these lanes of two lines, those of the second being counted on."""
        mask = ir.Constant(ir.VectorType(_INT32, self.lanes), lanes)
        return self.builder.shuffle_vector(first, second, mask)

    def repeat(self, pointer: Any) -> Any:
        """Every lane is the number at the pointer."""
        nothing = ir.Constant(self.line, ir.Undefined)
        number = self.builder.load(pointer)
        single = self.builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
        return self.shuffle(single, nothing, [0] * self.lanes)

    def call(self, operation: str, *lines: Any) -> Any:
        """LLVM's operation of this name, lane by lane."""
        kind = ir.FunctionType(self.line, [self.line] * len(lines))
        name = f"llvm.{operation}.v{self.lanes}f{self.bits}"
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, lines)

    def total(self, lines: Sequence[Any]) -> Any:
        """Add up lines, in pairs."""
        while len(lines) > 1:
            pairs = [self.builder.fadd(*lines[i : i + 2]) for i in range(0, len(lines) - 1, 2)]
            lines = pairs + list(lines[2 * len(pairs) :])
        return lines[0]

    def add_neighbours(self, first: Any, second: Any) -> Any:
        """Within each four lanes: two sums of pairs of `first`, then two of `second`."""
        even = [lane + of for lane in range(0, self.lanes, 4) for of in self._pairs()]
        odd = [lane + 1 for lane in even]
        return self.builder.fadd(
            self.shuffle(first, second, even), self.shuffle(first, second, odd)
        )

    def _pairs(self) -> tuple[int, ...]:
        return 0, 2, self.lanes, self.lanes + 2


def _sq_distances(
    lines: VectorCode, rows: Any, panels: Sequence[Any], n_features: Any
) -> list[list[Any]]:
    """Emit the loop over features; return squared distances for each row and line."""
    builder = lines.builder
    before = builder.block
    loop = builder.append_basic_block("feature")
    after = builder.append_basic_block("distances")
    builder.branch(loop)

    builder.position_at_end(loop)
    feature = builder.phi(_INT64)
    sums = [[builder.phi(lines.line) for _line in panels] for _row in range(ROWS)]
    offset = builder.mul(feature, ir.Constant(_INT64, lines.lanes))
    coordinates = [lines.load(builder.gep(panel, [offset])) for panel in panels]
    row_coordinates = builder.gep(rows, [offset])
    longer = []
    for row, of_row in enumerate(sums):
        coordinate = lines.repeat(lines.at(row_coordinates, row))
        differences = [builder.fsub(of_line, coordinate) for of_line in coordinates]
        squares = [builder.fmul(each, each, flags=_FUSED) for each in differences]
        longer.append(
            [builder.fadd(*pair, flags=_FUSED) for pair in zip(of_row, squares, strict=True)]
        )
    following = builder.add(feature, ir.Constant(_INT64, 1))
    feature.add_incoming(ir.Constant(_INT64, 0), before)
    feature.add_incoming(following, loop)
    for of_row, updated in zip(sums, longer, strict=True):
        for total, more in zip(of_row, updated, strict=True):
            total.add_incoming(lines.zero, before)
            total.add_incoming(more, loop)
    builder.cbranch(builder.icmp_signed("<", following, n_features), loop, after)

    builder.position_at_end(after)
    return longer


def _tile(n_lines: int) -> Callable[..., tuple[Any, Callable[..., Any]]]:
    """Return the intrinsic's text for a tile of so many lines; see `add_tile`."""

    def typed(
        _typing: Any,
        row_panels: Any,
        row_offset: Any,
        line_panels: Any,
        line_offset: Any,
        n_features: Any,
        row_sums: Any,
        line_sums: Any,
        line_sums_offset: Any,
    ) -> tuple[Any, Callable[..., Any]]:
        signature = types.void(
            row_panels,
            row_offset,
            line_panels,
            line_offset,
            n_features,
            row_sums,
            line_sums,
            line_sums_offset,
        )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _generate_tile(context, builder, signature, args, n_lines)

        return signature, generate

    return typed


def _generate_tile(context: Any, builder: Any, signature: Any, args: Any, n_lines: int) -> Any:
    kinds = signature.args
    lines = VectorCode(context, builder, kinds[0])
    rows = lines.pointer(kinds[0], args[0], args[1])
    panels = [lines.pointer(kinds[2], args[2], args[3])]
    stride = builder.mul(args[4], ir.Constant(_INT64, lines.lanes))
    while len(panels) < n_lines:
        panels.append(builder.gep(panels[-1], [stride]))
    # maxnum turns the NaN of a padding point into 0
    distances = [
        [lines.call("sqrt", lines.call("maxnum", squares, lines.zero)) for squares in of_row]
        for of_row in _sq_distances(lines, rows, panels, args[4])
    ]
    row_totals = lines.pointer(kinds[5], args[5], ir.Constant(_INT64, 0))
    for row, of_row in enumerate(distances):
        place = lines.at(row_totals, row * lines.lanes)
        lines.store(builder.fadd(lines.load(place), lines.total(of_row)), place)
    line_totals = lines.pointer(kinds[6], args[6], args[7])
    for line, of_line in enumerate(zip(*distances, strict=True)):
        place = lines.at(line_totals, line * lines.lanes)
        lines.store(builder.fadd(lines.load(place), lines.total(of_line)), place)
    return context.get_dummy_value()


#: ``add_tile(row_panels, row_offset, line_panels, line_offset, n_features, row_sums,
#: line_sums, line_sums_offset)`` adds the distances of one tile to the sums of its rows and
#: of its line.
#:
#: - row_panels, line_panels : arrays of shape (any,), float32 or float64
#: - row_offset, line_offset : int64, where the first coordinate of the first row, and of the
#:   line, stands. A point with a NaN coordinate has distance 0 to everything.
#: - n_features : int64, at least 1
#: - row_sums : array of shape (ROWS * lanes,), gets the distances of row r in
#:   ``[r * lanes, (r + 1) * lanes)``, not yet added over the lanes; `fold_rows` does that
#:   once for many tiles
#: - line_sums : array, gets each lane's sum over the rows, from `line_sums_offset`
#:
#: Differences are squared, rather than norms and products combined: the error is then
#: relative to the distance itself, equal points have distance 0 exactly, and the
#: subtraction costs little because most CPUs have pipes of their own for it.
add_tile: Any = intrinsic(_tile(1))

#: The same for `WIDE` lines that follow each other.
add_wide_tile: Any = intrinsic(_tile(WIDE))


@intrinsic
def fold_rows(_typing: Any, row_sums: Any, folded: Any) -> tuple[Any, Callable[..., Any]]:
    """Add the row sums of `add_tile` over each four lanes, and set them back to 0.

    Parameters
    ----------
    row_sums : array of shape (ROWS * lanes,)
    folded : array of shape (lanes,)
        Gets the sum of row r over lanes ``[4 g, 4 g + 4)`` at ``4 g + r``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lines = VectorCode(context, builder, signature.args[0])
        start = lines.pointer(signature.args[0], args[0], ir.Constant(_INT64, 0))
        places = [lines.at(start, row * lines.lanes) for row in range(ROWS)]
        rows = [lines.load(place) for place in places]
        for place in places:
            lines.store(lines.zero, place)
        halves = lines.add_neighbours(rows[0], rows[1]), lines.add_neighbours(rows[2], rows[3])
        sums = lines.add_neighbours(*halves)
        lines.store(sums, lines.pointer(signature.args[1], args[1], ir.Constant(_INT64, 0)))
        return context.get_dummy_value()

    return types.void(row_sums, folded), generate


@intrinsic
def add_group(
    _typing: Any, source: Any, source_offset: Any, target: Any, target_offset: Any
) -> tuple[Any, Callable[..., Any]]:
    """Add `ROWS` numbers of `source` to as many of `target`, which may be float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_kind, _, target_kind, _ = signature.args
        numbers = VectorCode(context, builder, source_kind, ROWS)
        totals = VectorCode(context, builder, target_kind, ROWS)
        _add(numbers, source_kind, args[:2], totals, target_kind, args[2:])
        return context.get_dummy_value()

    return types.void(source, source_offset, target, target_offset), generate


@intrinsic
def add_line(
    _typing: Any, source: Any, source_offset: Any, target: Any, target_offset: Any
) -> tuple[Any, Callable[..., Any]]:
    """Add a line of `source` to as many numbers of `target`, which may be float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_kind, _, target_kind, _ = signature.args
        numbers = VectorCode(context, builder, source_kind)
        totals = VectorCode(context, builder, target_kind, numbers.lanes)
        _add(numbers, source_kind, args[:2], totals, target_kind, args[2:])
        return context.get_dummy_value()

    return types.void(source, source_offset, target, target_offset), generate


def _add(
    numbers: VectorCode, source_kind: Any, source: Any, totals: VectorCode, kind: Any, target: Any
) -> None:
    """Emit ``target += source`` for two (array, offset)."""
    builder = numbers.builder
    more = numbers.load(numbers.pointer(source_kind, *source))
    if numbers.bits < totals.bits:
        more = builder.fpext(more, totals.line)
    place = totals.pointer(kind, *target)
    totals.store(builder.fadd(totals.load(place), more), place)
