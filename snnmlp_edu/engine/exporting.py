"""A folded network as the file that `engine.c` runs, layer by layer.

It is made from the network in whole numbers (`snnmlp_edu.mfi.events.integer`), whose sums and currents are
proved to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..mfi.events.integer import (
    IntegerAxisLIF,
    IntegerLIF,
    IntegerStem,
    IntegerTable,
)
from ..mfi.folding.layers import FoldedFigureHead, FoldedHead, SelectedAffine
from ..model.mixing import (
    AxialMixing,
    FullMixing,
    MembraneSkipBlock,
    MixerBlock,
    NoMixing,
    NormalisedSpikeSkipBlock,
    NoSkipBlock,
    PositionMixing,
    TokenMixing,
)
from ..model.network import SpikingMLP, Stage
from ..model.patches import ConvPatchEmbedding, SpikingPatchEncoding
from .file import LANES, Currents, NetworkFile, Spikes, declared

MOST_ROWS = 2**16 - 16  # a spike in a list is a number of 16 bits
LONGEST = 4096  # bytes of a column; columns without spikes, and columns that nobody reads, take so many
BIAS = 64  # of a weight in the lower byte
# A map becomes tables of the sums of 8, or of 4, inputs where these take no more bytes than this.
BYTE_TABLES, HALF_TABLES = 160_000, 20_000


def write_network(network: SpikingMLP) -> tuple[bytes, NetworkFile]:
    """The file of a network in whole numbers, and what was laid out in it.

    Args:
        network: what `event_driven(folded, weights="int8")` returned.

    Raises:
        InputError: it has more than 32 time steps, or a map of more inputs than a list can number.
    """
    steps = network.config.time_steps
    if steps > declared("MOST_STEPS"):
        raise InputError(f"time_steps is {steps}; the engine runs up to {declared('MOST_STEPS')}")
    return _Writer(network).write()


def registers(count: int) -> int:
    """Lanes that so many channels take: whole registers."""
    return LANES * -(-count // LANES)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


class _Writer:
    def __init__(self, network: SpikingMLP) -> None:
        self.network: Any = network
        self.config = network.config
        self.file = NetworkFile(self.config.time_steps)
        self.nothing, self.dump = (self.file.allocate(self.file.steps * LONGEST) for _ in range(2))
        self.wide = 0

    def write(self) -> tuple[bytes, NetworkFile]:
        spikes: Spikes | None = None
        for index, stage in enumerate(self.network.stages):
            spikes = self._stage(stage, index, spikes)
        assert spikes is not None
        classes = self.config.num_classes
        logits = self._head(spikes, registers(classes))
        stem = self.network.stages[0].embedding
        side = stem.preprocessing.side
        return self.file.finish((stem.channels, side, side), logits, classes), self.file

    # -- stages ---------------------------------------------------------------------------------------------

    def _stage(self, stage: Stage, index: int, before: Spikes | None) -> Spikes:
        side, width = self.config.grids[index][0], self.config.widths[index]
        neuron: Any = stage.neuron
        self.wide, word = int(neuron.word == 32), neuron.word
        path = f"stages.{index}"
        places = side * side
        match stage.embedding:
            case IntegerStem() as stem:
                order, lanes = np.arange(width), registers(width)
                shortcut = self.file.currents(places, lanes, word, steps=1)
                spikes = self.file.spikes(places, lanes, order, f"{path}.neuron")
                self._stem(stem, side, spikes, shortcut, neuron)
            case ConvPatchEmbedding() as embedding:
                assert before is not None
                order, lanes = np.arange(width), registers(width)
                shortcut = self.file.currents(places, lanes, word)
                spikes = self.file.spikes(places, lanes, order, f"{path}.neuron")
                conv: Any = embedding.embed.conv
                sources = self._taps(before, conv)
                self._map(
                    f"{path}.embedding.embed.conv",
                    [before] * sources.shape[1],
                    sources,
                    spikes,
                    neuron,
                    keep=shortcut,
                )
            case SpikingPatchEncoding() as embedding:
                assert before is not None
                spikes, shortcut = self._patch_encoding(embedding, side, width, before, neuron, path)
            case other:
                raise AssertionError(type(other).__name__)
        for number, block in enumerate(stage.blocks):
            spikes, shortcut = self._block(
                block, (side, side, width), spikes, shortcut, word, f"{path}.blocks.{number}"
            )
        return spikes

    def _stem(self, stem: IntegerStem, side: int, spikes: Spikes, keep: Currents, neuron: Any) -> None:
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
        weights, before = _array(stem.weights)[None], _array(stem.before)
        self._emit(
            weights,
            before,
            stem.bits,
            [source],
            source.sources()[:, None],
            spikes,
            neuron,
            keep=keep,
            short=False,
        )

    def _patch_encoding(
        self, embedding: SpikingPatchEncoding, side: int, width: int, before: Spikes, neuron: Any, path: str
    ) -> tuple[Spikes, Currents]:
        third = width // 3
        part = registers(third)
        order = np.concatenate([node * part + np.arange(third) for node in range(3)])
        places, word = side * side, neuron.word
        shortcut = self.file.currents(places, 3 * part, word)
        nodes = [
            Currents(shortcut.at + node * part * word // 8, shortcut.place, shortcut.step)
            for node in range(3)
        ]
        first, second = (
            self.file.spikes(places, part, np.arange(third), f"{path}.embedding.neurons.{node}")
            for node in range(2)
        )
        spikes = self.file.spikes(places, 3 * part, order, f"{path}.neuron")
        within: Any = embedding
        down, inner, outer = within.down.conv, within.between[0].conv, within.between[1].conv
        whole = Spikes(first.at, places, 3 * part, self.file.steps, order)
        path = f"{path}.embedding"
        self._map(
            f"{path}.down.conv",
            [before] * 9,
            self._taps(before, down),
            whole,
            within.neurons[0],
            keep=shortcut,
            fires=first,
        )
        self._map(
            f"{path}.between.0.conv",
            [first] * 9,
            self._taps(first, inner),
            second,
            within.neurons[1],
            nodes[1],
            nodes[1],
        )
        self._map(
            f"{path}.between.1.conv",
            [second] * 9,
            self._taps(second, outer),
            second,
            None,
            nodes[2],
            nodes[2],
            more=nodes[0],
        )
        self._fire(spikes, neuron, shortcut)
        return spikes, shortcut

    def _taps(self, before: Spikes, conv: Any) -> np.ndarray:
        """Where the columns under each tap of a convolution begin, `[places, taps]`."""
        (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
        side = round(before.places**0.5)
        grid = np.full((side + 2 * padding,) * 2, self.nothing)
        grid[padding : padding + side, padding : padding + side] = before.sources().reshape(side, side)
        windows = np.lib.stride_tricks.sliding_window_view(grid, (kernel, kernel))[::stride, ::stride]
        return windows.reshape(-1, kernel * kernel)

    # -- blocks ---------------------------------------------------------------------------------------------

    def _block(
        self,
        block: Any,
        shape: tuple[int, int, int],
        spikes: Spikes,
        shortcut: Currents,
        word: int,
        path: str,
    ) -> tuple[Spikes, Currents]:
        file, places, lanes, order = self.file, spikes.places, spikes.lanes, spikes.order
        own = file.spikes(places, lanes, order, f"{path}.token.fuse.neuron")
        out = file.spikes(places, lanes, order, f"{path}.channel.down.neuron")
        streams = self._positions(block.token, shape, spikes, f"{path}.token.positions")
        sources = np.stack([stream.sources() for stream in streams], axis=1)
        kept = file.currents(places, lanes, word)
        token_extra, token_keep, channel_extra, channel_keep, carried = None, None, None, None, shortcut
        shortcuts: Any = block
        match block:
            case MembraneSkipBlock():
                token_extra, token_keep, channel_extra, channel_keep, carried = (
                    shortcut,
                    kept,
                    kept,
                    kept,
                    kept,
                )
            case NormalisedSpikeSkipBlock():
                token_extra = channel_extra = kept
                self._select(shortcuts.token_skip_norm, spikes, kept)
            case NoSkipBlock():
                pass
            case MixerBlock():
                token_extra, token_keep, channel_extra = shortcut, kept, kept
        fuse = block.token.fuse
        self._map(f"{path}.token.fuse.linear", streams, sources, own, fuse.neuron, token_extra, token_keep)
        if isinstance(block, NormalisedSpikeSkipBlock):
            self._select(shortcuts.channel_skip_norm, own, kept)
        up, down = block.channel.up, block.channel.down
        hidden = shape[2] * self.config.expansion
        between = file.spikes(places, registers(hidden), np.arange(hidden), f"{path}.channel.up.neuron")
        wide, self.wide = self.wide, int(up.neuron.word == 32)
        self._map(f"{path}.channel.up.linear", [own], own.sources()[:, None], between, up.neuron)
        self.wide = wide
        self._map(
            f"{path}.channel.down.linear",
            [between],
            between.sources()[:, None],
            out,
            down.neuron,
            channel_extra,
            channel_keep,
        )
        return out, carried

    def _positions(
        self, token: TokenMixing, shape: tuple[int, int, int], spikes: Spikes, path: str
    ) -> list[Spikes]:
        height, width, _ = shape
        grid = np.arange(height * width).reshape(height, width)
        match token.positions:
            case NoMixing():
                return [spikes]
            case AxialMixing() as axial:
                rows = self._lines(axial.rows, grid, spikes, f"{path}.rows")
                columns = self._lines(axial.columns, grid.T, spikes, f"{path}.columns")
                return [spikes, rows, columns]
            case FullMixing() as full:
                return [spikes, self._lines(full.grid, grid.reshape(1, -1), spikes, f"{path}.grid")]
            case other:
                raise AssertionError(type(other).__name__)

    def _lines(self, mixing: PositionMixing, lines: np.ndarray, spikes: Spikes, path: str) -> Spikes:
        """Mixing within each line of positions, for each channel by itself."""
        synapse: Any = mixing.synapse
        table, neuron = synapse.linear.table, synapse.neuron
        weights, before = _unpack(table)
        together = max(
            k for k in range(1, LANES + 1) if len(lines) % k == 0 and (k == 1 or k * lines.shape[1] <= LANES)
        )
        weights = np.stack([np.kron(np.eye(together, dtype=int), step) for step in weights])
        before = np.tile(before, (1, together))
        lines = lines.reshape(-1, together * lines.shape[1])  # [lines, positions]
        number, length = lines.shape
        self.file.count(f"{path}.synapse.linear", spikes.sources()[:, None], spikes, length // together)
        out = self.file.spikes(spikes.places, spikes.lanes, spikes.order, f"{path}.synapse.neuron")
        # The short way takes the columns of a place 8 bytes at a time.
        if length <= LANES and neuron.word == 16 and table.bits <= 0 and spikes.place % 8 == 0:
            self._short_lines(weights << -table.bits, before << -table.bits, neuron, lines, spikes, out)
            return out
        channels, steps = spikes.order, self.file.steps
        columns = number * len(channels)
        taken = self.file.spikes(columns, registers(length), np.arange(length))
        mixed = self.file.spikes(columns, registers(length), np.arange(length))
        self._transpose(spikes, taken, lines, into_lines=True)
        wide, self.wide = self.wide, int(neuron.word == 32)
        used = Spikes(taken.at, columns, taken.lanes, steps, np.arange(length))
        self._emit(weights, before, table.bits, [used], used.sources()[:, None], mixed, neuron)
        self.wide = wide
        self._transpose(mixed, out, lines, into_lines=False)
        return out

    def _short_lines(
        self,
        weights: np.ndarray,
        before: np.ndarray,
        neuron: Any,
        lines: np.ndarray,
        spikes: Spikes,
        out: Spikes,
    ) -> None:
        """Mixing within lines of at most 16 positions."""
        steps, length, _ = weights.shape
        full = np.zeros((steps, LANES, LANES), int)
        full[:, :length, :length] = weights
        lane_before = np.zeros((len(before), LANES), int)
        lane_before[:, :length] = before
        blocks = np.empty((len(lines), 2, LANES), int)
        blocks[:, 0], blocks[:, 1] = self.nothing, self.dump
        blocks[:, 0, :length] = spikes.at + lines * spikes.place
        blocks[:, 1, :length] = out.at + lines * out.place
        fields = self._tables(full, 8)
        constants, _ = _neuron(neuron, 1)
        channels = np.zeros(spikes.lanes, np.uint8)
        channels[spikes.order] = 1
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
            before=self.file.constant(lane_before, "i2"),
            before_step=2 * LANES if len(before) > 1 else 0,
            neuron=self.file.constant(constants, "i4"),
            leak=neuron.bits or 0,
            forgets=int(neuron.bits is None),
            soft=int(not neuron.config.resets_to_zero),
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

    def _select(
        self, norm: SelectedAffine, spikes: Spikes, keep: Currents, extra: Currents | None = None
    ) -> None:
        """A constant for each spike, and one for none, kept as a current, or added to one."""
        with_spike, without = _lanes(norm.with_spike, spikes), _lanes(norm.without_spike, spikes)
        added = {"extra": extra.at, "extra_place": extra.place, "extra_step": extra.step} if extra else {}
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
            wide=self.wide,
            keep=keep.at,
            keep_place=keep.place,
            keep_step=keep.step,
            **added,
        )

    # -- head -----------------------------------------------------------------------------------------------

    def _head(self, spikes: Spikes, lanes: int) -> int:
        head = self.network.head
        steps, classes = self.file.steps, self.config.num_classes
        logits = self.file.allocate(4 * lanes)
        sums = Currents(logits, 0, 0)
        bias = np.zeros(lanes, int)
        match head:
            case FoldedHead():
                bias[:classes] = steps * _array(head.bias)
            case FoldedFigureHead():
                spikes = self._figure(head, spikes)
            case other:
                raise AssertionError(type(other).__name__)
        self._copy(bias, logits, "i4")
        self.wide = 1
        target = Spikes(0, spikes.places, lanes, steps, np.arange(classes))
        self._map("head.linear", [spikes], spikes.sources()[:, None], target, None, sums, sums)
        return logits

    def _figure(self, head: FoldedFigureHead, spikes: Spikes) -> Spikes:
        neuron: Any = head.neuron
        self.wide = int(neuron.word == 32)
        size = spikes.lanes * neuron.word // 8
        sums = Currents(self.file.allocate(self.file.steps * size), 0, size)
        shift = np.tile(_lanes(head.shift, spikes), self.file.steps)
        self._copy(shift, sums.at, f"i{neuron.word // 8}")
        affine: Any = head.affine
        self._select(affine, spikes, sums, sums)
        fired = self.file.spikes(1, spikes.lanes, spikes.order, "head.neuron")
        self._fire(fired, neuron, sums)
        return fired

    def _copy(self, values: np.ndarray, to: int, dtype: str) -> None:
        size = values.size * np.dtype(dtype).itemsize
        self.file.layer("COPY", part_bytes=size, sources=self.file.constant(values, dtype), keep=to)

    # -- maps -----------------------------------------------------------------------------------------------

    def _fire(self, to: Spikes, neuron: Any, currents: Currents) -> None:
        """Neurons on currents that are there already."""
        self._emit(
            np.zeros((1, 0, len(to.order)), int),
            np.zeros((1, len(to.order)), int),
            0,
            [],
            np.zeros((to.places, 0)),
            to,
            neuron,
            extra=currents,
        )

    def _map(
        self,
        path: str,
        parts: Sequence[Spikes],
        sources: np.ndarray,
        to: Spikes,
        neuron: Any,
        extra: Currents | None = None,
        keep: Currents | None = None,
        more: Currents | None = None,
        fires: Spikes | None = None,
    ) -> None:
        """The map at a path of the network, and the neurons behind it; see `_emit`."""
        table: Any = self.network.get_submodule(path).table
        weights, before = _unpack(table)
        self.file.count(path, sources, parts[0], len(to.order))
        self._emit(weights, before, table.bits, parts, sources, to, neuron, extra, keep, more, fires)

    def _emit(
        self,
        weights: np.ndarray,
        before: np.ndarray,
        bits: int,
        parts: Sequence[Spikes],
        sources: np.ndarray,
        to: Spikes,
        neuron: Any,
        extra: Currents | None = None,
        keep: Currents | None = None,
        more: Currents | None = None,
        fires: Spikes | None = None,
        short: bool = True,
    ) -> None:
        """One map and the neurons behind it.

        Args:
            weights: `[steps, inputs, outputs]`, the inputs of all parts after one another.
            before: `[steps, outputs]`.
            bits: of the shift.
            parts: the spikes that it reads, in this order.
            sources: `[places, parts]`, where their columns begin.
            to: the places and lanes of the outputs, and where their spikes go.
            neuron: the neurons, or None.
            extra: currents that are added.
            keep: where currents are kept.
            more: further currents that are added, laid out like `extra`.
            fires: where spikes go, if only the first lanes drive neurons.
            short: whether the weights have 8 bits.
        """
        file, lanes = self.file, to.lanes
        part_bytes = 1 + int(parts[0].order.max()) // 8 if parts else 0
        slots = [lane for i, part in enumerate(parts) for lane in 8 * part_bytes * i + part.order]
        inputs = 8 * part_bytes * len(parts)
        full = np.zeros((len(weights), inputs, lanes), int)
        if inputs:
            full[np.ix_(np.arange(len(weights)), slots, to.order)] = weights
        lane_before = np.zeros((len(before), lanes), int)
        lane_before[:, to.order] = before
        if bits < 0 and (
            not short or self._fits_tables(full) is not None
        ):  # entries of 16 bits hold what is shifted
            full, lane_before, bits = full << -bits, lane_before << -bits, 0
        fields = self._weights(full, short)
        target = fires or to
        if parts:
            fields |= {"in_steps": parts[0].steps, "in_step": parts[0].step if parts[0].steps > 1 else 0}
        else:
            fields |= {"in_steps": 1}
        if fields["kind"] == "ROWS":
            file.lists = max(file.lists, declared("CHUNK") * fields["in_steps"] * (inputs + 48) * 2)
        if neuron is not None:
            constants, per_place = _neuron(neuron, to.places)
            fields |= {
                "fired": target.lanes,
                "spikes": target.at,
                "spikes_place": target.place,
                "spikes_step": target.step,
                "neuron": file.constant(constants, "i4"),
                "neuron_place": per_place,
                "leak": neuron.bits or 0,
                "forgets": int(neuron.bits is None),
                "soft": int(not neuron.config.resets_to_zero),
            }
        else:
            fields |= {"neuron": file.constant(np.zeros(5), "i4")}
        if extra is not None:
            fields |= {"extra": extra.at, "extra_place": extra.place, "extra_step": extra.step}
        if more is not None:
            fields |= {"more": more.at}
        if keep is not None:
            fields |= {"keep": keep.at, "keep_place": keep.place, "keep_step": keep.step}
        kind = fields.pop("kind")
        plain = (
            (file.steps, self.wide, more, len(before)) == (4, 0, None, 1)
            and (bits <= 0 or fields["in_steps"] == 1)
            and fields.get("fired") == lanes
            and not any(fields[name] for name in ("soft", "forgets", "neuron_place"))
        )
        file.layer(
            kind,
            places=to.places,
            parts=len(parts),
            part_bytes=part_bytes,
            sources=file.constant(sources, "i4"),
            lanes=lanes,
            before=file.constant(lane_before, "i2"),
            before_step=2 * lanes if len(before) > 1 else 0,
            shift=bits,
            wide=self.wide,
            plain=int(plain),
            **fields,
        )

    def _weights(self, full: np.ndarray, short: bool) -> dict[str, Any]:
        """How the weights `[steps, inputs, lanes]` of a map are laid out, and what kind of layer reads it."""
        inputs = full.shape[1]
        group = self._fits_tables(full)
        if group is not None or not short:
            return self._tables(full, group or 4)
        if inputs > MOST_ROWS:
            raise InputError(f"a map has {inputs} inputs; the engine lists up to {MOST_ROWS}")
        return self._rows(full)

    @staticmethod
    def _fits_tables(full: np.ndarray) -> int | None:
        """How many inputs number a row of a table, if tables are small enough to be faster than rows."""
        steps, inputs, lanes = full.shape
        for group, most in ((8, BYTE_TABLES), (4, HALF_TABLES)):
            one_register = lanes == LANES and inputs > 64  # half bytes read a quarter of the memory
            if steps * (inputs // group << group) * lanes * 2 <= most and not (group == 8 and one_register):
                return group
        return None

    def _tables(self, full: np.ndarray, group: int) -> dict[str, Any]:
        by_pass, size = _passes(full, declared("MOST_UNITS"), LANES)
        passes, steps, inputs, width = by_pass.shape
        one = 2 * width * (inputs // group << group)
        at = self.file.tables
        self.file.tables += 64 * -(-(passes * steps * one) // 64)
        return {
            "kind": "TABLES",
            "group": group,
            "raw": self.file.constant(by_pass, "i2"),
            "inputs": passes * steps * inputs,
            "rows": at,
            "rows_step": one if steps > 1 else 0,
            "pass_bytes": steps * one,
            "size": size,
        }

    def _rows(self, full: np.ndarray) -> dict[str, Any]:
        by_pass, size = _passes(np.pad(full, ((0, 0), (0, 1), (0, 0))), declared("MOST_UNITS"), 2 * LANES)
        passes, steps, rows, width = by_pass.shape
        lower, upper = by_pass.reshape(passes, steps, rows, -1, 2, LANES).transpose(4, 0, 1, 2, 3, 5)
        pairs = np.stack(((lower + BIAS).astype(np.uint8), upper.astype(np.int8).view(np.uint8)), axis=-1)
        one = rows * width
        return {
            "kind": "ROWS",
            "rows": self.file.constant(pairs, "u1"),
            "rows_step": one if steps > 1 else 0,
            "pass_bytes": steps * one,
            "size": 2 * size,
        }


def _passes(full: np.ndarray, most: int, unit: int) -> tuple[np.ndarray, int]:
    """Weights `[steps, inputs, lanes]` as `[passes, steps, inputs, lanes of a pass]`, and units in a pass."""
    steps, inputs, lanes = full.shape
    units = -(-lanes // unit)
    passes = -(-units // most)
    size = -(-units // passes)
    padded = np.pad(full, ((0, 0), (0, 0), (0, passes * size * unit - lanes)))
    return padded.reshape(steps, inputs, passes, size * unit).transpose(2, 0, 1, 3), size


def _unpack(table: IntegerTable) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[steps, inputs, outputs]` and what is added before the shift, `[steps, outputs]`."""
    before = _array(table.before).astype(int)
    weights = _array(table.weights).astype(int).reshape(len(before), -1, before.shape[1])
    return weights[:, 1:], before


