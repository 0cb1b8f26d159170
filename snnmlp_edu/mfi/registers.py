"""Sums of table rows that stay in vector registers until they are complete; needs numba.

A sum in memory would be read and written again for each row that is added. LLVM does not find out by itself
that this is not needed, so the loop over the rows is written for it.
"""

from __future__ import annotations

import llvmlite.ir as llvm
import numba
from numba.core import cgutils, types
from numba.extending import intrinsic

whole = numba.uintp  # a signed index would be tested for being negative, each time
compiled = numba.njit(nogil=True, cache=True)

REGISTER = 64  # bytes of a vector register; narrower processors take two for it
REGISTERS = 8  # sums that are kept in registers at once


def _registers(number):
    """A function that adds rows in as many vector registers, which LLVM does not find out by itself."""

    @intrinsic
    def add(typing, sums, start, table, base, width, rows, n, column, last):
        """`sums[start + c] = table[base + c] + sum of table[base + width * row + c]`, c from column on."""

        def generate(context, builder, signature, values):
            sums, start, table, base, width, rows, n, column, last = values
            into, source, listed = (
                context.make_array(signature.args[k])(context, builder, array).data
                for k, array in ((0, sums), (2, table), (5, rows))
            )
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
                row = builder.load(builder.gep(listed, [loop.index]))
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
