"""Work on vector registers that LLVM does not vectorise by itself; needs numba.

A sum in memory would be read and written again for each row that is added: here it stays in registers until
it is complete. And a search for spikes would look at one value after the other: here at a register of them.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import llvmlite.ir as llvm
import numba
from numba.core import cgutils, types
from numba.extending import intrinsic

whole = numba.uintp  # a signed index would be tested for being negative, each time
compiled = numba.njit(nogil=True, cache=True)

REGISTER = 64  # bytes of a vector register; narrower processors take two for it
REGISTERS = 8  # sums that are kept in registers at once

# Only these processors write the chosen lanes of a register in one instruction.
_COMPRESSES = llvmlite.binding.get_host_cpu_features().get("avx512vl", False)


def _data(context: Any, builder: Any, signature: Any, arrays: dict[int, Any]) -> list[Any]:
    """Where the data of arrays begin, given by the place of each among the arguments."""
    return [
        context.make_array(signature.args[k])(context, builder, array).data for k, array in arrays.items()
    ]


def _find_in_register(typing: Any, values: Any, at: Any, base: Any, rows: Any, n: Any, one: Any) -> Any:
    """Write `base + lane` to `rows[n:]` for each lane of a register of values that is not 0.

    Returns their number, plus 256 times a map of the lanes that are neither 0 nor one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at, base, rows, n, one = arguments
        source, target = _data(context, builder, signature, {0: values, 3: rows})
        scalar, index = (context.get_data_type(signature.args[k].dtype) for k in (0, 3))
        size = context.get_abi_sizeof(scalar)
        lanes = REGISTER // size
        numbers, indices = llvm.VectorType(scalar, lanes), llvm.VectorType(index, lanes)

        def spread(value: Any, kind: Any) -> Any:
            unset = llvm.Constant(kind, llvm.Undefined)
            zeros = llvm.Constant(llvm.VectorType(cgutils.int32_t, lanes), [0] * lanes)
            first = builder.insert_element(unset, value, cgutils.int32_t(0))
            return builder.shuffle_vector(first, unset, zeros)

        found = builder.load(builder.bitcast(builder.gep(source, [at]), numbers.as_pointer()), align=size)
        fired = builder.icmp_unsigned("!=", found, llvm.Constant(numbers, [0] * lanes))
        spike = builder.trunc(one, scalar) if size < context.get_abi_sizeof(one.type) else one
        other = builder.icmp_unsigned("!=", found, spread(spike, numbers))
        first = spread(builder.trunc(base, index), indices)
        listed = builder.add(first, llvm.Constant(indices, list(range(lanes))))
        flags, bits = llvm.VectorType(llvm.IntType(1), lanes), llvm.IntType(lanes)
        store = llvm.FunctionType(llvm.VoidType(), [indices, index.as_pointer(), flags])
        name = f"llvm.masked.compressstore.v{lanes}i{index.width}"
        compress = cgutils.get_or_insert_function(builder.module, store, name)
        builder.call(compress, [listed, builder.gep(target, [n]), fired])
        number = builder.zext(builder.ctpop(builder.bitcast(fired, bits)), n.type)
        wrong = builder.zext(builder.bitcast(builder.and_(fired, other), bits), n.type)
        return builder.add(number, builder.shl(wrong, llvm.Constant(n.type, 8)))

    return types.uintp(values, at, base, rows, n, one), generate


find_in_register: Any = intrinsic(_find_in_register)


