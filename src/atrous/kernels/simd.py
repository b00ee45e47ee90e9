"""Rows of numbers as vector registers, for numba: a row stays in registers while it is loaded, summed and stored.

numba leaves vectors to the compiler, which turns short loops of known length into scalar code and the odd end of a
longer one too. Here a row of 8, 16, 24 or 32 numbers is a type of its own, so the kernels say what they mean:

    total = row_zero(lanes)
    for e in range(start, stop):
        total = row_fma(weight[e], row_load(lanes, table, index[e] * width), total)

`lanes` is a tuple of 1 to 4 zeros: its length, known to the compiler, is the row's width over 8. Rows are float32 in
registers; in memory they are float32, or uint16 for the numbers 0..65535.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

_FLOAT, _INT16, _INT32 = ir.FloatType(), ir.IntType(16), ir.IntType(32)

# 2^f on [-1/2, 1/2] by its Taylor series, coefficients ln(2)^k / k!: relative error below 2e-7
_LN2 = 0.6931471805599453
_EXP2 = [1.0, _LN2, _LN2**2 / 2, _LN2**3 / 6, _LN2**4 / 24, _LN2**5 / 120, _LN2**6 / 720]
EXP_FLOOR = -40.0  # e^-40: far below what a probability is stored with, far above the slow denormal numbers


class Row(types.Type):
    """numba type of a row of `width` float32 in registers, in parts of 16 or 8 lanes that processors have."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.parts = [16] * (width // 16) + [8] * (width % 16 // 8)
        super().__init__(name=f"Row{width}")


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, row: Row) -> None:
        super().__init__(manager, row, ir.LiteralStructType([ir.VectorType(_FLOAT, n) for n in row.parts]))


def _row_of(lanes: Any) -> Row:
    return Row(8 * len(lanes))


def _splat(builder: ir.IRBuilder, scalar: ir.Value, n: int) -> ir.Value:
    """A vector of n copies of `scalar`."""
    undefined = ir.Constant(ir.VectorType(scalar.type, n), ir.Undefined)
    vector = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_INT32, n), [0] * n))


def _constant(value: float, n: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_FLOAT, n), [float(value)] * n)


def _call(builder: ir.IRBuilder, name: str, *vectors: ir.Value) -> ir.Value:
    """Call LLVM's vector intrinsic `name`, all arguments and the result of one type."""
    kind = vectors[0].type
    full_name = f"llvm.{name}.v{kind.count}f32"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(vectors)), full_name
    )
    return builder.call(function, vectors)


def _by_parts(
    builder: ir.IRBuilder, row: Row, values: list[ir.Value], f: Callable[..., ir.Value]
) -> ir.Value:
    """Apply `f(n, *vectors)` to each part of the rows `values` and join the results to a row."""
    kind = ir.LiteralStructType([ir.VectorType(_FLOAT, n) for n in row.parts])
    result = ir.Constant(kind, ir.Undefined)
    for k, n in enumerate(row.parts):
        part = f(n, *(builder.extract_value(v, k) for v in values))
        result = builder.insert_value(result, part, k)
    return result


def _pointer(
    context: Any, builder: ir.IRBuilder, kind: Any, array: Any, index: Any, vector: ir.Type
) -> ir.Value:
    scratch_memory = isinstance(kind, types.CPointer)
    data = array if scratch_memory else context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
def scratch(typing: Any, kind: Any, size: Any) -> Any:
    """scratch(np.float32, size): memory for `size` numbers, as it is, until the function returns; outside of loops."""
    number = kind.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.alloca(context.get_data_type(number), args[1])

    return types.CPointer(number)(kind, types.intp), generate


@intrinsic
def row_zero(typing: Any, lanes: Any) -> Any:
    """row_zero(lanes): zeros."""
    row = _row_of(lanes)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _by_parts(builder, row, [], lambda n: _constant(0.0, n))

    return row(lanes), generate


@intrinsic
def row_load(typing: Any, lanes: Any, array: Any, index: Any) -> Any:
    """row_load(lanes, array, index): the row at array[index:], from float32 or uint16."""
    row, small = _row_of(lanes), array.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result, offset = ir.Constant(context.get_value_type(row), ir.Undefined), 0
        for k, n in enumerate(row.parts):
            kind = ir.VectorType(_INT16 if small else _FLOAT, n)
            at = builder.add(args[2], ir.Constant(args[2].type, offset))
            part = builder.load(_pointer(context, builder, signature.args[1], args[1], at, kind))
            part.align = 2 if small else 4
            if small:
                part = builder.sitofp(builder.zext(part, ir.VectorType(_INT32, n)), ir.VectorType(_FLOAT, n))
            result = builder.insert_value(result, part, k)
            offset += n
        return result

    return row(lanes, array, types.intp), generate


@intrinsic
def row_store(typing: Any, array: Any, index: Any, row: Any) -> Any:
    """row_store(array, index, row): write `row` to array[index:]; to uint16, rounded, it must be within 0..65535."""
    return types.void(array, types.intp, row), _store(array, row, lambda builder, args, n: _constant(0.5, n))


@intrinsic
def row_dither(typing: Any, array: Any, index: Any, row: Any, threshold: Any) -> Any:
    """row_dither(array, index, row, threshold): write the whole part of `row` + threshold to uint16 array[index:].

    Thresholds, 0..1, that are spread evenly make rounding errors that cancel where rows are summed.
    """
    signature = types.void(array, types.intp, row, types.float32)
    return signature, _store(array, row, lambda builder, args, n: _splat(builder, args[3], n))


