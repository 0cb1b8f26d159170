"""Where the spikes of a run lie in memory, and how many additions each of them causes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..mfi.events.integer import IntegerStem
from ..mfi.events.layers import EventConv2d, EventLinear
from ..model.mixing import AxialMixing, FullMixing, NoMixing
from ..model.network import SpikingMLP
from ..model.patches import ConvPatchEmbedding, SpikingPatchEncoding
from .exporting import NetworkFile


def describe_spikes(network: SpikingMLP, layout: NetworkFile) -> list[dict[str, Any]]:
    """The table of all layers of neurons.

    Args:
        network: what `event_driven(folded, weights="int8")` returned.
        layout: what `write_network(network)` returned with the file.

    Returns:
        For each layer: `path`; `at`, `places`, `lanes` and `steps`, such that bit `c % 8` of the byte
        `at + (place * steps + step) * lanes / 8 + c // 8` is lane c; `order`, the lane of each channel; and
        `additions`, how many numbers one spike adds, for each place.
    """
    each = additions_of_a_spike(network)
    return [
        {
            "path": fired.path,
            "at": fired.at,
            "places": fired.places,
            "lanes": fired.lanes,
            "steps": fired.steps,
            "order": [int(lane) for lane in fired.order],
            "additions": each[fired.path].flatten().tolist(),
        }
        for fired in layout.fired
    ]


def additions_of_a_spike(network: SpikingMLP) -> dict[str, Tensor]:
    """How many weights one spike of a layer adds, in all maps that read it, for each place: `[side, side]`.

    Args:
        network: what `event_driven(folded, weights="int8")` returned.
    """
    found: dict[str, Tensor] = {}
    before = ""
    for index, (stage, (side, _)) in enumerate(zip(network.stages, network.config.grids, strict=True)):
        path = f"stages.{index}"

        def reads(layer: str, amount: Tensor | int, side: int = side) -> None:
            found[layer] = found.get(layer, torch.zeros(side, side, dtype=torch.long)) + amount

        embedding: Any = stage.embedding
        match embedding:
            case IntegerStem():
                pass
            case ConvPatchEmbedding():
                found[before] = found[before] + _of_map(embedding.embed.conv, found[before].shape[0])
            case SpikingPatchEncoding():
                found[before] = found[before] + _of_map(embedding.down.conv, found[before].shape[0])
                between_nodes: Any = embedding.between
                for number, between in enumerate(between_nodes):
                    reads(f"{path}.embedding.neurons.{number}", _of_map(between.conv, side))
            case other:
                raise AssertionError(f"{type(other).__name__}; extend snnmlp_edu/engine/spikes.py")
        before = f"{path}.neuron"
        blocks: Any = stage.blocks
        for number, here in enumerate(blocks):
            token, channel = here.token, here.channel
            at, fuse = f"{path}.blocks.{number}", _outputs(token.fuse.linear)
            reads(before, fuse)
            for name in _mixings(token.positions):
                mixing = getattr(token.positions, name)
                reads(before, _outputs(mixing.synapse.linear))
                reads(f"{at}.token.positions.{name}.synapse.neuron", fuse)
            reads(f"{at}.token.fuse.neuron", _outputs(channel.up.linear))
            reads(f"{at}.channel.up.neuron", _outputs(channel.down.linear))
            before = f"{at}.channel.down.neuron"
            reads(before, 0)
    head: Any = network.head
    if hasattr(head, "neuron"):  # spikes of the grid choose constants, and those of the figure add weights
        found[before] = found[before] + 1
        found["head.neuron"] = torch.full((1, 1), _outputs(head.linear))
    else:
        found[before] = found[before] + _outputs(head.linear)
    return found


def _mixings(positions: nn.Module) -> tuple[str, ...]:
    match positions:
        case NoMixing():
            return ()
        case AxialMixing():
            return ("rows", "columns")
        case FullMixing():
            return ("grid",)
        case other:
            raise AssertionError(f"{type(other).__name__}; extend snnmlp_edu/engine/spikes.py")


def _outputs(layer: Any) -> int:
    assert isinstance(layer, EventLinear | EventConv2d)
    table: Any = layer.table
    return int(table.before.shape[1])


def _of_map(layer: Any, side: int) -> Tensor:
    """For each place, how many windows of a convolution cover it, times the outputs of each."""
    shape: dict[str, Any] = {
        "kernel_size": layer.kernel_size,
        "padding": layer.padding,
        "stride": layer.stride,
    }
    taken = functional.unfold(torch.ones(1, 1, side, side), **shape)
    return functional.fold(taken, (side, side), **shape)[0, 0].long() * _outputs(layer)
