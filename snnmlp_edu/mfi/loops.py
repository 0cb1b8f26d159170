"""Compiled loops over spikes: find events, add their rows, fire. They need numba.

One pass does for each place what the network does for all: the spikes of one place are found, their weight
rows added, and the neurons behind fire, while all of it is near in memory.

The search reads floating point numbers as the whole numbers that their bits spell, which is exact and quick
to compare. A tally of four numbers goes along: spikes found; all bits seen; the sum of all bits but for the
lowest; and how many of these are left out, as many as are 0 at the end of a 1.

Arrays are flat here and positions unsigned: a view of a row, or a test for a negative index, would take as
long as the work on a short row.
"""

from __future__ import annotations

import llvmlite.ir as llvm
import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

_whole = numba.uintp
REGISTER = 64  # bytes of a vector register; narrower processors take two for it
REGISTERS = 8  # sums that are kept in registers at once

_compiled = numba.njit(nogil=True, cache=True)


@_compiled
def _find(values, at, stride, width, first, rows, n, tally):
    """Append `first + k` to `rows[:n]` for each k below width where there is a spike; the new n."""
    zero, one, low = _whole(0), _whole(1), tally[3]
    seen, total, begin, k = zero, zero, n, zero
    while k < width:
        bits = _whole(values[at])
        # Written always, counted only where it fired: no branch that could be guessed wrong.
        rows[n] = first + k
        n += _whole(bits != zero)
        seen |= bits
        total += bits >> low
        at += stride
        k += one
    tally[0] += n - begin
    tally[1] |= seen
    tally[2] += total
    return n


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


