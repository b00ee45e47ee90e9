"""The compiler of `compiled_loop`: numba's function, and around it a region that hands it piece after piece.

    void region(int64 words[])

takes pieces of 0..N, lo..hi, calls the function with each, and returns when none is left; any number of threads may.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

# What a region is called with, 64-bit words: the piece that is next, of how many, of what range, whether one failed,
# and the loop's own arguments, an array as its address
NEXT, PIECES, N, FAILED, ARGUMENTS = range(5)


def compile_region(module: str, name: str, kinds: tuple[str, ...], symbol: str) -> tuple[bytes, set[str]]:
    """An object file with the region of a loop under the name `symbol`, and the functions that it wants from outside.

    kinds: of the arguments, as `compiled_loop` names them.
    """
    # half a second, spared where the code is kept
    import numba
    from numba import types
    from numba.core.compiler_lock import global_compiler_lock

    function = getattr(importlib.import_module(module), name)
    signature = (types.int64, types.int64, *map(_type_of, kinds))
    njit: Any = numba.njit  # whose types do not know all that it takes
    compiler = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    compiler.compile(signature)
    loop = compiler.overloads[signature]
    library = loop.target_context.codegen().create_library(symbol)
    library.enable_object_caching()
    library.add_linking_library(loop.library)
    library.add_ir_module(_region(library.create_ir_module(symbol), loop, signature, symbol))
    with global_compiler_lock:
        library.finalize()
    declared = re.findall(r'^declare [^@]*@"?([^("]+)', library.get_llvm_str(), re.MULTILINE)
    return library._get_compiled_object(), {wanted for wanted in declared if not wanted.startswith("llvm.")}


def _type_of(kind: str) -> Any:
    from numba import types

    if kind.startswith("*"):
        return types.CPointer(getattr(types, kind[1:]))
    return types.UniTuple(types.int64, int(kind[1:-1])) if kind.startswith("(") else types.int64


def _region(module: Any, loop: Any, signature: tuple[Any, ...], symbol: str) -> Any:
    """The region, under the name `symbol`."""
    from llvmlite import ir
    from numba import types

    word = ir.IntType(64)
    context = loop.target_context
    region = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer()]), symbol)
    begin, again, piece, end = (
        region.append_basic_block(part) for part in ("begin", "again", "piece", "end")
    )
    callee = context.declare_function(module, loop.fndesc)
    (words,) = region.args

    def at(index: int) -> Any:
        return builder.gep(words, [ir.Constant(word, index)])

    builder = ir.IRBuilder(begin)
    pieces, n = builder.load(at(PIECES)), builder.load(at(N))
    given, index = [], ARGUMENTS
    for kind in signature[2:]:
        count = len(kind) if isinstance(kind, types.UniTuple) else 1
        numbers = [builder.load(at(index + i)) for i in range(count)]
        if isinstance(kind, types.UniTuple):
            given.append(context.make_tuple(builder, kind, numbers))
        elif isinstance(kind, types.CPointer):
            given.append(builder.inttoptr(numbers[0], context.get_value_type(kind)))
        else:
            given.append(numbers[0])
        index += count
    builder.branch(again)

    builder.position_at_end(again)
    t = builder.atomic_rmw("add", at(NEXT), ir.Constant(word, 1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", t, pieces), piece, end)

    builder.position_at_end(piece)
    one = ir.Constant(word, 1)
    lo, hi = (builder.sdiv(builder.mul(n, part), pieces) for part in (t, builder.add(t, one)))
    status, _ = context.call_conv.call_function(builder, callee, types.none, signature, [lo, hi, *given])
    with builder.if_then(status.is_error, likely=False):
        builder.store(one, at(FAILED))
    builder.branch(again)

    builder.position_at_end(end)
    builder.ret_void()
    return module
