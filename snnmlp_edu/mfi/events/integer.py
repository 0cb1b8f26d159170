r"""An event-driven network in whole numbers: weights of 8 bits, currents and membranes of 32.

All that adds up in one membrane is counted in one unit :math:`\sigma`, the group's *scale*:

.. math::
    W_{qp} \approx \sigma\, 2^{k_q}\, \hat W_{qp}, \quad b_q \approx \sigma\, \hat b_q, \quad
    \theta \approx \sigma\, \hat\theta, \qquad \hat W \in [-127, 127]

with one k for each output, so that small weights keep their precision next to large ones. A layer then adds
8-bit weights, shifts the sum by k bits, adds the bias and compares with :math:`\hat\theta`: exact, whatever
the order. The leak :math:`\beta = 2^{-m}` is an arithmetic shift, which rounds down:
:math:`\lfloor \hat v / 2^m \rfloor`. The stem stays real; 1 / :math:`\sigma` goes into its weights, and its
current is rounded once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...config import NeuronConfig
from ...errors import InputError
from ...model.mixing import ChannelMixing, PositionMixing
from ...model.network import SpikingMLP
from ...model.neurons import LIF
from ...model.patches import SpikingPatchEncoding, Stem
from ..folding.layers import FoldedFigureHead, FoldedHead, SelectedAffine, constant
from ..known import CONTAINERS, FOLDED_HEADS, NEURONS, WIRINGS, refuse_unknown
from .forms import EventSynapse
from .layers import EventConv2d, EventLinear, EventMap
from .tables import Events, RowTable, runs_compiled

# What can be counted in whole numbers, each by its exact class; only in the stem may a map stay dense.
_KNOWN = (
    CONTAINERS
    | WIRINGS
    | FOLDED_HEADS
    | NEURONS
    | {SpikingPatchEncoding, EventSynapse, EventLinear, EventConv2d, RowTable, SelectedAffine, nn.Conv2d}
)

LARGEST = 127
FRACTION_BITS = 4  # of the smallest map's 8-bit unit, so that rounding a leak or a bias costs little


class IntegerTable(nn.Module):
    """Weight rows of 8 bits, whose sum is shifted before the bias is added.

    Args:
        rows: `[rows, out]` as in `RowTable`, real; the first of each step is that step's bias.
        steps: number of steps with rows of their own.
        scale: what one unit of the sums stands for.
    """

    weights: Tensor
    biases: Tensor
    bits: Tensor

    def __init__(self, rows: Tensor, steps: int, scale: float) -> None:
        super().__init__()
        weights = _weights(rows, steps)  # [steps, 1 + in, out]
        bits = _bits(weights.abs().amax(dim=(0, 1)), scale)
        whole = torch.round(weights / (scale * 2**bits)).flatten(0, 1)
        if weights.shape[1] * LARGEST * 2 ** int(bits.max()) >= 2**31:
            raise InputError("a sum of these 8-bit weights may not fit into 32 bits")
        self.register_buffer("bits", bits)
        self.register_buffer("weights", whole.clamp(-LARGEST, LARGEST).to(torch.int8))
        self.register_buffer("biases", _whole(rows.view(weights.shape)[:, 0], scale))

    def forward(self, events: Events) -> Tensor:
        """Currents `[bags, out]` in int32."""
        rows, bounds = events
        if runs_compiled(self.weights):
            from .one_pass import sum_integers

            sums = sum_integers(rows, bounds, self.weights)
        else:
            sums = torch.zeros(events.bags, self.weights.shape[1], dtype=torch.int32, device=rows.device)
            bag_of = torch.arange(events.bags, device=rows.device).repeat_interleave(bounds.diff())
            sums = sums.index_add_(0, bag_of, self.weights[rows].to(torch.int32))
        steps, out = self.biases.shape
        by_step = (sums << self.bits).view(steps, events.bags // steps, out) + self.biases.unsqueeze(1)
        return by_step.view(events.bags, out)


def _weights(rows: Tensor, steps: int) -> Tensor:
    """The rows of each step, `[steps, 1 + in, out]`, with 0 in place of the bias."""
    weights = rows.unflatten(0, (steps, -1)).clone()
    weights[:, 0] = 0
    return weights


def _bits(largest: Tensor, scale: float) -> Tensor:
    """By how many bits 127 units must be shifted to reach weights up to `largest`."""
    ratio = (largest / (LARGEST * scale)).clamp(min=1)
    return (torch.log2(ratio) - 1e-6).ceil().to(torch.int32)  # what comes out exact must not go up one


def _whole(values: Tensor, scale: float) -> Tensor:
    return torch.round(values / scale).to(torch.int32)


class IntegerLIF(LIF):
    r"""LIF neurons in whole numbers; the leak is a shift that rounds down.

    .. math::
        u[t] = \lfloor v[t-1] / 2^m \rfloor + x[t], \qquad s[t] = H(u[t] - \hat\theta)

    Args:
        config: the neuron without input gain, its beta a power of two.
        scale: what one unit stands for.

    Currents are of int32, spikes floating point, each 0 or 1.

    Raises:
        InputError: beta is neither 0 nor a power of two.

    >>> neuron = IntegerLIF(NeuronConfig(input_gain=1.0, threshold=2.0), scale=0.01)
    >>> neuron(torch.tensor([[150], [130]], dtype=torch.int32)).flatten()
    tensor([0., 1.])
    """

    def __init__(self, config: NeuronConfig, scale: float) -> None:
        threshold = max(1, round(config.threshold / scale))
        super().__init__(dataclasses.replace(config, threshold=threshold))
        if config.beta and math.frexp(config.beta)[0] != 0.5:
            raise InputError(f"beta is {config.beta}; as a shift of whole numbers it must be a power of two")
        self.threshold = threshold
        self.bits = 1 - math.frexp(config.beta)[1] if config.beta else None

    def forward(self, current: Tensor) -> Tensor:
        """Spikes `[T, ...]` for currents `[T, ...]` of int32."""
        membrane: Tensor | None = None
        spikes = []
        for now in current:
            leaks = membrane is not None and self.bits is not None
            potential = (membrane >> self.bits) + now if leaks else now  # type: ignore[operator]
            fires = potential >= self.threshold if self.config.inclusive else potential > self.threshold
            reset = torch.zeros_like(potential) if self.config.resets_to_zero else potential - self.threshold
            membrane = torch.where(fires, reset, potential)
            spikes.append(fires)
        return torch.stack(spikes).to(torch.get_default_dtype())


class IntegerStem(nn.Module):
    """A stem whose current is counted in units and rounded.

    Args:
        stem: the folded stem; 1 / scale goes into its weights.
        scale: what one unit stands for.
    """

    def __init__(self, stem: Stem, scale: float) -> None:
        super().__init__()
        conv = stem.embed.conv
        conv.weight = constant(conv.weight / scale)
        if conv.bias is not None:
            conv.bias = constant(conv.bias / scale)
        self.stem = stem

    def forward(self, images: Tensor) -> Tensor:
        """Embedding `[T, B, H, W, C]` in int32."""
        return torch.round(self.stem(images)).to(torch.int32)


@torch.no_grad()
def to_integers(network: nn.Module) -> dict[str, float]:
    """Turn an event-driven network into whole numbers, in place.

    Args:
        network: a `SpikingMLP` whose maps all run on events.

    Returns:
        The scale of each group of maps that add into one membrane, by path; that of the logits is `head`.

    Raises:
        InputError: the network is no `SpikingMLP`, or has neurons that have no form in whole numbers.
    """
    if type(network) is not SpikingMLP:
        raise InputError(f"weights='int8' is made for a SpikingMLP, not for {type(network).__name__}")
    refuse_unknown(network, _KNOWN, "weights='int8'", "snnmlp_edu/mfi/events/integer.py")
    scales = {}
    for group, paths in _groups(network).items():
        scale = scales[group] = _scale([network.get_submodule(path) for path in paths])
        for path in paths:
            network.set_submodule(path, _in_units(path, network.get_submodule(path), scale))
    match network.head:
        case FoldedFigureHead() as head:
            head.shift = constant(_whole(head.shift, scales["head.neuron"]))
        case FoldedHead() as head:
            head.bias = constant(_whole(head.bias, scales["head"]))
        case other:
            raise _no_whole_numbers("head", other)
    return scales


def _no_whole_numbers(path: str, module: nn.Module) -> InputError:
    return InputError(
        f"{path} is an {type(module).__name__}, which has no form in whole numbers; extend"
        " snnmlp_edu/mfi/events/integer.py"
    )


def _groups(network: SpikingMLP) -> dict[str, list[str]]:
    """Paths of the layers that share a scale, by the name of their group."""
    sole: dict[str, str] = {"head.affine": "head.neuron", "head.neuron": "head.neuron"}
    for path, module in network.named_modules():
        if isinstance(module, PositionMixing):
            sole[f"{path}.synapse"] = path
        if isinstance(module, ChannelMixing):
            sole[f"{path}.up"] = f"{path}.up"
    groups: dict[str, list[str]] = {}
    for path, module in network.named_modules():
        if isinstance(module, EventMap | LIF | SelectedAffine | Stem):
            own = [group for start, group in sole.items() if f"{path}.".startswith(f"{start}.")]
            stage = ".".join(path.split(".")[:2]) if path.startswith("stages.") else "head"
            groups.setdefault(own[0] if own else stage, []).append(path)
    return groups


def _scale(layers: Iterable[nn.Module]) -> float:
    """A scale fine enough for the map with the smallest weights, and for what is rounded besides."""
    largest, threshold = [], 1.0
    for layer in layers:
        if isinstance(layer, EventMap):
            assert isinstance(layer.table, RowTable)
            largest.append(_weights(layer.table.rows, layer.steps).abs().max().item())
        elif isinstance(layer, LIF):
            threshold = layer.config.threshold
    # Where no weights are (the constants of a head with a neuron), 12 bits below the threshold.
    return min(
        (weight / (LARGEST * 2**FRACTION_BITS) for weight in largest if weight > 0), default=threshold / 2**12
    )


def _in_units(path: str, layer: nn.Module, scale: float) -> nn.Module:
    """A layer in whole numbers of a scale; an event-driven map keeps its class and changes its table."""
    match layer:
        case EventMap():
            assert isinstance(layer.table, RowTable)
            layer.table = IntegerTable(layer.table.rows, layer.steps, scale).eval()
            return layer
        case LIF() if type(layer) is LIF:
            return IntegerLIF(layer.config, scale).eval()
        case SelectedAffine():
            layer.with_spike = constant(_whole(layer.with_spike, scale))
            layer.without_spike = constant(_whole(layer.without_spike, scale))
            return layer
        case Stem():
            return IntegerStem(layer, scale).eval()
        case _:
            raise _no_whole_numbers(path, layer)
