"""Compiled loops over spikes: find events, add their rows, fire. They need numba.

One pass does for each place what the network does for all: the spikes of one place are found, their weight
rows added, and the next neurons fire, while all of it is near in memory.

The search reads floating point numbers as the integers that have the same bits, which is exact and quick
to compare. A tally of three numbers goes along: spikes found; what was neither 0 nor 1; how a 1 is spelt.

Arrays are flat here and positions unsigned: a view of a row, or a test for a negative index, would take as
long as the work on a short row. Each loop is cut into as many pieces as there are threads to share them.
"""

from __future__ import annotations

import numba
import numpy as np

from .registers import add_row, compiled, find, sum_rows, whole

parallel = numba.njit(parallel=True, nogil=True, cache=True)


@compiled
def _step(drive, membrane, row, width, spikes, to, neuron):
    """One step of a row of LIF neurons without input gain."""
    beta, threshold, inclusive, hard = neuron
    rest, q, one = membrane.dtype.type(0), whole(0), whole(1)
    while q < width:
        potential = beta * membrane[row + q] + drive[q]
        fires = potential >= threshold if inclusive else potential > threshold
        spikes[to + q] = fires
        after = rest if hard else potential - threshold
        membrane[row + q] = after if fires else potential
        q += one


@compiled
def _sum_whole_rows(table, width, rows, bounds, start, stop, sums):
    """The rows of the bags `start` to `stop` added up, as whole numbers."""
    for bag in range(start, stop):
        for k in range(bounds[bag], bounds[bag + 1]):
            at = np.int64(rows[k]) * width
            for q in range(width):
                sums[bag * width + q] += table[at + q]


@compiled
def _sum_windows(rows, bounds, table, out, channels, geometry, start, stop, sums, buffer):
    """`sum_windows` for the windows `start` to `stop`; how many rows were added."""
    tall, wide, down, across, kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x = geometry
    added = whole(0)
    for window in range(start, stop):
        image, inside = window // (down * across), window % (down * across)
        top, left = inside // across * stride_y - pad_y, inside % across * stride_x - pad_x
        n = whole(0)
        for tap in range(kernel_y * kernel_x):
            y, x = top + tap // kernel_x, left + tap % kernel_x
            if 0 <= y < tall and 0 <= x < wide:
                place, first = (image * tall + y) * wide + x, tap * channels
                for k in range(bounds[place] + 1, bounds[place + 1]):
                    buffer[n] = first + rows[k]
                    n += whole(1)
        sum_rows(sums, whole(window) * whole(out), table, whole(0), whole(out), buffer, n)
        added += n
    return added


@compiled
def _scan_places(values, after, features, strides, start, stop, rows, bounds, tally):
    """Write the events of the places `start` to `stop`; their number."""
    n, one = whole(0), whole(1)
    along, across = whole(strides[0]), whole(strides[1])
    i = whole(start)
    while i < whole(stop):
        j = whole(0)
        while j < whole(after):
            rows[n] = 0
            at = i * whole(after) * whole(features) + j * across
            n = find(values, at, along, whole(features), one, rows, n + one, tally)
            bounds[i * whole(after) + j + one] = n
            j += one
        i += one
    return n


@compiled
def _fire_places(
    spikes, widths, tables, table_size, shortcut, neuron, shape, start, stop, fired, kept, tally
):
    """`fire_places` for the places `start` to `stop`."""
    steps, places, out = whole(shape[0]), whole(shape[1]), whole(shape[2])
    one, size = whole(1), whole(table_size)
    first, second, third = whole(widths[0]), whole(widths[1]), whole(widths[2])
    rows = np.empty(first + second + third + one, np.int32)
    sums, membrane = np.empty(out, tables.dtype), np.empty(out, tables.dtype)
    i = whole(start)
    while i < whole(stop):
        membrane[:] = 0
        t = whole(0)
        while t < steps:
            place = t * places + i
            n = find(spikes[0], place * first, one, first, one, rows, whole(0), tally)
            n = find(spikes[1], place * second, one, second, one + first, rows, n, tally)
            n = find(spikes[2], place * third, one, third, one + first + second, rows, n, tally)
            sum_rows(sums, whole(0), tables, t * size, out, rows, n)
            q, at = whole(0), place * out
            if len(shortcut) > 0:
                while q < out:
                    sums[q] += shortcut[at + q]
                    q += one
            if len(kept) > 0:
                q = whole(0)
                while q < out:
                    kept[at + q] = sums[q]
                    q += one
            _step(sums, membrane, whole(0), out, fired, at, neuron)
            t += one
        i += one


