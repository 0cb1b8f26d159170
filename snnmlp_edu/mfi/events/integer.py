r"""An event-driven network in whole numbers, from the bytes of an image to its logits.

All that adds up in one membrane is counted in one unit :math:`\sigma`, the group's *scale*. A map into it
counts in a unit finer, or coarser, by a power of two:

.. math::
    W_{qp} \approx \sigma\, 2^{-r}\, \hat W_{qp}, \qquad
    \hat x_q = \Bigl\lfloor 2^{-r} \Bigl(\hat b_q + \sum_{p:\, s_p = 1} \hat W_{qp}\Bigr) + \tfrac12 \Bigr\rfloor,
    \qquad \hat W \in [-63, 63]

so a layer adds weights of 8 bits, shifts the sum by r bits, and compares with :math:`\hat\theta`: exact,
whatever the order. The leak :math:`\beta = 2^{-m}` is a shift too, :math:`\lfloor \hat v / 2^m \rfloor`.
A pixel is a byte, so the stem adds as well: each of its 8 bits is a spike, with the weight times
:math:`2^j` of its own; mean and standard deviation of the pixels go into these weights.

The units are chosen so that, whatever spikes arrive, no sum of a map exceeds 16 bits, and no current or
membrane exceeds the `word` of its neurons: 16 bits where the threshold then is still 64 units or more, else 32.
"""  # noqa: E501

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import NeuronConfig
from ...data import Preprocessing
from ...errors import InputError
from ...model.layout import spread_along
from ...model.mixing import (
    ChannelMixing,
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
from .layers import EventConv2d, EventLinear, EventMap
from .tables import Events, RowTable, bounds_of

# What can be counted in whole numbers, each by its exact class; only in the stem may a map stay dense.
_KNOWN = (
    CONTAINERS
    | WIRINGS
    | FOLDED_HEADS
    | NEURONS
    | {SpikingPatchEncoding, EventLinear, EventConv2d, RowTable, SelectedAffine, nn.Conv2d}
)

LARGEST = 63  # two such weights add up in one byte
SHORT = 2**15 - 1
FEWEST_UNITS, MOST_UNITS = 64, 4096  # of a threshold: the fewest in 16 bits, and the most
MOST_BITS = 8  # of a shift, either way
PIXEL_BITS = 8
Size = TypeVar("Size", int, float)


class _TooFineError(Exception):
    """In this unit something exceeds its bits."""


class IntegerTable(nn.Module):
    """Weight rows of 8 bits, whose sum is shifted.

    Args:
        rows: `[rows, out]` as in `RowTable`, real; the first of each step is that step's bias.
        steps: number of steps with rows of their own.
        unit: what one unit of the current stands for.
        most_bits: the largest shift.

    The buffers are `weights`, `[steps * (1 + in), out]`, whose row 0 is 0 in each step; and `before`,
    `[steps, out]`, which is added to a sum before its shift.
    """

    weights: Tensor
    before: Tensor

    def __init__(self, rows: Tensor, steps: int, unit: float, most_bits: int = MOST_BITS) -> None:
        super().__init__()
        real = rows.unflatten(0, (steps, -1)).double()
        biases, weights = real[:, 0], real[:, 1:]
        self.bits, whole, before = _finest(weights, biases, unit, LARGEST, most_bits)
        self.magnitude = int(shifted(torch.stack(_ends(whole, before)), self.bits).abs().max())
        self.register_buffer("weights", functional.pad(whole, (0, 0, 1, 0)).flatten(0, 1).to(torch.int8))
        self.register_buffer("before", before.to(torch.int32))

    def forward(self, events: Events) -> Tensor:
        """Currents `[bags, out]` in int32."""
        sums = add_rows(events, self.weights)
        steps, out = self.before.shape
        by_step = sums.view(steps, events.bags // steps, out) + self.before.unsqueeze(1)
        return shifted(by_step, self.bits).view(events.bags, out)


def add_rows(events: Events, weights: Tensor) -> Tensor:
    """The sum of each bag's rows, `[bags, out]` in int32.

    PyTorch adds rows in floating point only: whole numbers below 2**24, which these are, stay exact in it.
    """
    rows, bounds = events
    sums = functional.embedding_bag(rows, weights.float(), bounds, mode="sum", include_last_offset=True)
    return sums.to(torch.int32)


def shifted(values: Tensor, bits: int) -> Tensor:
    """Whole numbers shifted to the right, or by a negative number of bits to the left."""
    return values >> bits if bits >= 0 else values << -bits


def _finest(
    weights: Tensor, biases: Tensor, unit: float, largest: int, most_bits: int
) -> tuple[int, Tensor, Tensor]:
    """The largest shift r at which weights and all their sums fit, and both in the map's own unit.

    Args:
        weights: real, `[steps, in, out]`.
        biases: real, `[steps, out]`.
        unit: of the current, after the shift.
        largest: the largest whole number that a weight may be.
        most_bits: the largest shift to try, either way.

    Raises:
        _TooFineError: they fit at none.
    """
    heaviest = float(weights.abs().max()) if weights.numel() else 0.0
    fitting = math.floor(math.log2((largest + 0.49) * unit / heaviest)) if heaviest else most_bits
    for bits in range(min(most_bits, fitting), -most_bits - 1, -1):
        scale = unit * 2.0**-bits
        whole = torch.round(weights / scale)
        before = torch.round(biases / scale) + (2**bits // 2 if bits > 0 else 0)  # rounds to the nearest
        lowest, highest = _ends(whole, before)
        if max(-float(lowest.min()), float(highest.max()), float(before.abs().max())) <= SHORT:
            return bits, whole.to(torch.int64), before.to(torch.int64)
    raise _TooFineError


def _ends(whole: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest sum, `[steps, out]`, of weights `[steps, in, out]`."""
    return whole.clamp(max=0).sum(1) + before, whole.clamp(min=0).sum(1) + before


class IntegerLIF(LIF):
    r"""LIF neurons in whole numbers; the leak is a shift that rounds down.

    .. math::
        u[t] = \lfloor v[t-1] / 2^m \rfloor + x[t], \qquad s[t] = H(u[t] - \hat\theta)

    Args:
        config: the neuron without input gain, its beta a power of two.
        unit: what one unit stands for.

    Currents are of int32, spikes floating point, each 0 or 1. `word` is how many bits hold every current and
    membrane; `to_integers` sets it.

    Raises:
        InputError: beta is neither 0 nor a power of two.

    >>> neuron = IntegerLIF(NeuronConfig(input_gain=1.0, threshold=2.0), unit=0.01)
    >>> neuron(torch.tensor([[150], [130]], dtype=torch.int32)).flatten()
    tensor([0., 1.])
    """

    word = 32

    def __init__(self, config: NeuronConfig, unit: float) -> None:
        threshold = max(1, round(config.threshold / unit))
        super().__init__(dataclasses.replace(config, threshold=threshold))
        self.threshold = threshold
        self.bits = leak_bits(config)

    def forward(self, current: Tensor) -> Tensor:
        """Spikes `[T, ...]` for currents `[T, ...]` of int32."""
        c = self.config

        def fires(potential: Tensor) -> Tensor:
            return potential >= self.threshold if c.inclusive else potential > self.threshold

        return _run(current, self.bits, fires, None if c.resets_to_zero else self.threshold)


class IntegerAxisLIF(LIF):
    """`AxisLIF` in whole numbers: each entry of an axis has a threshold and a bias current of its own.

    Args:
        neuron: the neuron, real.
        unit: what one unit stands for.

    Currents, spikes, `word` and what is raised are as in `IntegerLIF`.
    """

    threshold: Tensor
    bias: Tensor
    falling: Tensor
    driven: Tensor
    word = 32

    def __init__(self, neuron: AxisLIF, unit: float) -> None:
        super().__init__(neuron.config)
        self.axis = neuron.axis
        self.bits = leak_bits(neuron.config)
        for name in ("threshold", "bias"):
            values = getattr(neuron, name).double() / unit
            # Beyond these bounds a threshold is never reached; that a bias stays within them is checked.
            self.register_buffer(name, torch.round(values).clamp(-(2.0**30), 2.0**30).to(torch.int32))
        self.register_buffer("falling", neuron.falling.clone())
        self.register_buffer("driven", neuron.driven.clone())

    def forward(self, current: Tensor) -> Tensor:
        """Spikes `[T, B, H, W, C]` for currents of the same shape, of int32."""
        driven, falling, threshold, bias = (
            spread_along(constants, self.axis, current)
            for constants in (self.driven, self.falling, self.threshold, self.bias)
        )
        inclusive = self.config.inclusive

        def fires(potential: Tensor) -> Tensor:
            if inclusive:
                return torch.where(falling, potential <= threshold, potential >= threshold)
            return torch.where(falling, potential < threshold, potential > threshold)

        drive = torch.where(driven, current, 0) + bias
        return _run(drive, self.bits, fires, None if self.config.resets_to_zero else threshold)


def leak_bits(config: NeuronConfig) -> int | None:
    """By how many bits the leak shifts; None where no membrane stays.

    Raises:
        InputError: beta is neither 0 nor a power of two.
    """
    if config.beta and math.frexp(config.beta)[0] != 0.5:
        raise InputError(
            f"neuron.beta is {config.beta}; as a shift of whole numbers it must be 0, or a power of two"
            " such as 1, 0.5 or 0.25"
        )
    return 1 - math.frexp(config.beta)[1] if config.beta else None


def _run(
    current: Tensor, bits: int | None, fires: Callable[[Tensor], Tensor], subtracted: Tensor | int | None
) -> Tensor:
    """Spikes of neurons that start from rest; a reset subtracts something, or with None sets to 0."""
    membrane: Tensor | None = None
    spikes = []
    for now in current:
        potential = now if membrane is None or bits is None else (membrane >> bits) + now
        fired = fires(potential)
        if subtracted is None:
            membrane = potential.masked_fill(fired, 0)
        else:
            membrane = torch.where(fired, potential - subtracted, potential)
        spikes.append(fired)
    return torch.stack(spikes).to(torch.get_default_dtype())


class IntegerStem(nn.Module):
    """A stem that adds: each bit of a pixel is a spike with a weight row of its own.

    Args:
        stem: the folded stem.
        preprocessing: from stored pixels to the network's input.
        unit: what one unit of the current stands for.

    The buffer `weights` is `[pixels of a patch * 8, dim]`, pixels in the order channel, row, column, and bits
    from the lowest; `before`, `[1, dim]`, is added to a sum before its shift by `bits`. Weights may take 16
    bits here.
    """

    weights: Tensor
    before: Tensor

    def __init__(self, stem: Stem, preprocessing: Preprocessing, unit: float) -> None:
        super().__init__()
        conv = stem.embed.conv
        self.time_steps, self.patch = stem.config.time_steps, stem.config.patch_size
        self.preprocessing = preprocessing
        self.channels: int = preprocessing.stored_channels or preprocessing.in_channels
        real = conv.weight.double()  # [dim, channels, patch, patch]
        if self.channels == 1:  # a stored channel that the network sees several times
            real = real.sum(dim=1, keepdim=True)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64).expand(self.channels).view(-1, 1, 1)
        std = torch.tensor(preprocessing.std, dtype=torch.float64).expand(self.channels).view(-1, 1, 1)
        bias = 0 if conv.bias is None else conv.bias.double()
        biases = bias - (real * mean / std).sum(dim=(1, 2, 3))
        powers = 2.0 ** torch.arange(PIXEL_BITS, dtype=torch.float64)
        by_pixel = (real / (255 * std)).flatten(1).T  # [pixels, dim]
        weights = (by_pixel.unsqueeze(1) * powers.view(-1, 1)).flatten(0, 1).unsqueeze(0)
        self.bits, whole, before = _finest(weights, biases.unsqueeze(0), unit, SHORT, most_bits=15)
        self.magnitude = int(shifted(torch.stack(_ends(whole, before)), self.bits).abs().max())
        self.register_buffer("weights", whole[0].to(torch.int32))
        self.register_buffer("before", before.to(torch.int32))

    def forward(self, images: Tensor) -> Tensor:
        """Embedding `[T, B, H, W, dim]` in int32.

        Args:
            images: as stored, uint8 `[B, C, h, w]`, or preprocessed.

        Raises:
            InputError: the images fit neither.
        """
        pixels = self._pixels(images)  # [B, C, side, side]
        patches = pixels.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)  # [B, H, W, pixels of a patch]
        bits = (patches.unsqueeze(-1) >> torch.arange(PIXEL_BITS, device=images.device)) & 1
        set_bits = bits.flatten(3).flatten(0, 2)
        events = Events(set_bits.nonzero()[:, 1].to(torch.int32), bounds_of(set_bits.sum(dim=1)))
        sums = shifted(add_rows(events, self.weights) + self.before, self.bits)
        current = sums.view(*patches.shape[:3], sums.shape[1])
        return current.expand(self.time_steps, *current.shape)

    def _pixels(self, images: Tensor) -> Tensor:
        p = self.preprocessing
        if images.dtype == torch.uint8:
            if images.ndim != 4 or images.shape[1] != self.channels or max(images.shape[2:]) > p.image_size:
                side = p.side
                raise InputError(
                    f"images have shape {tuple(images.shape)}; this network takes uint8"
                    f" [B, {self.channels}, {side}, {side}]"
                )
            rows, columns = (p.image_size - size for size in images.shape[2:])
            around = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            return functional.pad(images.to(torch.int32), around)
        expected = (p.in_channels, p.image_size, p.image_size)
        if not images.is_floating_point() or images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; this network takes uint8 as"
                f" stored, or preprocessed ones [B, {', '.join(map(str, expected))}]"
            )
        mean, std = (
            torch.tensor(values, dtype=torch.float64, device=images.device).view(-1, 1, 1)
            for values in (p.mean, p.std)
        )
        values = (images[:, : self.channels].double() * std + mean) * 255
        pixels = values.round()
        if not bool(((values - pixels).abs() < 0.01).all()) or pixels.min() < 0 or pixels.max() > 255:
            raise InputError(
                "images are no preprocessed bytes, and in whole numbers a pixel is a byte: give them as"
                " stored, in uint8"
            )
        return pixels.to(torch.int32)


class _Group(NamedTuple):
    """Layers whose currents add up in the same membranes, by path."""

    name: str
    paths: list[str]


@torch.no_grad()
def to_integers(network: nn.Module, preprocessing: Preprocessing | None = None) -> dict[str, float]:
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
            " here; take stage, membrane, spike_bn or none"
        )
    refuse_unknown(network, _KNOWN, "weights='int8'", "snnmlp_edu/mfi/events/integer.py")
    leak_bits(c.neuron)
    refuse_infinite(network)
    given = preprocessing or network.preprocessing or _whole_bytes(network)
    for name in ("image_size", "in_channels"):
        if getattr(given, name) != getattr(c, name):
            raise InputError(
                f"preprocessing.{name} is {getattr(given, name)}, and that of the network {getattr(c, name)};"
                " give the preprocessing that the network was trained with"
            )
    scales = {}
    for group in _groups(network):
        scales[group.name] = _convert(network, group, given)
    return scales


def _whole_bytes(network: SpikingMLP) -> Preprocessing:
    return Preprocessing(network.config.image_size, network.config.in_channels)


def _groups(network: SpikingMLP) -> list[_Group]:
    """The layers that share a scale: position mixing and the way up alone, and else those of a stage."""
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
    return [_Group(name, paths) for name, paths in groups.items()]


def _convert(network: SpikingMLP, group: _Group, preprocessing: Preprocessing) -> float:
    """Turn a group into whole numbers, in the finest unit in which all is proved to fit; returns the unit."""
    real = {path: network.get_submodule(path) for path in group.paths}
    neurons = [layer for layer in real.values() if isinstance(layer, LIF)]
    threshold = min((layer.config.threshold for layer in neurons), default=math.inf)
    sizes = {path: _real_magnitude(layer) for path, layer in real.items()}
    largest = largest_current(network, group.name, sizes.__getitem__) if neurons else 0.0
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
            except _TooFineError:
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
    return float(torch.stack(_ends(rows[:, 1:], rows[:, 0])).abs().max())


def _convert_head(network: SpikingMLP, group: _Group, unit: float) -> None:
    match network.head:
        case FoldedFigureHead() as head if group.name == "head.neuron":
            head.shift = constant(torch.round(head.shift / unit).to(torch.int32))
        case FoldedHead() as head if group.name == "head":
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
        f"{path} is a {type(layer).__name__}, which has no form in whole numbers; extend"
        " snnmlp_edu/mfi/events/integer.py"
    )


def _prove(network: SpikingMLP, group: _Group, whole: dict[str, nn.Module], unit: float, word: int) -> None:
    """Check that no current and no membrane of a group can exceed its bits, whatever spikes arrive.

    Raises:
        _TooFineError: one could.
    """
    most = 2 ** (word - 1) - 2  # a strict comparison is one with the threshold + 1
    steps = network.config.time_steps
    largest = largest_current(network, group.name, lambda path: magnitude(whole[path]))
    if group.name == "head.neuron":
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
            raise _TooFineError


def magnitude(layer: nn.Module) -> int:
    """The largest current, in size, that a layer in whole numbers can send.

    Raises:
        _TooFineError: a constant of it exceeds 16 bits.
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
                raise _TooFineError
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
            case MixerBlock() if type(block) is MixerBlock:
                reached.append(embedding + token + channel)
            case _:
                raise _not_here(path, block)
    return max(reached)
