"""The units in which an event-driven network becomes one in whole numbers.

They are chosen so that, whatever spikes arrive, no sum of a map exceeds 16 bits, and no current or membrane
exceeds the `word` of its neurons: 16 bits where the threshold then is still 64 units or more, else 32.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from ...data import Preprocessing
from ...errors import InputError
from ...model.mixing import (
    InnerSkipBlock,
    MembraneSkipBlock,
    MixerBlock,
    NormalisedSpikeSkipBlock,
    NoSkipBlock,
    PositionMixing,
)
from ...model.network import SpikingMLP, Stage
from ...model.neurons import LIF
from ...model.patches import ConvPatchEmbedding, SpikingPatchEncoding, Stem
from ..folding.layers import AxisLIF, FoldedFigureHead, FoldedHead, SelectedAffine, constant
from ..known import CONTAINERS, FOLDED_HEADS, NEURONS, WIRINGS, refuse_infinite, refuse_unknown
from .integer import (
    LARGEST,
    MOST_BITS,
    SHORT,
    IntegerAxisLIF,
    IntegerLIF,
    IntegerStem,
    IntegerTable,
    TooFineError,
    ends,
    leak_bits,
)
from .layers import EventConv2d, EventLinear, EventMap
from .tables import RowTable

# What can be counted in whole numbers, each by its exact class; only in the stem may a map stay dense.
_KNOWN = (
    CONTAINERS
    | WIRINGS
    | FOLDED_HEADS
    | NEURONS
    | {SpikingPatchEncoding, EventLinear, EventConv2d, RowTable, SelectedAffine, nn.Conv2d}
)

FEWEST_UNITS, MOST_UNITS = 64, 4096  # of a threshold: the fewest in 16 bits, and the most
HERE = "snnmlp_edu/mfi/events/quantisation.py"
Size = TypeVar("Size", int, float)


@torch.no_grad()
def quantise(network: nn.Module, preprocessing: Preprocessing | None = None) -> dict[str, float]:
    """Turn an event-driven network into whole numbers, in place.

    Args:
        network: a `SpikingMLP` whose maps all run on events.
        preprocessing: as in `event_driven`.

    Returns:
        The scale of each group of maps that add into one membrane, by path; that of the logits is `head`.

    Raises:
        InputError: the network is no `SpikingMLP`, or has something that whole numbers cannot represent.
    """
    if type(network) is not SpikingMLP:
        raise InputError(f"weights='int8' is made for a SpikingMLP, not for {type(network).__name__}")
    c = network.config
    if c.skip == "spike":
        raise InputError(
            "skip is 'spike': its blocks pass on sums of spikes, 2 and more, and only 0 and 1 can be added"
            " here; take stage, membrane, spike_bn, inner or none"
        )
    refuse_unknown(network, _KNOWN, "weights='int8'", HERE)
    leak_bits(c.neuron)
    refuse_infinite(network)
    given = preprocessing or network.preprocessing or Preprocessing(c.image_size, c.in_channels)
    for name in ("image_size", "in_channels"):
        if getattr(given, name) != getattr(c, name):
            raise InputError(
                f"preprocessing.{name} is {getattr(given, name)}, and that of the network {getattr(c, name)};"
                " give the preprocessing that the network was trained with"
            )
    return {group: _convert(network, group, paths, given) for group, paths in _groups(network).items()}


def _groups(network: SpikingMLP) -> dict[str, list[str]]:
    """Paths of the layers whose currents add up in the same membranes, by group.

    Position mixing and the way up are groups of their own; else those of a stage are one. With the shortcut
    `inner`, the current of the way up is among those of the stage.
    """
    sole: dict[str, str] = {"head.affine": "head.neuron", "head.neuron": "head.neuron"}
    for path, module in network.named_modules():
        if isinstance(module, PositionMixing):
            sole[f"{path}.synapse"] = path
        if isinstance(module, MixerBlock) and not isinstance(module, InnerSkipBlock):
            sole[f"{path}.channel.up"] = f"{path}.channel.up"
    groups: dict[str, list[str]] = {}
    for path, module in network.named_modules():
        if isinstance(module, EventMap | LIF | SelectedAffine | Stem):
            own = [group for start, group in sole.items() if f"{path}.".startswith(f"{start}.")]
            stage = ".".join(path.split(".")[:2]) if path.startswith("stages.") else "head"
            groups.setdefault(own[0] if own else stage, []).append(path)
    return groups


def _convert(network: SpikingMLP, group: str, paths: list[str], preprocessing: Preprocessing) -> float:
    """Turn a group into whole numbers, in the finest unit in which all is proved to fit; returns the unit."""
    real = {path: network.get_submodule(path) for path in paths}
    neurons = [layer for layer in real.values() if isinstance(layer, LIF)]
    threshold = min((layer.config.threshold for layer in neurons), default=math.inf)
    sizes = {path: _real_magnitude(layer) for path, layer in real.items()}
    largest = largest_current(network, group, sizes.__getitem__) if neurons else 0.0
    for word in (16, 32):
        unit = threshold / MOST_UNITS if neurons else _finest_unit(real.values())
        # Units in which the real weights alone exceed the bits are passed over: quantising takes its time.
        hopeless = 0.99 * largest / 2 ** (word - 1)
        while unit < hopeless:
            unit *= 2**0.25
        while word == 32 or threshold / unit >= FEWEST_UNITS:
            try:
                whole = {path: _in_units(path, layer, unit, preprocessing) for path, layer in real.items()}
                _prove(network, group, whole, unit, word)
            except TooFineError:
                unit *= 2**0.25
                continue
            for path, layer in whole.items():
                if isinstance(layer, IntegerLIF | IntegerAxisLIF):
                    layer.word = word
                network.set_submodule(path, layer)
            _convert_head(network, group, unit)
            return unit
    raise AssertionError("some unit fits into 32 bits")


def _real_magnitude(layer: nn.Module) -> float:
    """The largest current, in size, that a map of real weights can send; of other layers 0, which is less."""
    if not isinstance(layer, EventMap) or not isinstance(layer.table, RowTable):
        return 0.0
    rows = layer.table.rows.unflatten(0, (layer.steps, -1)).double()
    return float(torch.stack(ends(rows[:, 1:], rows[:, 0])).abs().max())


def _convert_head(network: SpikingMLP, group: str, unit: float) -> None:
    match network.head:
        case FoldedFigureHead() as head if group == "head.neuron":
            head.shift = constant(torch.round(head.shift / unit).to(torch.int32))
        case FoldedHead() as head if group == "head":
            head.bias = constant(torch.round(head.bias / unit).to(torch.int32))


def _finest_unit(layers: Iterable[nn.Module]) -> float:
    """No map's weights fit into a unit below this one."""
    largest = max(
        float(layer.table.rows.unflatten(0, (layer.steps, -1))[:, 1:].abs().max())
        for layer in layers
        if isinstance(layer, EventMap) and isinstance(layer.table, RowTable)
    )
    return largest / (LARGEST + 0.49) or 1.0  # any unit holds weights that are all 0


