r"""Export of folded networks to NIR, the neuromorphic intermediate representation.

NIR is a graph: nodes are small models in continuous time, several edges into a node add up. It has
convolutions, affine maps of vectors and leaky integrate-and-fire (LIF) neurons, and it can flatten a grid to
a vector. It cannot make a grid of a vector again, share a map along one axis, or concatenate. So:

| in the network | in the graph |
|---|---|
| stem | `Conv2d`, `Flatten` to a vector ordered channel, row, column |
| any later map or convolution | `Affine`: the whole matrix between two flattened grids, unrolled |
| fuse of spikes side by side | one map for each of them, added up |
| concatenation of three nodes in patch encoding | three maps that put them in place, added up |
| shortcut | one more edge |
| neuron | `LIF`, or `IF` without a leak |
| head | `Affine` from the last spikes; what leaves the graph adds up over the steps |

NIR's LIF is :math:`\tau \dot v = v_{leak} - v + R I`. In steps of :math:`\Delta` that is
:math:`u = (1 - \Delta/\tau) v + (\Delta/\tau) R I`, so that :math:`\tau = \Delta / (1 - \beta)` and
:math:`R = \tau / \Delta` give the network's neuron :math:`u = \beta v + I`.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..data.files import write_atomically
from ..errors import InputError
from ..model.linear import AxisLinear
from ..model.mixing import (
    AxialMixing,
    FullMixing,
    InnerSkipBlock,
    MembraneSkipBlock,
    MixerBlock,
    NoMixing,
    NormalisedSpikeSkipBlock,
    NoSkipBlock,
    SpikeSkipBlock,
    TokenMixing,
)
from ..model.network import Head, SpikingMLP
from ..model.neurons import LIF
from ..model.normalisation import BatchNorm, LayerNorm
from ..model.patches import ConvPatchEmbedding, SpikingPatchEncoding, Stem
from .folding.layers import AxisLIF, FoldedFigureHead, FoldedHead, SteppedLinear
from .known import AFFINE, CONTAINERS, FOLDED_HEADS, WIRINGS, refuse_altered, refuse_infinite
from .nir_graph import STEP, GraphBuilder, Signal, nir_package

if TYPE_CHECKING:
    import nir

_KNOWN = CONTAINERS | WIRINGS | AFFINE | FOLDED_HEADS | {SpikingPatchEncoding, AxisLinear, nn.Conv2d, LIF}


def export_nir(folded: nn.Module, path: str | Path | None = None) -> nir.NIRGraph:
    r"""A folded network as a NIR graph, for small networks; written to a file where a path is given.

    Nodes are named as the modules are, with two underscores for a dot: the spikes of a node are those that
    `record(folded, images)` keeps under that path, flattened in the order channel, row, column. NIR's neuron
    fires above its threshold, the network's at it, so the graph's threshold is the next smaller number in the
    network's precision: the same rule, as long as the graph runs in that precision. Sums may be taken in
    another order there, which matters only where a membrane meets the threshold up to rounding. The notes in
    `graph.metadata` say how to run the graph.

    What NIR cannot say is an error: ReLU, soft reset, weights that differ from step to step (folded TEBN),
    neurons whose comparison turns round (`AxisLIF`).

    Args:
        folded: what `fold_batch_norm` returned, in evaluation mode.
        path: the file, usually named `.nir`; it is written whole or not at all.

    Returns:
        The graph. Its input is one image `[channels, H, W]`, its output what a step adds to the logits.

    Raises:
        InputError: the network is not a folded one, has something that NIR cannot say or a layer whose exact
            class is not known, or unrolls to more than 16,777,216 weights; or the package `nir` is not
            installed.
        OSError: the file cannot be written.

    Source: Pedersen et al., "Neuromorphic intermediate representation", 2024, doi 10.1038/s41467-024-52259-9.

    >>> from snnmlp_edu import create_model
    >>> from snnmlp_edu.mfi import calibrate, fold_batch_norm
    >>> model = create_model("mlp_spe_nano", dim=6, image_size=8, depths=(1, 1))
    >>> graph = export_nir(fold_batch_norm(calibrate(model, torch.rand(2, 1, 8, 8))))
    >>> graph.nodes["stages__0__neuron"].output_type["output"]  # 6 channels of a 4 x 4 grid
    array([96])
    """
    network = _check(folded)
    graph = _build(copy.deepcopy(network).double(), next(network.parameters()).dtype)
    if path is not None:
        content = io.BytesIO()
        nir_package().write(content, graph)
        write_atomically(Path(path), content.getvalue())
    return graph


def _check(folded: nn.Module) -> SpikingMLP:
    """The network, if all of it can be exported."""
    if type(folded) is not SpikingMLP:
        raise InputError(f"export_nir exports a folded SpikingMLP and got {type(folded).__name__}")
    if folded.training:
        raise InputError("the network is in training mode; call .eval() first")
    refuse_altered(folded)
    for path, module in folded.named_modules():
        reason = _beyond(module)
        if reason:
            raise InputError(f"{path}: {reason}")
        if type(module) not in _KNOWN:
            raise _not_here(path, module)
    for path, tensor in folded.named_parameters():
        if tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(f"{path} is {tensor.dtype}; NIR holds single or double precision: call .float()")
    refuse_infinite(folded)
    return folded


def _beyond(module: nn.Module) -> str | None:
    """Why a layer cannot be exported, and what to do; None where it can."""
    match module:
        case BatchNorm() | LayerNorm():
            return "a normalisation is not folded; export what fold_batch_norm returns"
        case Head() if type(module) is Head:
            return "a normalisation is not folded; export what fold_batch_norm returns"
        case nn.ReLU():
            return "NIR has no ReLU; export a network with activation='lif'"
        case SteppedLinear():
            return "NIR's weights are the same at every step; take another norm than 'tebn'"
        case AxisLIF():
            return "NIR's neurons all fire above a threshold; take another channel_norm than 'bn_token'"
        case LIF() if not module.config.resets_to_zero:
            return "NIR's neurons reset to a value; take neuron.reset='hard'"
    return None


@torch.no_grad()
def _build(folded: SpikingMLP, dtype: torch.dtype) -> nir.NIRGraph:
    builder = GraphBuilder(dtype)
    signal: Signal | None = None
    for index, stage in enumerate(folded.stages):
        path = f"stages.{index}"
        embedded = _embed(builder, f"{path}.embedding", stage.get_submodule("embedding"), signal)
        signal = builder.fire(f"{path}.neuron", stage.get_submodule("neuron"), embedded)
        for number, block in enumerate(_blocks(stage)):
            signal, embedded = _mix(builder, f"{path}.blocks.{number}", block, signal, embedded)
    assert signal is not None  # a configuration has at least one stage
    logits = _read_out(builder, folded.head, signal)
    builder.add("output", nir_package().Output(output_type=np.array([logits.shape[-1]])), *logits.nodes)
    notes = {
        "step_s": STEP,
        "time_steps": folded.config.time_steps,
        "input": "one image, the same at every step, or one image per step",
        "output": "what a step adds to the logits: sum it over the steps",
        "time": "an Euler step: u = (1 - step/tau) v + r step/tau I, without tau u = v + r step I; every"
        " node sees what the nodes before it put out at the same step; all potentials start at 0",
        "threshold": "a neuron fires where u > v_threshold"
        + (
            f", the largest {str(dtype).removeprefix('torch.')} below the network's threshold, which fires"
            " where u reaches it"
            if folded.config.neuron.inclusive
            else ""
        ),
    }
    return nir_package().NIRGraph(nodes=builder.nodes, edges=builder.edges, metadata=notes)


def _blocks(stage: nn.Module) -> Iterator[nn.Module]:
    """The blocks as they run: one that runs twice comes twice, unlike in `children`."""
    blocks = stage.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    return iter(blocks)


def _stem(builder: GraphBuilder, stem: Stem) -> Signal:
    config, conv = stem.config, stem.embed.conv
    image = (config.image_size, config.image_size)
    channels, *grid = conv(conv.weight.new_zeros(1, conv.in_channels, *image)).shape[1:]
    bias = conv.weight.new_zeros(channels) if conv.bias is None else conv.bias
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise InputError(
            f"the stem pads by {conv.padding_mode!r}, {conv.padding!r}; NIR pads by a number of zeros"
        )
    path = "stages.0.embedding"
    source = builder.add("input", nir_package().Input(input_type=np.array([config.in_channels, *image])))
    patches = nir_package().Conv2d(
        input_shape=image,
        weight=builder.array(conv.weight),
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=builder.array(bias),
    )
    embedded = builder.add(f"{path}.embed", patches, source)
    flatten = nir_package().Flatten(input_type=np.array([channels, *grid]), start_dim=0, end_dim=-1)
    return Signal((builder.add(path, flatten, embedded),), (grid[0], grid[1], channels))


def _embed(builder: GraphBuilder, path: str, embedding: nn.Module, spikes: Signal | None) -> Signal:
    """The embedding of a stage's spikes; of images where there are none yet."""
    match embedding:
        case Stem() if spikes is None:
            return _stem(builder, embedding)
        case ConvPatchEmbedding() if spikes is not None:
            return builder.map(path, embedding, spikes)
        case SpikingPatchEncoding() if spikes is not None:
            return _encode(builder, path, embedding, spikes)
        case _:
            raise _not_here(path, embedding)