def _store(array: Any, row: Row, added: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
    """Code that writes args[2] to args[0][args[1]:]; in front of uint16, `added`(builder, args, lanes) comes to it."""
    small = array.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = 0
        for k, n in enumerate(row.parts):
            kind = ir.VectorType(_INT16 if small else _FLOAT, n)
            part = builder.extract_value(args[2], k)
            if small:
                part = builder.fadd(part, added(builder, args, n))
                part = builder.trunc(builder.fptosi(part, ir.VectorType(_INT32, n)), kind)
            at = builder.add(args[1], ir.Constant(args[1].type, offset))
            store = builder.store(part, _pointer(context, builder, signature.args[0], args[0], at, kind))
            store.align = 2 if small else 4
            offset += n
        return context.get_dummy_value()

    return generate


@intrinsic
def row_prefetch(typing: Any, lanes: Any, array: Any, index: Any) -> Any:
    """row_prefetch(lanes, array, index): bring the row at array[index:] near, to be read and written soon."""
    row, size = _row_of(lanes), array.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, flag = ir.IntType(8).as_pointer(), _INT32
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        last = row.width - 1  # a row may lie across two cache lines
        for offset in range(0, row.width, 64 // size) if row.width * size % 64 == 0 else (0, last):
            at = builder.add(args[2], ir.Constant(args[2].type, offset))
            pointer = _pointer(context, builder, signature.args[1], args[1], at, ir.IntType(8))
            builder.call(function, [pointer, *(ir.Constant(flag, v) for v in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(lanes, array, types.intp), generate


@intrinsic
def row_fma(typing: Any, scalar: Any, a: Any, b: Any) -> Any:
    """row_fma(scalar, a, b): scalar * a + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar_value = args[0]
        return _by_parts(
            builder,
            a,
            [args[1], args[2]],
            lambda n, x, y: _call(builder, "fma", _splat(builder, scalar_value, n), x, y),
        )

    return a(types.float32, a, a), generate


@intrinsic
def row_scale(typing: Any, scalar: Any, a: Any) -> Any:
    """row_scale(scalar, a): scalar * a."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _by_parts(builder, a, [args[1]], lambda n, x: builder.fmul(_splat(builder, args[0], n), x))

    return a(types.float32, a), generate


@intrinsic
def row_add(typing: Any, a: Any, b: Any) -> Any:
    """row_add(a, b): a + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _by_parts(builder, a, list(args), lambda n, x, y: builder.fadd(x, y))

    return a(a, a), generate


@intrinsic
def row_multiply(typing: Any, a: Any, b: Any) -> Any:
    """row_multiply(a, b): the product of each pair."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _by_parts(builder, a, list(args), lambda n, x, y: builder.fmul(x, y))

    return a(a, a), generate


@intrinsic
def row_max(typing: Any, a: Any, b: Any) -> Any:
    """row_max(a, b): the larger of each pair."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _by_parts(
            builder, a, list(args), lambda n, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y)
        )

    return a(a, a), generate


@intrinsic
def row_exp(typing: Any, a: Any, shift: Any) -> Any:
    """row_exp(a, shift): e^max(a - shift, EXP_FLOOR), for a - shift <= 80."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def part(n: int, x: ir.Value) -> ir.Value:
            x = builder.fsub(x, _splat(builder, args[1], n))
            floor = _constant(EXP_FLOOR, n)
            x = builder.select(builder.fcmp_ordered(">", x, floor), x, floor)
            power = builder.fmul(x, _constant(1 / _LN2, n))
            whole = _call(builder, "nearbyint", power)
            f = builder.fsub(power, whole)
            value: ir.Value = _constant(_EXP2[-1], n)
            for coefficient in _EXP2[-2::-1]:
                value = _call(builder, "fma", value, f, _constant(coefficient, n))
            integers = ir.VectorType(_INT32, n)
            exponent = builder.shl(builder.fptosi(whole, integers), ir.Constant(integers, [23] * n))
            return builder.bitcast(builder.add(builder.bitcast(value, integers), exponent), value.type)

        return _by_parts(builder, a, [args[0]], part)

    return a(a, types.float32), generate


def _reduce(
    builder: ir.IRBuilder, row: Row, value: ir.Value, f: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """Reduce a row to a number by halves, always in the same order."""
    vectors = []
    for k, n in enumerate(row.parts):
        vector = builder.extract_value(value, k)
        if n == 16:
            low, high = (ir.Constant(ir.VectorType(_INT32, 8), list(range(s, s + 8))) for s in (0, 8))
            vector = f(
                builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high)
            )
        vectors.append(vector)
    total = vectors[0]
    for vector in vectors[1:]:
        total = f(total, vector)
    for n in (4, 2, 1):
        low, high = (ir.Constant(ir.VectorType(_INT32, n), list(range(s, s + n))) for s in (0, n))
        total = f(builder.shuffle_vector(total, total, low), builder.shuffle_vector(total, total, high))
    return builder.extract_element(total, ir.Constant(_INT32, 0))


@intrinsic
def row_sum(typing: Any, a: Any) -> Any:
    """row_sum(a): the sum of the row."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduce(builder, a, args[0], builder.fadd)

    return types.float32(a), generate


@intrinsic
def row_top(typing: Any, a: Any) -> Any:
    """row_top(a): the largest of the row."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduce(
            builder, a, args[0], lambda x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y)
        )

    return types.float32(a), generate