def _lanes(values: Tensor, like: Spikes) -> np.ndarray:
    """One constant for each channel, in lanes; 0 in those that no channel has."""
    filled = np.zeros(like.lanes, int)
    filled[like.order] = _array(values)
    return filled


def _neuron(neuron: Any, places: int) -> tuple[np.ndarray, int]:
    """`struct neuron`, one for all places or one for each; and the bytes from one to the next."""
    inclusive = int(neuron.config.inclusive)
    match neuron:
        case IntegerLIF():
            return np.array([neuron.threshold - inclusive, neuron.threshold, 0, -1, 0]), 0
        case IntegerAxisLIF() if neuron.axis == "token" and len(neuron.threshold) == places:
            threshold, bias = _array(neuron.threshold).astype(int), _array(neuron.bias).astype(int)
            falling, driven = _array(neuron.falling), _array(neuron.driven)
            # Turned, u <= theta reads ~u >= ~theta.
            above = np.where(falling, ~threshold, threshold) - inclusive
            limit = 2 ** (neuron.word - 1) - 1
            columns = (
                np.clip(above, -limit - 1, limit),
                threshold,
                -falling.astype(int),
                -driven.astype(int),
                bias,
            )
            return np.stack(columns, axis=1), 20
        case _:
            raise InputError(
                f"neurons with {len(neuron.threshold)} thresholds along {neuron.axis} do not run in the"
                f" engine at {places} places; only with one for each token"
            )
