"""Which layers are known, each by its exact class: a subclass may compute anything, so it is not its parent.

Whatever reads a network by its classes instead of running it starts from these sets, and refuses by name what
is in none of them.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from ..errors import InputError
from ..model.linear import AxisLinear
from ..model.mixing import (
    BLOCKS,
    AxialMixing,
    ChannelMixing,
    FullMixing,
    MixerBlock,
    NoMixing,
    PositionMixing,
    TokenMixing,
    wiring_of,
)
from ..model.network import Head, SpikingMLP, SpikingNetwork, Stage
from ..model.neurons import LIF
from ..model.normalisation import BatchNorm, LayerNorm, TemporalBatchNorm, ThresholdBatchNorm
from ..model.patches import ConvNorm, ConvPatchEmbedding, SpikingPatchEncoding, Stem
from ..model.synapses import Synapse
from .folding.layers import (
    AxisLIF,
    ChannelAffine,
    FoldedFigureHead,
    FoldedHead,
    SelectedAffine,
    SteppedLinear,
)

Kinds = frozenset[type[nn.Module]]

# What these compute, their parts compute.
CONTAINERS: Kinds = frozenset(
    {
        nn.ModuleList,
        nn.Sequential,
        nn.Identity,
        SpikingNetwork,
        SpikingMLP,
        Stage,
        TokenMixing,
        AxialMixing,
        FullMixing,
        NoMixing,
        PositionMixing,
        ChannelMixing,
        Synapse,
        ConvNorm,
        Stem,
        ConvPatchEmbedding,
    }
)
WIRINGS: Kinds = frozenset(BLOCKS.values())
MAPS: Kinds = frozenset({AxisLinear, SteppedLinear, nn.Conv2d})
NORMALISATIONS: Kinds = frozenset({BatchNorm, ThresholdBatchNorm, TemporalBatchNorm, LayerNorm})
STATISTICS: Kinds = frozenset({nn.BatchNorm1d, nn.SyncBatchNorm, nn.LayerNorm})  # inside a normalisation
NEURONS: Kinds = frozenset({LIF, AxisLIF})
AFFINE: Kinds = frozenset({SelectedAffine, ChannelAffine})
FOLDED_HEADS: Kinds = frozenset({FoldedHead, FoldedFigureHead})

_SPIKING = (CONTAINERS | MAPS | NORMALISATIONS | STATISTICS | NEURONS | AFFINE | FOLDED_HEADS) | {
    SpikingPatchEncoding,
    Head,
    nn.Linear,
}


def refuse_unknown(network: nn.Module, known: Collection[type[nn.Module]], task: str, file: str) -> None:
    """Raise for the first layer whose exact class is not among the known ones.

    Args:
        network: what is to be read.
        known: the classes.
        task: what cannot be done, as in "`task` does not know it".
        file: where to teach it that class.

    Raises:
        InputError: names the layer and its class, or the method that it has in place of its class's.
    """
    for path, module in network.named_modules():
        where = path or "the network"
        _refuse_own_methods(where, module)
        if type(module) not in known:
            raise InputError(
                f"{where} is a {type(module).__name__}, which {task} does not know; extend {file}"
            )


def refuse_infinite(network: nn.Module) -> None:
    """Raise for the first parameter or buffer that holds a value which is not finite.

    Raises:
        InputError: names it.
    """
    for path, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not tensor.isfinite().all():
            raise InputError(f"{path} holds NaN or infinite values; load or train weights that are finite")


def refuse_altered(network: nn.Module) -> None:
    """Raise for the first layer that may compute something else than its class does.

    Raises:
        InputError: names a layer that has a forward hook, or a method of its own.
    """
    for path, module in network.named_modules():
        where = path or type(module).__name__
        if module._forward_hooks or module._forward_pre_hooks:
            raise InputError(
                f"{where} has a forward hook, which may change what it computes; remove it first"
            )
        _refuse_own_methods(where, module)


def _refuse_own_methods(where: str, module: nn.Module) -> None:
    for name in vars(module):
        if callable(getattr(type(module), name, None)):
            raise InputError(
                f"{where} has a {name} of its own, in place of the one of {type(module).__name__}; delete it"
                " from the instance, or write a class with it"
            )


def lets_only_spikes_through(network: nn.Module) -> bool:
    """Whether all that moves between the layers is known to be 0 or 1."""
    return all(_is_spiking(type(module)) for module in network.modules())


def _is_spiking(kind: type[nn.Module]) -> bool:
    if issubclass(kind, MixerBlock):
        wiring = wiring_of(kind)
        return wiring is not None and wiring.puts_out_spikes
    return kind in _SPIKING
