"""A folded network as the file that `engine.c` runs, stage by stage.

It is made from the network in whole numbers, whose sums and currents are proved to fit
(`snnmlp_edu.mfi.events.quantisation`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..errors import InputError
from ..mfi.events.integer import IntegerStem
from ..mfi.folding.layers import FoldedFigureHead, FoldedHead
from ..model.mixing import (
    AxialMixing,
    FullMixing,
    InnerSkipBlock,
    MembraneSkipBlock,
    MixerBlock,
    NoMixing,
    NormalisedSpikeSkipBlock,
    NoSkipBlock,
    TokenMixing,
)
from ..model.network import SpikingMLP, Stage
from ..model.patches import ConvPatchEmbedding, SpikingPatchEncoding
from .constants import array, in_lanes, registers
from .file import Currents, NetworkFile, Spikes, declared
from .layers import Layers


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
    return _Exporter(network).write()


class _Exporter:
    def __init__(self, network: SpikingMLP) -> None:
        self.network: Any = network
        self.config = network.config
        self.file = NetworkFile(self.config.time_steps)
        self.layers = Layers(self.file)

    def write(self) -> tuple[bytes, NetworkFile]:
        spikes: Spikes | None = None
        for index, stage in enumerate(self.network.stages):
            spikes = self._stage(stage, index, spikes)
        assert spikes is not None
        logits = self._head(spikes)
        stem = self.network.stages[0].embedding
        side = stem.preprocessing.side
        return self.file.finish((stem.channels, side, side), logits, self.config.num_classes), self.file

    def _stage(self, stage: Stage, index: int, before: Spikes | None) -> Spikes:
        side, width = self.config.grids[index][0], self.config.widths[index]
        neuron: Any = stage.neuron
        path = f"stages.{index}"
        if isinstance(stage.embedding, SpikingPatchEncoding):
            assert before is not None
            spikes, shortcut = self._patch_encoding(stage.embedding, side, width, before, neuron, path)
        else:
            places, lanes = side * side, registers(width)
            steps = 1 if before is None else None
            shortcut = self.file.currents(places, lanes, neuron.word, steps)
            spikes = self.file.spikes(places, lanes, np.arange(width), f"{path}.neuron")
            match stage.embedding:
                case IntegerStem() as stem:
                    self.layers.stem(stem, side, spikes, shortcut, neuron)
                case ConvPatchEmbedding() as embedding:
                    assert before is not None
                    conv: Any = embedding.embed.conv
                    self.layers.map(conv, [before], spikes, neuron, keep=shortcut)
                case other:
                    raise AssertionError(type(other).__name__)
        for number, block in enumerate(stage.blocks):
            spikes, shortcut = self._block(block, side, width, spikes, shortcut, f"{path}.blocks.{number}")
        return spikes

    def _patch_encoding(
        self, embedding: SpikingPatchEncoding, side: int, width: int, before: Spikes, neuron: Any, path: str
    ) -> tuple[Spikes, Currents]:
        within: Any = embedding
        third, places = width // 3, side * side
        part = registers(third)
        order = np.concatenate([node * part + np.arange(third) for node in range(3)])
        shortcut = self.file.currents(places, 3 * part, neuron.word)
        nodes = [
            dataclasses.replace(shortcut, at=shortcut.at + node * part * neuron.word // 8)
            for node in range(3)
        ]
        first, second = (
            self.file.spikes(places, part, np.arange(third), f"{path}.embedding.neurons.{node}")
            for node in range(2)
        )
        spikes = self.file.spikes(places, 3 * part, order, f"{path}.neuron")
        whole = Spikes(first.at, places, 3 * part, self.file.steps, order)
        inner, outer = within.between[0].conv, within.between[1].conv
        self.layers.map(within.down.conv, [before], whole, within.neurons[0], keep=shortcut, fires=first)
        self.layers.map(inner, [first], second, within.neurons[1], extra=nodes[1], keep=nodes[1])
        self.layers.map(outer, [second], second, None, extra=nodes[2], more=nodes[0], keep=nodes[2])
        self.layers.fire(spikes, neuron, shortcut)
        return spikes, shortcut

    def _block(
        self, block: Any, side: int, width: int, spikes: Spikes, shortcut: Currents, path: str
    ) -> tuple[Spikes, Currents]:
        file, layers = self.file, self.layers
        places, lanes, order = spikes.places, spikes.lanes, spikes.order
        fuse, up, down = block.token.fuse, block.channel.up, block.channel.down
        between = file.spikes(places, lanes, order, f"{path}.token.fuse.neuron")
        out = file.spikes(places, lanes, order, f"{path}.channel.down.neuron")
        streams = self._positions(block.token, side, spikes, f"{path}.token.positions")
        kept = file.currents(places, lanes, fuse.neuron.word)
        token: dict[str, Currents]
        channel: dict[str, Currents]
        carried = shortcut
        skips: Any = block
        match block:
            case MembraneSkipBlock():
                token = {"extra": shortcut, "keep": kept}
                channel = {"extra": kept, "keep": kept}
                carried = kept
            case NormalisedSpikeSkipBlock():
                token = channel = {"extra": kept}
                layers.select(skips.token_skip_norm, spikes, kept)
            case NoSkipBlock():
                token = channel = {}
            case InnerSkipBlock():
                token, channel = {}, {"extra": kept}
            case MixerBlock():
                token, channel = {"extra": shortcut, "keep": kept}, {"extra": kept}
            case _:
                raise AssertionError(type(block).__name__)
        layers.map(fuse.linear, streams, between, fuse.neuron, **token)
        if isinstance(block, NormalisedSpikeSkipBlock):
            layers.select(skips.channel_skip_norm, between, kept)
        hidden = width * self.config.expansion
        within = f"{path}.channel.up.neuron"
        if isinstance(block, InnerSkipBlock):  # what the last neurons add lies in their lanes
            above = file.spikes(places, lanes, order, within)
            layers.map(up.linear, [between], above, up.neuron, keep=kept)
        else:
            above = file.spikes(places, registers(hidden), np.arange(hidden), within)
            layers.map(up.linear, [between], above, up.neuron)
        layers.map(down.linear, [above], out, down.neuron, **channel)
        return out, carried

    def _positions(self, token: TokenMixing, side: int, spikes: Spikes, path: str) -> list[Spikes]:
        grid = np.arange(side * side).reshape(side, side)
        lines: dict[str, np.ndarray]
        match token.positions:
            case NoMixing():
                lines = {}
            case AxialMixing():
                lines = {"rows": grid, "columns": grid.T}
            case FullMixing():
                lines = {"grid": grid.reshape(1, -1)}
            case other:
                raise AssertionError(type(other).__name__)
        synapses: Any = {name: getattr(token.positions, name).synapse for name in lines}
        return [
            spikes,
            *(
                self.layers.mix(synapses[name], each, spikes, f"{path}.{name}.synapse.neuron")
                for name, each in lines.items()
            ),
        ]

    def _head(self, spikes: Spikes) -> int:
        head = self.network.head
        steps, classes = self.file.steps, self.config.num_classes
        lanes = registers(classes)
        logits = self.file.allocate(4 * lanes)
        bias = np.zeros(classes, int)
        match head:
            case FoldedHead():
                bias = steps * array(head.bias)
            case FoldedFigureHead():
                spikes = self._figure(head, spikes)
            case other:
                raise AssertionError(type(other).__name__)
        target = Spikes(0, spikes.places, lanes, steps, np.arange(classes))
        self.layers.copy(in_lanes(bias, target), logits, "i4")
        sums = Currents(logits, 0, 0, word=32)
        self.layers.map(head.linear, [spikes], target, None, extra=sums, keep=sums)
        return logits

    def _figure(self, head: FoldedFigureHead, spikes: Spikes) -> Spikes:
        neuron: Any = head.neuron
        affine: Any = head.affine
        size = spikes.lanes * neuron.word // 8
        sums = Currents(self.file.allocate(self.file.steps * size), 0, size, neuron.word)
        shift = np.tile(in_lanes(array(head.shift), spikes), self.file.steps)
        self.layers.copy(shift, sums.at, f"i{neuron.word // 8}")
        self.layers.select(affine, spikes, sums, sums)
        fired = self.file.spikes(1, spikes.lanes, spikes.order, "head.neuron")
        self.layers.fire(fired, neuron, sums)
        return fired