def _encode(builder: GraphBuilder, path: str, embedding: SpikingPatchEncoding, spikes: Signal) -> Signal:
    down, between, neurons = embedding.down, embedding.between, embedding.neurons
    first, second, third = (
        builder.map(f"{path}.down.{k}", lambda s, k=k: down(s).chunk(3, dim=-1)[k], spikes) for k in range(3)
    )
    fired = builder.fire(f"{path}.neurons.0", neurons[0], first)
    second = second + builder.map(f"{path}.between.0", between[0], fired)
    fired = builder.fire(f"{path}.neurons.1", neurons[1], second)
    third = third + first + builder.map(f"{path}.between.1", between[1], fired)
    node = first.shape[-1]
    placed = [
        builder.map(
            f"{path}.place.{k}", lambda n, k=k: functional.pad(n, (k * node, (2 - k) * node)), current
        )
        for k, current in enumerate((first, second, third))
    ]
    return placed[0] + placed[1] + placed[2]


def _mix(
    builder: GraphBuilder, path: str, block: nn.Module, spikes: Signal, embedded: Signal
) -> tuple[Signal, Signal]:
    """Output spikes of a block, and the current that its shortcut carries on."""
    if not isinstance(block, MixerBlock):
        raise _not_here(path, block)
    token = _mix_tokens(builder, f"{path}.token", block.token, spikes)

    def fire_tokens(current: Signal) -> Signal:
        return builder.fire(f"{path}.token.fuse.neuron", block.token.fuse.neuron, current)

    def fire_channels(current: Signal) -> Signal:
        return builder.fire(f"{path}.channel.down.neuron", block.channel.down.neuron, current)

    def raise_channels(fired: Signal) -> Signal:
        return builder.map(f"{path}.channel.up", block.channel.up.current, fired)

    def lower_channels(current: Signal) -> Signal:
        hidden = builder.fire(f"{path}.channel.up.neuron", block.channel.up.neuron, current)
        return builder.map(f"{path}.channel.down", block.channel.down.current, hidden)

    def mix_channels(fired: Signal) -> Signal:
        return lower_channels(raise_channels(fired))

    match block:
        case NoSkipBlock():
            return fire_channels(mix_channels(fire_tokens(token))), embedded
        case SpikeSkipBlock():
            fired = fire_tokens(token) + spikes
            return fire_channels(mix_channels(fired)) + fired, embedded
        case NormalisedSpikeSkipBlock():
            norms = block.token_skip_norm, block.channel_skip_norm
            fired = fire_tokens(token + builder.map(f"{path}.token_skip_norm", norms[0], spikes))
            shortcut = builder.map(f"{path}.channel_skip_norm", norms[1], fired)
            return fire_channels(mix_channels(fired) + shortcut), embedded
        case MembraneSkipBlock():
            current = token + embedded
            total = mix_channels(fire_tokens(current)) + current
            return fire_channels(total), total
        case InnerSkipBlock():
            current = raise_channels(fire_tokens(token))
            return fire_channels(lower_channels(current) + current), embedded
        case _ if type(block) is MixerBlock:
            current = token + embedded
            return fire_channels(mix_channels(fire_tokens(current)) + current), embedded
        case _:
            raise _not_here(path, block)


