"""Run the compiled loops on PyTorch's tensors, on as many threads as PyTorch uses."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from ...config import NeuronConfig
from . import loops

Array = np.ndarray[Any, Any]

# Below this many values, waking a second thread takes longer than the loop.
SHARE_FROM = 2**14

_one_at_a_time = threading.Lock()  # not every way in which numba runs threads allows for more


class BitPattern(NamedTuple):
    """The bits of 1 in a type of numbers: the type itself, that of its bits, and the bits."""

    number: Any
    bits: Any
    one: int


_SPELLING = {
    torch.float32: BitPattern(np.float32, np.uint32, 0x3F800000),
    torch.float64: BitPattern(np.float64, np.uint64, 0x3FF0000000000000),
}


def _flat(tensor: Tensor) -> Array:
    return tensor.numpy().reshape(-1)


def _bit_view(spikes: Tensor) -> Array:
    return _flat(spikes).view(_SPELLING[spikes.dtype].bits)


def _pieces(values: int) -> int:
    """Into how many pieces a loop over so many values is cut."""
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return min(torch.get_num_threads(), most) if values >= SHARE_FROM else 1


def _run(loop: Any, pieces: int, *arguments: Any) -> None:
    with _one_at_a_time:
        threads, before = torch.get_num_threads(), numba.get_num_threads()
        numba.set_num_threads(pieces)
        try:
            loop(pieces, *arguments)
        finally:
            numba.set_num_threads(before)
            if torch.get_num_threads() != threads:  # numba's start of its threads sets PyTorch's number, too
                torch.set_num_threads(threads)


def _tallies(pieces: int, dtype: torch.dtype) -> Array:
    return np.array([[0, 0, _SPELLING[dtype].one]] * pieces, np.uintp)


def _count(tallies: Array) -> int | None:
    """The number of spikes; None if a value was neither 0 nor 1."""
    return None if tallies[:, 1].any() else int(tallies[:, 0].sum())


def scan(spikes: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows and bounds of the events of spikes `[before, after, features]`, as `find_events` describes them.

    None if a value is neither 0 nor 1.
    """
    before, after, features = spikes.shape
    near = spikes.stride(2) == 1  # the features of a place are next to each other, or else the places are
    strides = (1, features) if near else (after, 1)
    bits = _bit_view(spikes if near else spikes.transpose(1, 2))
    pieces = _pieces(spikes.numel())
    longest = -(-before // pieces) * after * (1 + features) + 1
    rows, bounds = np.empty((pieces, longest), np.int32), np.zeros(before * after + 1, np.int32)
    ends, tallies = np.zeros(pieces, np.int64), _tallies(pieces, spikes.dtype)
    _run(loops.scan_places, pieces, bits, (before, after, features), strides, rows, bounds, ends, tallies)
    if _count(tallies) is None:
        return None
    found = np.concatenate([line[:end] for line, end in zip(rows, ends, strict=True)])
    for piece in range(1, pieces):
        start, stop = before * piece // pieces * after, before * (piece + 1) // pieces * after
        bounds[start + 1 : stop + 1] += ends[:piece].sum()
    return torch.from_numpy(found), torch.from_numpy(bounds)


def sum_integers(rows: Tensor, bounds: Tensor, table: Tensor) -> Tensor:
    """The sum of each bag's rows of a table of whole numbers, `[bags, out]` in int32."""
    sums = torch.zeros(len(bounds) - 1, table.shape[1], dtype=torch.int32)
    given = _flat(table), table.shape[1], rows.numpy(), bounds.numpy()
    _run(loops.sum_whole_rows, _pieces(len(rows)), *given, _flat(sums))
    return sums


def convolve(
    rows: Tensor, bounds: Tensor, table: Tensor, channels: int, number: int, geometry: tuple[int, ...]
) -> tuple[Tensor, int]:
    """Sums of all windows of a convolution, `[N, H', W', out]`, and how many rows were added for spikes.

    Args:
        rows: events of the input places, with `bounds`.
        bounds: where each place begins in them.
        table: `[1 + taps * channels, out]`.
        channels: channels that come in.
        number: images N.
        geometry: height and width of the input, of the output, of the kernel, stride and padding.
    """
    down, across, out = geometry[2], geometry[3], table.shape[1]
    sums = torch.empty(number, down, across, out, dtype=table.dtype)
    pieces = _pieces(sums.numel())
    added = np.zeros(pieces, np.int64)
    given = rows.numpy(), bounds.numpy(), _flat(table), out, channels, geometry
    _run(loops.sum_windows, pieces, *given, number * down * across, _flat(sums), added)
    return sums, int(added.sum())


class Fired(NamedTuple):
    """Spikes of the neurons behind a map, the currents if kept, and how many spikes reached the map."""

    spikes: Tensor
    current: Tensor | None
    arrived: int


def _constants(neuron: NeuronConfig, dtype: torch.dtype) -> tuple[Any, Any, bool, bool]:
    number = _SPELLING[dtype].number
    return number(neuron.beta), number(neuron.threshold), neuron.inclusive, neuron.resets_to_zero


def _table_size(tables: Tensor) -> int:
    steps, rows, out = tables.shape
    return rows * out if steps > 1 else 0


def fire_along_channels(
    spikes: Sequence[Tensor], tables: Tensor, neuron: NeuronConfig, shortcut: Tensor | None, keep: bool
) -> Fired | None:
    """Map spikes from up to three places along their channels, add the shortcut, fire.

    Args:
        spikes: `[T, B, H, W, features]` each.
        tables: `[T or 1, 1 + all features, C]`.
        neuron: the neurons, without input gain.
        shortcut: another current `[T, B, H, W, C]`.
        keep: whether the currents are wanted.

    Returns:
        Spikes `[T, B, H, W, C]`; None if a value that arrived is neither 0 nor 1.
    """
    (steps, *grid, _), dtype, out = spikes[0].shape, spikes[0].dtype, tables.shape[2]
    parts = [_bit_view(part) for part in spikes]
    missing = 3 - len(parts)
    widths = tuple([part.shape[4] for part in spikes] + [0] * missing)
    fired = torch.empty(steps, *grid, out, dtype=dtype)
    kept = torch.empty_like(fired) if keep else None
    pieces, empty = _pieces(fired.numel()), np.empty(0, _SPELLING[dtype].number)
    tallies = _tallies(pieces, dtype)
    _run(
        loops.fire_places,
        pieces,
        (*parts, *[parts[0][:0]] * missing),
        widths,
        _flat(tables),
        _table_size(tables),
        empty if shortcut is None else _flat(shortcut),
        _constants(neuron, dtype),
        (steps, grid[0] * grid[1] * grid[2], out),
        _flat(fired),
        empty if kept is None else _flat(kept),
        tallies,
    )
    arrived = _count(tallies)
    return None if arrived is None else Fired(fired, kept, arrived)


def fire_along_lines(spikes: Tensor, tables: Tensor, neuron: NeuronConfig, upright: bool) -> Fired | None:
    """Map spikes `[T, B, H, W, C]` along the width, or upright along the height, and fire.

    Args and result as for `fire_along_channels`, for tables `[T or 1, 1 + positions, row]`, each row
    filled up to a whole number of registers.
    """
    spikes, dtype = spikes.contiguous(), spikes.dtype
    seen = spikes.transpose(2, 3) if upright else spikes  # [T, B, lines, positions, C]
    fired, pieces = torch.empty_like(spikes), _pieces(spikes.numel())
    tallies = _tallies(pieces, dtype)
    _run(
        loops.fire_lines,
        pieces,
        _bit_view(spikes),
        _flat(tables),
        _table_size(tables),
        tables.shape[2],
        _constants(neuron, dtype),
        tuple(seen.shape),
        seen.stride()[:4],
        _flat(fired),
        tallies,
    )
    arrived = _count(tallies)
    return None if arrived is None else Fired(fired, None, arrived)