@compiled
def _fire_lines(spikes, tables, table_size, row_size, neuron, shape, strides, start, stop, fired, tally):
    """`fire_lines` for the lines `start` to `stop`."""
    steps, lines = whole(shape[0]), whole(shape[2])
    positions, channels = whole(shape[3]), whole(shape[4])
    by_step, by_image, by_line, by_position = (
        whole(strides[0]),
        whole(strides[1]),
        whole(strides[2]),
        whole(strides[3]),
    )
    one, size, padded = whole(1), whole(table_size), whole(row_size)
    rows = np.empty(channels + one, np.int32)
    sums = np.empty(channels * padded, tables.dtype)
    membrane = np.empty(positions * channels, tables.dtype)
    drive = np.empty(channels, tables.dtype)
    line = whole(start)
    while line < whole(stop):
        membrane[:] = 0
        t = whole(0)
        while t < steps:
            at = t * by_step + (line // lines) * by_image + (line % lines) * by_line
            c = whole(0)
            while c < channels * padded:
                p = whole(0)
                while p < padded:
                    sums[c + p] = tables[t * size + p]
                    p += one
                c += padded
            p = whole(0)
            while p < positions:
                n = find(spikes, at + p * by_position, one, channels, whole(0), rows, whole(0), tally)
                add_row(sums, padded, tables, t * size + (p + one) * padded, rows, n)
                p += one
            p = whole(0)
            while p < positions:
                c = whole(0)
                while c < channels:  # the channels next to each other, for the neurons to go fast
                    drive[c] = sums[c * padded + p]
                    c += one
                to = at + p * by_position
                _step(drive, membrane, p * channels, channels, fired, to, neuron)
                p += one
            t += one
        line += one


@parallel
def sum_whole_rows(pieces, table, width, rows, bounds, sums):
    """`sums`, `[bags, width]`, of the listed rows of a table of whole numbers."""
    bags = len(bounds) - 1
    for piece in numba.prange(pieces):
        start, stop = bags * piece // pieces, bags * (piece + 1) // pieces
        _sum_whole_rows(table, width, rows, bounds, start, stop, sums)


@parallel
def sum_windows(pieces, rows, bounds, table, out, channels, geometry, windows, sums, added):
    """Sums of all windows of a convolution, and into `added` how many rows each piece added for spikes.

    `rows` and `bounds` are the events of the input places, each with the bias first. `geometry` is height
    and width of the input, then of the output, then kernel, stride and padding, down and across.
    """
    for piece in numba.prange(pieces):
        start, stop = windows * piece // pieces, windows * (piece + 1) // pieces
        buffer = np.empty(geometry[4] * geometry[5] * channels, np.int32)
        added[piece] = _sum_windows(rows, bounds, table, out, channels, geometry, start, stop, sums, buffer)


@parallel
def scan_places(pieces, values, shape, strides, rows, bounds, ends, tallies):
    """Write the events of spikes `[before, after, features]`, each piece into a line of `rows`.

    `ends` gets the number of events of each piece; `bounds` are counted from the start of the piece.
    """
    before, after, features = shape
    for piece in numba.prange(pieces):
        start, stop = before * piece // pieces, before * (piece + 1) // pieces
        ends[piece] = _scan_places(
            values, after, features, strides, start, stop, rows[piece], bounds, tallies[piece]
        )


@parallel
def fire_places(pieces, spikes, widths, tables, size, shortcut, neuron, shape, fired, kept, tallies):
    """Map along the channels, add the shortcut and fire.

    `shape` is T, places and channels out; `spikes` are three arrays `[T, places, width]`, some perhaps of
    width 0; `shortcut` and `kept` are `[T, places, out]` or empty; each step's table begins `size` after
    the last.
    """
    for piece in numba.prange(pieces):
        start, stop = shape[1] * piece // pieces, shape[1] * (piece + 1) // pieces
        more = shortcut, neuron, shape, start, stop, fired, kept, tallies[piece]
        _fire_places(spikes, widths, tables, size, *more)


@parallel
def fire_lines(pieces, spikes, tables, size, row, neuron, shape, strides, fired, tallies):
    """Map along lines and fire.

    `shape` is T, batch, lines, positions in a line and channels; `strides` the distance of steps, images,
    lines and positions in memory. Channels are next to each other. Rows of the tables are `row` long, a
    whole number of registers, of which `positions` count; each step's table begins `size` after the last.
    """
    lines = shape[1] * shape[2]
    for piece in numba.prange(pieces):
        start, stop = lines * piece // pieces, lines * (piece + 1) // pieces
        more = neuron, shape, strides, start, stop, fired, tallies[piece]
        _fire_lines(spikes, tables, size, row, *more)