def _in_units(path: str, layer: nn.Module, unit: float, preprocessing: Preprocessing) -> nn.Module:
    """A layer in whole numbers of a unit."""
    match layer:
        case EventMap():
            assert isinstance(layer.table, RowTable)
            most_bits = 0 if path.startswith("head.") else MOST_BITS
            twin = copy.copy(layer)
            table = IntegerTable(layer.table.rows, layer.steps, unit, most_bits).eval()
            twin._modules = {**layer._modules, "table": table}
            return twin
        case AxisLIF() if type(layer) is AxisLIF:
            return IntegerAxisLIF(layer, unit).eval()
        case LIF() if type(layer) is LIF:
            return IntegerLIF(layer.config, unit).eval()
        case SelectedAffine():
            whole = SelectedAffine(torch.zeros_like(layer.with_spike), torch.zeros_like(layer.with_spike))
            for name in ("with_spike", "without_spike"):
                setattr(whole, name, constant(torch.round(getattr(layer, name) / unit).to(torch.int32)))
            return whole.eval()
        case Stem():
            return IntegerStem(layer, preprocessing, unit).eval()
        case _:
            raise _not_here(path, layer)


def _not_here(path: str, layer: nn.Module) -> InputError:
    return InputError(
        f"{path} is a {type(layer).__name__}, which has no form in whole numbers; extend {HERE}"
    )


