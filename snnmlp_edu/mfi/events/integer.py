r"""The layers of an event-driven network in whole numbers, from the bytes of an image to its logits.

All that adds up in one membrane is counted in one unit, :math:`1 / \lambda`. A map into it counts in a unit
finer, or coarser, by a power of two:

.. math::
    \hat W_{qp} = \operatorname{round}(2^r \lambda W_{qp}) \in [-63, 63], \qquad
    \hat x_q = \Bigl\lfloor 2^{-r}\Bigl(\hat b_q + \sum_{p: s_p = 1} \hat W_{qp}\Bigr) + \tfrac12\Bigr\rfloor

so a layer adds weights of 8 bits, shifts the sum by r bits, and compares with :math:`\hat\theta`: exact,
whatever the order. The leak :math:`\beta = 2^{-n}` is a shift too, :math:`\lfloor \hat v / 2^n \rfloor`.
A pixel is a byte, so the stem adds as well: each of its 8 bits is a spike, with the weight times
:math:`2^j` of its own; mean and standard deviation of the pixels go into these weights.
`quantisation` chooses the units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import NeuronConfig
from ...data import Preprocessing
from ...errors import InputError
from ...model.layout import spread_along
from ...model.neurons import LIF
from ...model.patches import Stem
from ..folding.layers import AxisLIF
from .tables import Events, bounds_of

LARGEST = 63  # two such weights add up in one byte
SHORT = 2**15 - 1
MOST_BITS = 8  # of a shift, either way
PIXEL_BITS = 8


class TooFineError(Exception):
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
        self.magnitude = int(shifted(torch.stack(ends(whole, before)), self.bits).abs().max())
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
        TooFineError: they fit at none.
    """
    heaviest = float(weights.abs().max()) if weights.numel() else 0.0
    fitting = math.floor(math.log2((largest + 0.49) * unit / heaviest)) if heaviest else most_bits
    for bits in range(min(most_bits, fitting), -most_bits - 1, -1):
        scale = unit * 2.0**-bits
        whole = torch.round(weights / scale)
        before = torch.round(biases / scale) + (2**bits // 2 if bits > 0 else 0)  # rounds to the nearest
        lowest, highest = ends(whole, before)
        if max(-float(lowest.min()), float(highest.max()), float(before.abs().max())) <= SHORT:
            return bits, whole.to(torch.int64), before.to(torch.int64)
    raise TooFineError


def ends(whole: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest sum, `[steps, out]`, of weights `[steps, in, out]`."""
    return whole.clamp(max=0).sum(1) + before, whole.clamp(min=0).sum(1) + before


class IntegerLIF(LIF):
    r"""LIF neurons in whole numbers; the leak is a shift that rounds down.

    .. math::
        u[t] = \lfloor v[t-1] / 2^n \rfloor + x[t], \qquad s[t] = \operatorname{step}(u[t] - \hat\theta)

    Args:
        config: the neuron without input gain, its beta a power of two.
        unit: what one unit stands for.

    Currents are of int32, spikes floating point, each 0 or 1. `word` is how many bits hold every current and
    membrane; `quantise` sets it.

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
        self.magnitude = int(shifted(torch.stack(ends(whole, before)), self.bits).abs().max())
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