@_compiled
def _sum_rows(sums, start, table, base, width, rows, n):
    """`sums[start:start + width]`: row 0 of the table that begins at base, and all listed rows of it."""
    lanes, one = _whole(REGISTER // table.itemsize), _whole(1)
    if width < lanes:
        q = _whole(0)
        while q < width:
            total, k = table[base + q], _whole(0)
            while k < n:
                total += table[base + rows[k] * width + q]
                k += one
            sums[start + q] = total
            q += one
        return
    c, full = _whole(0), lanes * _whole(REGISTERS)
    while c + full < width:
        _eight(sums, start, table, base, width, rows, n, c, full - lanes)
        c += full
    if width - c < lanes:
        c = width - lanes
    last = width - c - lanes
    registers = (last + lanes - one) // lanes + one
    if registers == _whole(1):
        _one(sums, start, table, base, width, rows, n, c, last)
    elif registers == _whole(2):
        _two(sums, start, table, base, width, rows, n, c, last)
    elif registers == _whole(3):
        _three(sums, start, table, base, width, rows, n, c, last)
    elif registers == _whole(4):
        _four(sums, start, table, base, width, rows, n, c, last)
    elif registers == _whole(5):
        _five(sums, start, table, base, width, rows, n, c, last)
    elif registers == _whole(6):
        _six(sums, start, table, base, width, rows, n, c, last)
    elif registers == _whole(7):
        _seven(sums, start, table, base, width, rows, n, c, last)
    else:
        _eight(sums, start, table, base, width, rows, n, c, last)


@_compiled
def _add_row(sums, start, table, base, width):
    q, one = _whole(0), _whole(1)
    while q < width:
        sums[start + q] += table[base + q]
        q += one


@_compiled
def _step(drive, membrane, row, width, spikes, to, neuron):
    """One step of a row of LIF neurons without input gain."""
    beta, threshold, inclusive, hard = neuron
    rest, q, one = membrane.dtype.type(0), _whole(0), _whole(1)
    while q < width:
        potential = beta * membrane[row + q] + drive[q]
        fires = potential >= threshold if inclusive else potential > threshold
        spikes[to + q] = fires
        after = rest if hard else potential - threshold
        membrane[row + q] = after if fires else potential
        q += one


@_compiled
def sum_whole_rows(table, width, rows, bounds, start, stop, sums):
    """The rows of the bags `start` to `stop` added up, as whole numbers."""
    for bag in range(start, stop):
        for k in range(bounds[bag], bounds[bag + 1]):
            at = np.int64(rows[k]) * width
            for q in range(width):
                sums[bag * width + q] += table[at + q]


@_compiled
def scan_places(values, after, features, strides, start, stop, rows, bounds, tally):
    """Write the events of the places `start` to `stop` of `[before, after, features]`; their number."""
    n, one = _whole(0), _whole(1)
    along, across = _whole(strides[0]), _whole(strides[1])
    i = _whole(start)
    while i < _whole(stop):
        j = _whole(0)
        while j < _whole(after):
            rows[n] = 0
            at = i * _whole(after) * _whole(features) + j * across
            n = _find(values, at, along, _whole(features), one, rows, n + one, tally)
            bounds[i * _whole(after) + j + one] = n
            j += one
        i += one
    return n


@_compiled
def fire_places(spikes, widths, tables, table_size, shortcut, neuron, shape, start, stop, fired, kept, tally):
    """Map along the channels, add the shortcut and fire, at the places `start` to `stop`.

    `shape` is T, places and channels out; `spikes` are three arrays `[T, places, width]`, some perhaps of
    width 0; `shortcut` and `kept` are `[T, places, out]` or empty; each step's table begins `table_size`
    behind the last.
    """
    steps, places, out = _whole(shape[0]), _whole(shape[1]), _whole(shape[2])
    one, size = _whole(1), _whole(table_size)
    first, second, third = _whole(widths[0]), _whole(widths[1]), _whole(widths[2])
    rows = np.empty(first + second + third + one, np.uintp)
    sums, membrane = np.empty(out, tables.dtype), np.empty(out, tables.dtype)
    i = _whole(start)
    while i < _whole(stop):
        membrane[:] = 0
        t = _whole(0)
        while t < steps:
            place = t * places + i
            n = _find(spikes[0], place * first, one, first, one, rows, _whole(0), tally)
            n = _find(spikes[1], place * second, one, second, one + first, rows, n, tally)
            n = _find(spikes[2], place * third, one, third, one + first + second, rows, n, tally)
            _sum_rows(sums, _whole(0), tables, t * size, out, rows, n)
            q, at = _whole(0), place * out
            if len(shortcut) > 0:
                while q < out:
                    sums[q] += shortcut[at + q]
                    q += one
            if len(kept) > 0:
                q = _whole(0)
                while q < out:
                    kept[at + q] = sums[q]
                    q += one
            _step(sums, membrane, _whole(0), out, fired, at, neuron)
            t += one
        i += one


@_compiled
def fire_lines(spikes, tables, table_size, neuron, shape, strides, start, stop, fired, tally):
    """Map along lines and fire, for the lines `start` to `stop`.

    `shape` is T, batch, lines, positions in a line and channels; `strides` the distance of steps, images,
    lines and positions in memory. Channels are next to each other.
    """
    steps, lines = _whole(shape[0]), _whole(shape[2])
    positions, channels = _whole(shape[3]), _whole(shape[4])
    by_step, by_image, by_line, by_position = (
        _whole(strides[0]),
        _whole(strides[1]),
        _whole(strides[2]),
        _whole(strides[3]),
    )
    one, size = _whole(1), _whole(table_size)
    rows = np.empty(channels + one, np.uintp)
    sums = np.empty(channels * positions, tables.dtype)
    membrane = np.empty(positions * channels, tables.dtype)
    drive = np.empty(channels, tables.dtype)
    line = _whole(start)
    while line < _whole(stop):
        membrane[:] = 0
        t = _whole(0)
        while t < steps:
            at = t * by_step + (line // lines) * by_image + (line % lines) * by_line
            c = _whole(0)
            while c < channels:
                p = _whole(0)
                while p < positions:
                    sums[c * positions + p] = tables[t * size + p]
                    p += one
                c += one
            p = _whole(0)
            while p < positions:
                n = _find(spikes, at + p * by_position, one, channels, _whole(0), rows, _whole(0), tally)
                source, k = t * size + (p + one) * positions, _whole(0)
                while k < n:
                    _add_row(sums, rows[k] * positions, tables, source, positions)
                    k += one
                p += one
            p = _whole(0)
            while p < positions:
                c = _whole(0)
                while c < channels:  # the channels next to each other, for the neurons to go fast
                    drive[c] = sums[c * positions + p]
                    c += one
                to = at + p * by_position
                _step(drive, membrane, p * channels, channels, fired, to, neuron)
                p += one
            t += one
        line += one