def _prove(network: SpikingMLP, group: str, whole: dict[str, nn.Module], unit: float, word: int) -> None:
    """Check that no current and no membrane of a group can exceed its bits, whatever spikes arrive.

    Raises:
        TooFineError: one could.
    """
    most = 2 ** (word - 1) - 2  # a strict comparison is one with the threshold + 1
    steps = network.config.time_steps
    largest = largest_current(network, group, lambda path: magnitude(whole[path]))
    if group == "head.neuron":
        head: Any = network.head
        largest += round(float(head.shift.abs().max()) / unit)
    neurons = [layer for layer in whole.values() if isinstance(layer, IntegerLIF | IntegerAxisLIF)]
    for neuron in neurons:
        bias = int(neuron.bias.abs().max()) if isinstance(neuron, IntegerAxisLIF) else 0
        kept = sum(neuron.config.beta**step for step in range(steps))
        reached = (largest + bias) * kept + steps  # in each step the leak may round one down
        threshold = int(torch.as_tensor(neuron.threshold).abs().max())
        if not neuron.config.resets_to_zero:
            reached += threshold
        if reached > most or (isinstance(neuron, IntegerLIF) and threshold > most):
            raise TooFineError


def magnitude(layer: nn.Module) -> int:
    """The largest current, in size, that a layer in whole numbers can send.

    Raises:
        TooFineError: a constant of it exceeds 16 bits.
    """
    match layer:
        case EventMap():
            return int(layer.table.magnitude)  # type: ignore[arg-type]
        case IntegerStem():
            return layer.magnitude
        case SelectedAffine():
            largest = int(torch.maximum(layer.with_spike.abs(), layer.without_spike.abs()).max())
            # The engine selects in 16 bits, also where currents have 32.
            if max(largest, int((layer.with_spike - layer.without_spike).abs().max())) > SHORT:
                raise TooFineError
            return largest
        case _:
            raise AssertionError(type(layer).__name__)


def largest_current(network: SpikingMLP, group: str, size: Callable[[str], Size]) -> Size:
    """The largest current, in size, that can add up at a neuron of a group, of the sizes of its maps."""
    if group == "head":
        return size("head.linear")
    if group == "head.neuron":
        head: Any = network.head
        height, width = head.places[1:]
        return size("head.affine") * height * width
    module = network.get_submodule(group)
    if not isinstance(module, Stage):
        return size(f"{group}.linear" if group.endswith(".up") else f"{group}.synapse.linear")
    match module.embedding:
        case Stem():
            embedding = size(f"{group}.embedding")
        case ConvPatchEmbedding():
            embedding = size(f"{group}.embedding.embed.conv")
        case SpikingPatchEncoding():
            down, first, second = (
                size(f"{group}.embedding.{name}.conv") for name in ("down", "between.0", "between.1")
            )
            embedding = max(down + first, 2 * down + second)
        case other:
            raise _not_here(f"{group}.embedding", other)
    reached, carried = [embedding], embedding
    for index, block in enumerate(module.blocks):
        path = f"{group}.blocks.{index}"
        token, channel = size(f"{path}.token.fuse.linear"), size(f"{path}.channel.down.linear")
        match block:
            case MembraneSkipBlock():
                carried += token + channel
                reached.append(carried)
            case NormalisedSpikeSkipBlock():
                reached.append(token + size(f"{path}.token_skip_norm"))
                reached.append(channel + size(f"{path}.channel_skip_norm"))
            case NoSkipBlock():
                reached += [token, channel]
            case InnerSkipBlock():
                reached += [token, channel + size(f"{path}.channel.up.linear")]
            case MixerBlock() if type(block) is MixerBlock:
                reached.append(embedding + token + channel)
            case _:
                raise _not_here(path, block)
    return max(reached)