@compiled
def find(values, at, stride, width, first, rows, n, tally):
    """Append `first + k` to `rows[:n]` for each k below width where there is a spike; the new n.

    `tally` counts the spikes, collects what is neither 0 nor 1, and knows how a 1 is spelt.
    """
    zero, one, spike = whole(0), whole(1), tally[2]
    begin, wrong, k = n, zero, zero
    if _COMPRESSES and stride == one:
        lanes, low = whole(REGISTER // values.itemsize), whole(255)
        while k + lanes <= width:
            found = find_in_register(values, at + k, first + k, rows, n, spike)
            n += found & low
            wrong |= found >> whole(8)
            k += lanes
    while k < width:
        bits = whole(values[at + k * stride])
        # Written always, counted only where it fired: no branch that could be guessed wrong.
        rows[n] = first + k
        fired = whole(bits != zero)
        n += fired
        wrong |= (bits ^ spike) & (zero - fired)
        k += one
    tally[0] += n - begin
    tally[1] |= wrong
    return n


def _scattering(number: int) -> Any:
    """A function that adds one row, kept in as many registers, to several sums."""

    @intrinsic
    def add(typing, sums, start, width, table, base, rows, n):
        """`sums[start + width * row + c] += table[base + c]` for the listed rows, c in the registers."""

        def generate(context, builder, signature, arguments):
            sums, start, width, table, base, rows, n = arguments
            into, source, listed = _data(context, builder, signature, {0: sums, 3: table, 5: rows})
            scalar = context.get_data_type(signature.args[0].dtype)
            size = context.get_abi_sizeof(scalar)
            lanes = REGISTER // size
            vector = llvm.VectorType(scalar, lanes).as_pointer()

            def part(pointer, k):
                ahead = llvm.Constant(start.type, k * lanes)
                return builder.bitcast(builder.gep(pointer, [ahead]), vector)

            source, into = builder.gep(source, [base]), builder.gep(into, [start])
            row = [builder.load(part(source, k), align=size) for k in range(number)]
            with cgutils.for_range(builder, n) as loop:
                which = builder.zext(builder.load(builder.gep(listed, [loop.index])), start.type)
                to = builder.gep(into, [builder.mul(which, width)])
                for k, values in enumerate(row):
                    total = builder.fadd(builder.load(part(to, k), align=size), values)
                    builder.store(total, part(to, k), align=size)
            return context.get_dummy_value()

        return types.void(sums, start, width, table, base, rows, n), generate

    return add


_add_one, _add_four = _scattering(1), _scattering(4)


@compiled
def add_row(sums, width, table, base, rows, n):
    """Add the row of a table that begins at base to the sums of all listed rows, `[rows, width]`.

    The width is a whole number of registers.
    """
    lanes, c = whole(REGISTER // table.itemsize), whole(0)
    while c + lanes * whole(4) <= width:
        _add_four(sums, c, width, table, base + c, rows, n)
        c += lanes * whole(4)
    while c < width:
        _add_one(sums, c, width, table, base + c, rows, n)
        c += lanes


def _registers(number):
    """A function that adds rows in as many vector registers, which LLVM does not vectorise by itself."""

    @intrinsic
    def add(typing, sums, start, table, base, width, rows, n, column, last):
        """`sums[start + c] = table[base + c] + sum of table[base + width * row + c]`, c from column on."""

        def generate(context, builder, signature, values):
            sums, start, table, base, width, rows, n, column, last = values
            into, source, listed = _data(context, builder, signature, {0: sums, 2: table, 5: rows})
            scalar = context.get_data_type(signature.args[0].dtype)
            size = context.get_abi_sizeof(scalar)
            vector = llvm.VectorType(scalar, REGISTER // size).as_pointer()
            into = builder.gep(into, [builder.add(start, column)])
            source = builder.gep(source, [builder.add(base, column)])

            def part(pointer, k):
                # The last register ends where the row ends, even if it repeats some columns.
                ahead = last if k == number - 1 else llvm.Constant(last.type, k * (REGISTER // size))
                return builder.bitcast(builder.gep(pointer, [ahead]), vector)

            totals = [
                cgutils.alloca_once_value(builder, builder.load(part(source, k), align=size))
                for k in range(number)
            ]
            with cgutils.for_range(builder, n) as loop:
                row = builder.zext(builder.load(builder.gep(listed, [loop.index])), width.type)
                at = builder.gep(source, [builder.mul(row, width)])
                for k, total in enumerate(totals):
                    more = builder.load(part(at, k), align=size)
                    builder.store(builder.fadd(builder.load(total), more), total)
            for k, total in enumerate(totals):
                builder.store(builder.load(total), part(into, k), align=size)
            return context.get_dummy_value()

        return types.void(sums, start, table, base, width, rows, n, column, last), generate

    return add


_one, _two, _three, _four = (_registers(number) for number in (1, 2, 3, 4))
_five, _six, _seven, _eight = (_registers(number) for number in (5, 6, 7, 8))


@compiled
def sum_rows(sums, start, table, base, width, rows, n):
    """`sums[start:start + width]`: row 0 of the table that begins at base, and all listed rows of it."""
    lanes, one = whole(REGISTER // table.itemsize), whole(1)
    if width < lanes:
        q = whole(0)
        while q < width:
            total, k = table[base + q], whole(0)
            while k < n:
                total += table[base + rows[k] * width + q]
                k += one
            sums[start + q] = total
            q += one
        return
    c, full = whole(0), lanes * whole(REGISTERS)
    while c + full < width:
        _eight(sums, start, table, base, width, rows, n, c, full - lanes)
        c += full
    if width - c < lanes:
        c = width - lanes
    last = width - c - lanes
    registers = (last + lanes - one) // lanes + one
    if registers == whole(1):
        _one(sums, start, table, base, width, rows, n, c, last)
    elif registers == whole(2):
        _two(sums, start, table, base, width, rows, n, c, last)
    elif registers == whole(3):
        _three(sums, start, table, base, width, rows, n, c, last)
    elif registers == whole(4):
        _four(sums, start, table, base, width, rows, n, c, last)
    elif registers == whole(5):
        _five(sums, start, table, base, width, rows, n, c, last)
    elif registers == whole(6):
        _six(sums, start, table, base, width, rows, n, c, last)
    elif registers == whole(7):
        _seven(sums, start, table, base, width, rows, n, c, last)
    else:
        _eight(sums, start, table, base, width, rows, n, c, last)
