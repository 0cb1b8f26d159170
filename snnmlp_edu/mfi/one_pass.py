"""Run the compiled loops on PyTorch's tensors, shared out among as many threads as PyTorch uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..config import NeuronConfig
from .loops import fire_lines, fire_places, scan_places, sum_whole_rows, sum_windows

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

# Below this many values, starting a second thread takes longer than the loop.
SHARE_FROM = 2**14
PIECES = 3  # for each thread

_threads = ThreadPoolExecutor(thread_name_prefix="events")


class Spelling(NamedTuple):
    """How a type of numbers spells 1: the type itself, that of its bits, and the bits."""

    number: Any
    bits: Any
    one: int


_SPELLING = {
    torch.float32: Spelling(np.float32, np.uint32, 0x3F800000),
    torch.float64: Spelling(np.float64, np.uint64, 0x3FF0000000000000),
}


def _flat(tensor: Tensor) -> Array:
    return tensor.reshape(-1).numpy()


def _spell(spikes: Tensor) -> Array:
    return _flat(spikes).view(_SPELLING[spikes.dtype].bits)


def _share(places: int, values: int, run: Callable[[int, int], Result]) -> tuple[list[int], list[Result]]:
    """Run a loop in pieces, on as many threads as PyTorch uses; the pieces' edges, and what each returned.

    Each thread takes the next piece when it has done one, so that none has to wait for another that the
    machine keeps busy with something else.
    """
    threads = torch.get_num_threads() if values >= SHARE_FROM else 1
    pieces = PIECES * threads if threads > 1 else 1
    edges = [places * piece // pieces for piece in range(pieces + 1)]
    if threads == 1:
        return edges, [run(*edges)]
    results: dict[int, Result] = {}
    waiting = iter(range(pieces))

    def work() -> None:
        for piece in waiting:
            results[piece] = run(edges[piece], edges[piece + 1])

    others = [_threads.submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        if not other.cancel():
            other.result()
    return edges, [results[piece] for piece in range(pieces)]


def _tally(dtype: torch.dtype) -> Array:
    return np.array([0, 0, _SPELLING[dtype].one], np.uintp)


def _count(tallies: Sequence[Array]) -> int | None:
    """The number of spikes; None if a value was neither 0 nor 1."""
    return None if any(tally[1] for tally in tallies) else sum(int(tally[0]) for tally in tallies)


def scan(spikes: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows and bounds of the events of spikes `[before, after, features]`, as `find_events` describes them.

    None if a value is neither 0 nor 1.
    """
    before, after, features = spikes.shape
    near = spikes.stride(2) == 1  # the features of a place are next to each other, or else the places are
    strides = (1, features) if near else (after, 1)
    spelt = _spell(spikes if near else spikes.transpose(1, 2))
    bounds = np.zeros(before * after + 1, np.int32)

    def run(start: int, stop: int) -> tuple[Array, Array]:
        rows = np.empty((stop - start) * after * (1 + features) + 1, np.int32)
        tally = _tally(spikes.dtype)
        n = scan_places(spelt, after, features, strides, start, stop, rows, bounds, tally)
        return rows[:n], tally

    edges, found = _share(before, spikes.numel(), run)
    if _count([tally for _, tally in found]) is None:
        return None
    ends = np.cumsum([len(rows) for rows, _ in found])
    for end, (start, stop) in zip(ends, itertools.pairwise(edges[1:]), strict=False):
        bounds[start * after + 1 : stop * after + 1] += end
    rows = found[0][0] if len(found) == 1 else np.concatenate([rows for rows, _ in found])
    return torch.from_numpy(rows), torch.from_numpy(bounds)


def sum_integers(rows: Tensor, bounds: Tensor, table: Tensor) -> Tensor:
    """The sum of each bag's rows of a table of whole numbers, `[bags, out]` in int32."""
    sums = torch.zeros(len(bounds) - 1, table.shape[1], dtype=torch.int32)
    arrays = _flat(table), table.shape[1], rows.numpy(), bounds.numpy()

    def run(start: int, stop: int) -> None:
        sum_whole_rows(*arrays, start, stop, _flat(sums))

    _share(len(sums), len(rows), run)
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
    down, across, taps = geometry[2], geometry[3], geometry[4] * geometry[5]
    sums = torch.empty(number, down, across, table.shape[1], dtype=table.dtype)
    given = rows.numpy(), bounds.numpy(), _flat(table), table.shape[1], channels, geometry

    def run(start: int, stop: int) -> int:
        return sum_windows(*given, start, stop, _flat(sums), np.empty(taps * channels, np.int32))

    _, added = _share(number * down * across, sums.numel(), run)
    return sums, sum(added)


class Fired(NamedTuple):
    """Spikes of the neurons behind a map, the currents if kept, and how many spikes reached the map."""

    spikes: Tensor
    current: Tensor | None
    arrived: int


def _constants(neuron: NeuronConfig, dtype: torch.dtype) -> tuple[Any, Any, bool, bool]:
    number = _SPELLING[dtype].number
    return number(neuron.beta), number(neuron.threshold), neuron.inclusive, neuron.reset == "hard"


def _table_size(tables: Tensor) -> int:
    return tables[0].numel() if len(tables) > 1 else 0


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
    first, dtype = spikes[0], spikes[0].dtype
    shape = first.shape[0], first.shape[1:4].numel(), tables.shape[2]
    parts = [_spell(part) for part in spikes]
    parts += [parts[0][:0]] * (3 - len(parts))
    widths = [part.shape[4] for part in spikes] + [0, 0]
    fired = torch.empty(*first.shape[:4], shape[2], dtype=dtype)
    kept = torch.empty_like(fired) if keep else None
    empty = np.empty(0, _SPELLING[dtype].number)
    more = empty if shortcut is None else _flat(shortcut)
    written = _flat(fired), empty if kept is None else _flat(kept)
    weights, size, constants = _flat(tables), _table_size(tables), _constants(neuron, dtype)

    def run(start: int, stop: int) -> Array:
        tally = _tally(dtype)
        given = tuple(parts), tuple(widths[:3]), weights, size, more, constants, shape
        fire_places(*given, start, stop, *written, tally)
        return tally

    _, tallies = _share(shape[1], fired.numel(), run)
    arrived = _count(tallies)
    return None if arrived is None else Fired(fired, kept, arrived)


def fire_along_lines(spikes: Tensor, tables: Tensor, neuron: NeuronConfig, upright: bool) -> Fired | None:
    """Map spikes `[T, B, H, W, C]` along the width, or upright along the height, and fire.

    Args and result as for `fire_along_channels`, for tables `[T or 1, 1 + positions, row]`, each row
    filled up to a whole number of registers.
    """
    spikes, dtype = spikes.contiguous(), spikes.dtype
    fired = torch.empty_like(spikes)
    row_size = tables.shape[2]
    seen = spikes.transpose(2, 3) if upright else spikes  # [T, B, lines, positions, C]
    shape, strides = tuple(seen.shape), seen.stride()[:4]
    spelt, weights, written = _spell(spikes), _flat(tables), _flat(fired)
    size, constants = _table_size(tables), _constants(neuron, dtype)

    def run(start: int, stop: int) -> Array:
        tally = _tally(dtype)
        fire_lines(spelt, weights, size, row_size, constants, shape, strides, start, stop, written, tally)
        return tally

    _, tallies = _share(shape[1] * shape[2], spikes.numel(), run)
    arrived = _count(tallies)
    return None if arrived is None else Fired(fired, None, arrived)