def _mix_tokens(builder: GraphBuilder, path: str, token: TokenMixing, spikes: Signal) -> Signal:
    match token.positions:
        case AxialMixing() as axial:
            mixings = {"rows": axial.rows, "columns": axial.columns}
        case FullMixing() as full:
            mixings = {"grid": full.grid}
        case NoMixing():
            mixings = {}
        case _:
            raise _not_here(f"{path}.positions", token.positions)
    streams = [spikes]
    for name, mixing in mixings.items():
        node, synapse = f"{path}.positions.{name}.synapse", mixing.synapse
        current = builder.map(node, synapse.current, spikes)
        streams.append(builder.fire(f"{node}.neuron", synapse.neuron, current))
    return builder.map(f"{path}.fuse", token.fuse.current, *streams)


def _read_out(builder: GraphBuilder, head: nn.Module, spikes: Signal) -> Signal:
    match head:
        case FoldedFigureHead():
            affine, shift = head.affine, head.shift
            pooled = builder.map("head.pool", lambda s: affine(s).sum((2, 3), keepdim=True) + shift, spikes)
            fired = builder.fire("head.neuron", head.neuron, pooled)
            return builder.map("head.linear", head.linear, fired)
        case FoldedHead():
            linear, bias = head.linear, head.bias
            return builder.map("head", lambda s: linear(s).sum((2, 3), keepdim=True) + bias, spikes)
        case _:
            raise _not_here("head", head)


def _not_here(path: str, module: nn.Module) -> InputError:
    return InputError(
        f"{path} is a {type(module).__name__}, which export_nir does not know there; extend"
        " snnmlp_edu/mfi/nir.py"
    )
