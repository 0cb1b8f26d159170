"""The layers of `engine.c`, written into the file of a network one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..mfi.events.integer import IntegerStem
from ..mfi.events.layers import EventConv2d, EventMap
from ..mfi.folding.layers import SelectedAffine
from .constants import Weights, array, group_of_tables, in_lanes, neurons, registers, rows, tables
from .file import LANES, Currents, NetworkFile, Spikes, declared

LONGEST = 4096  # bytes of a column; columns without spikes, and columns that nobody reads, take so many


class Layers:
    """Writes layers into a file.

    Args:
        file: a file without layers.
    """

    def __init__(self, file: NetworkFile) -> None:
        self.file = file
        self.nothing, self.dump = (file.allocate(file.steps * LONGEST) for _ in range(2))

    def stem(self, stem: IntegerStem, side: int, spikes: Spikes, keep: Currents, neuron: Any) -> None:
        """From the bytes of an image to its first spikes: each bit of a pixel is an input."""
        patch, channels = stem.patch, stem.channels
        full, stored = side * patch, stem.preprocessing.side
        column = channels * patch * patch
        pixels = self.file.allocate(side * side * column)
        begin = (full - stored) // 2
        numbers = np.full((channels, full, full), -1)
        inside = slice(begin, begin + stored)
        numbers[:, inside, inside] = np.arange(channels * stored * stored).reshape(channels, stored, stored)
        patches = numbers.reshape(channels, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
        self.file.layer(
            "PATCHES", places=numbers.size, sources=self.file.constant(patches, "i4"), spikes=pixels
        )
        source = Spikes(pixels, side * side, 8 * column, 1, np.arange(8 * column))
        weights = Weights(array(stem.weights)[None], array(stem.before), stem.bits)
        self._sum(weights, [source], spikes, neuron, keep=keep, short=False)

    def map(self, layer: EventMap, parts: Sequence[Spikes], to: Spikes, neuron: Any, **currents: Any) -> None:
        """A linear map or a convolution, and the neurons behind it; arguments as in `_sum`."""
        table: Any = layer.table
        if isinstance(layer, EventConv2d):
            sources = self._taps(parts[0], layer)
            parts = list(parts) * sources.shape[1]
        else:
            sources = np.stack([part.sources() for part in parts], axis=1)
        self.file.count(layer.path, sources, parts[0], len(to.order))
        self._sum(Weights.of(table), parts, to, neuron, sources=sources, **currents)

    def fire(self, to: Spikes, neuron: Any, currents: Currents) -> None:
        """Neurons on currents that are there already."""
        channels = len(to.order)
        none = Weights(np.zeros((1, 0, channels), int), np.zeros((1, channels), int), 0)
        self._sum(none, [], to, neuron, extra=currents)

    def mix(self, synapse: Any, lines: np.ndarray, spikes: Spikes, path: str) -> Spikes:
        """Mixing within each line of positions, `[lines, positions]`, for each channel by itself."""
        weights, neuron = Weights.of(synapse.linear.table), synapse.neuron
        together = max(
            k for k in range(1, LANES + 1) if len(lines) % k == 0 and (k == 1 or k * lines.shape[1] <= LANES)
        )
        weights = Weights(
            np.stack([np.kron(np.eye(together, dtype=int), step) for step in weights.rows]),
            np.tile(weights.before, (1, together)),
            weights.bits,
        )
        self.file.count(synapse.linear.path, spikes.sources()[:, None], spikes, lines.shape[1])
        lines = lines.reshape(-1, together * lines.shape[1])
        number, length = lines.shape
        out = self.file.spikes(spikes.places, spikes.lanes, spikes.order, path)
        # The short way takes the columns of a place 8 bytes at a time.
        if length <= LANES and neuron.word == 16 and weights.bits <= 0 and spikes.place % 8 == 0:
            self._short_lines(weights.unshifted(), neuron, lines, spikes, out)
            return out
        columns = number * len(spikes.order)
        taken, mixed = (self.file.spikes(columns, registers(length), np.arange(length)) for _ in range(2))
        self._transpose(spikes, taken, lines, into_lines=True)
        self._sum(weights, [taken], mixed, neuron)
        self._transpose(mixed, out, lines, into_lines=False)
        return out

    def select(
        self, norm: SelectedAffine, spikes: Spikes, keep: Currents, extra: Currents | None = None
    ) -> None:
        """A constant for each spike, and one for none, kept as a current, or added to one."""
        with_spike, without = (in_lanes(array(v), spikes) for v in (norm.with_spike, norm.without_spike))
        self.file.layer(
            "SELECT",
            places=spikes.places,
            parts=1,
            sources=self.file.constant(spikes.sources(), "i4"),
            in_steps=self.file.steps,
            in_step=spikes.step,
            rows=self.file.constant(with_spike - without, "i2"),
            pass_bytes=2 * LANES,
            size=1,
            lanes=spikes.lanes,
            before=self.file.constant(without, "i2"),
            wide=int(keep.word == 32),
            **_at("keep", keep),
            **_at("extra", extra),
        )

    def copy(self, values: np.ndarray, to: int, dtype: str) -> None:
        """Constants into the memory."""
        size = values.size * np.dtype(dtype).itemsize
        self.file.layer("COPY", part_bytes=size, sources=self.file.constant(values, dtype), keep=to)

    def _taps(self, before: Spikes, conv: EventConv2d) -> np.ndarray:
        """Where the columns under each tap of a convolution begin, `[places, taps]`."""
        (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
        side = round(before.places**0.5)
        grid = np.full((side + 2 * padding,) * 2, self.nothing)
        grid[padding : padding + side, padding : padding + side] = before.sources().reshape(side, side)
        windows = np.lib.stride_tricks.sliding_window_view(grid, (kernel, kernel))[::stride, ::stride]
        return windows.reshape(-1, kernel * kernel)

    def _sum(
        self,
        weights: Weights,
        parts: Sequence[Spikes],
        to: Spikes,
        neuron: Any,
        *,
        sources: np.ndarray | None = None,
        extra: Currents | None = None,
        more: Currents | None = None,
        keep: Currents | None = None,
        fires: Spikes | None = None,
        short: bool = True,
    ) -> None:
        """One map and the neurons behind it.

        Args:
            weights: of the map, the inputs of all parts after one another.
            parts: the spikes that it reads, in this order.
            to: the places and lanes of the outputs, and where their spikes go.
            neuron: the neurons, or None, where there are `extra` currents.
            sources: `[places, parts]`, where their columns begin; by default all columns of each part.
            extra: currents that are added.
            more: further currents that are added, laid out like `extra`.
            keep: where currents are kept.
            fires: where spikes go, if only the first lanes drive neurons.
            short: whether the weights have 8 bits.
        """
        file, lanes = self.file, to.lanes
        part_bytes = 1 + int(parts[0].order.max()) // 8 if parts else 0
        slots = [lane for i, part in enumerate(parts) for lane in 8 * part_bytes * i + part.order]
        inputs = 8 * part_bytes * len(parts)
        full = np.zeros((len(weights.rows), inputs, lanes), int)
        if inputs:
            full[np.ix_(np.arange(len(full)), slots, to.order)] = weights.rows
        whole = Weights(full, in_lanes(weights.before, to), weights.bits)
        group = group_of_tables(full) or (None if short else 4)
        counts: Any = extra if neuron is None else neuron
        wide = int(counts.word == 32)
        if whole.bits < 0 and group is not None and not wide:  # sums of tables have 16 bits
            whole = whole.unshifted()
        fields = rows(file, whole.rows) if group is None else tables(file, whole.rows, group)
        fields["in_steps"] = parts[0].steps if parts else 1
        if fields["in_steps"] > 1:
            fields["in_step"] = parts[0].step
        if group is None:
            file.lists = max(file.lists, declared("CHUNK") * fields["in_steps"] * (inputs + 48) * 2)
        plain = False
        if neuron is None:
            fields["neuron"] = file.constant(np.zeros(5), "i4")
        else:
            target = fires or to
            fields |= neurons(file, neuron, to.places)
            plain = (
                (file.steps, wide, more, len(whole.before), target.lanes) == (4, 0, None, 1, lanes)
                and (whole.bits <= 0 or fields["in_steps"] == 1)
                and not any(fields[name] for name in ("soft", "forgets", "neuron_place"))
            )
            fields |= {"fired": target.lanes, **_at("spikes", target)}
        file.layer(
            "ROWS" if group is None else "TABLES",
            places=to.places,
            parts=len(parts),
            part_bytes=part_bytes,
            sources=file.constant(
                np.array([part.sources() for part in parts]).reshape(len(parts), to.places).T
                if sources is None
                else sources,
                "i4",
            ),
            lanes=lanes,
            before=file.constant(whole.before, "i2"),
            before_step=2 * lanes if len(whole.before) > 1 else 0,
            shift=whole.bits,
            wide=wide,
            plain=int(plain),
            more=more.at if more else 0,
            **_at("extra", extra),
            **_at("keep", keep),
            **fields,
        )

    def _short_lines(
        self, weights: Weights, neuron: Any, lines: np.ndarray, spikes: Spikes, out: Spikes
    ) -> None:
        """Mixing within lines of at most 16 positions."""
        spare = LANES - lines.shape[1]
        full = np.pad(weights.rows, ((0, 0), (0, spare), (0, spare)))
        before = np.pad(weights.before, ((0, 0), (0, spare)))
        blocks = np.empty((len(lines), 2, LANES), int)
        blocks[:, 0], blocks[:, 1] = self.nothing, self.dump
        blocks[:, 0, : lines.shape[1]] = spikes.at + lines * spikes.place
        blocks[:, 1, : lines.shape[1]] = out.at + lines * out.place
        fields = tables(self.file, full, 8)
        channels = in_lanes(np.ones(len(spikes.order)), spikes).astype(np.uint8)
        self.file.lists = max(self.file.lists, 16 * spikes.place)
        self.file.layer(
            "LINES",
            **{name: fields[name] for name in ("raw", "inputs", "rows", "rows_step", "size")},
            places=len(lines),
            part_bytes=spikes.place,
            sources=self.file.constant(blocks, "i4"),
            in_step=spikes.step,
            channels=self.file.constant(np.packbits(channels, bitorder="little"), "u1"),
            keep=self.file.allocate(16 * spikes.place),
            before=self.file.constant(before, "i2"),
            before_step=2 * LANES if len(before) > 1 else 0,
            **neurons(self.file, neuron, 1),
            plain=int(neuron.bits is not None and neuron.config.resets_to_zero),
        )

    def _transpose(self, before: Spikes, after: Spikes, lines: np.ndarray, into_lines: bool) -> None:
        """Columns over channels become columns over positions, 8 x 8 bits at a time, or the reverse."""
        grid, by_line = (before, after) if into_lines else (after, before)
        number, length = lines.shape
        channels = len(grid.order)
        channel_of = np.full(grid.lanes, -1)
        channel_of[grid.order] = np.arange(channels)
        unused = self.nothing if into_lines else self.dump
        blocks = []
        for line in range(number):
            for low in range(0, length, 8):
                at = np.full(8, unused)
                found = lines[line, low : low + 8]
                at[: len(found)] = grid.at + found * grid.place
                for byte in range(grid.lanes // 8):
                    of = channel_of[8 * byte : 8 * byte + 8]
                    inside = by_line.at + (line * channels + of) * by_line.place + low // 8
                    inside = np.where(of < 0, self.dump if into_lines else self.nothing, inside)
                    outside = np.where(at == unused, unused, at + byte)
                    blocks.append(np.concatenate((outside, inside) if into_lines else (inside, outside)))
        self.file.layer(
            "TRANSPOSE",
            places=len(blocks),
            sources=self.file.constant(np.array(blocks), "i4"),
            in_step=before.step,
            spikes_step=after.step,
        )


def _at(name: str, found: Spikes | Currents | None) -> dict[str, int]:
    """Fields that say where something lies, if there is something."""
    if found is None:
        return {}
    return {name: found.at, f"{name}_place": found.place, f"{name}_step": found.step}
