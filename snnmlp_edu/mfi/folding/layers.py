r"""The layers of a folded network: what is left of a batch norm once its constants are merged.

| layer | stands for | computes |
|---|---|---|
| `AxisLinear` with a bias | a map and its batch norm | a sum of weights, one for each spike |
| `SteppedLinear` | a map and its TEBN | the same, with weights of their own at each step |
| `AxisLIF` | a batch norm on another axis, and the neuron that it drives | a comparison, with a threshold for each entry of that axis |
| `SelectedAffine` | a batch norm of spikes | one of two constants |
| `FoldedHead`, `FoldedFigureHead` | batch norm, means over grid and steps, linear map | a sum of weights |

`fold_batch_norm` makes them. They are for inference: their constants take no gradient.
"""  # noqa: E501

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ...config import NeuronConfig
from ...errors import InputError
from ...model.layout import Axis, spread_along
from ...model.linear import AxisLinear
from ...model.neurons import LIF, LIFTrace, leaky_sum
from ...model.surrogates import spike


def constant(values: Tensor) -> nn.Parameter:
    """A parameter that takes no gradient."""
    return nn.Parameter(values.detach(), requires_grad=False)


def axis_linear(axis: Axis, weight: Tensor, bias: Tensor | None) -> AxisLinear:
    """The linear map along an axis with these weights `[out, in]` and this bias `[out]`, or none.

    >>> axis_linear("width", torch.eye(8), torch.zeros(8)).bias.shape
    torch.Size([8])
    """
    outputs, inputs = weight.shape
    with torch.device("meta"):  # draws no random weights only to replace them
        linear = AxisLinear(axis, inputs, outputs, bias is not None)
    linear.weight = constant(weight)
    if bias is not None:
        linear.bias = constant(bias)
    return linear


class SteppedLinear(nn.Module):
    r"""One linear map for each time step: what a map followed by TEBN folds to.

    .. math::
        y[t] = W[t]\, x[t] + b[t]

    Args:
        axis: the axis that the maps read and write.
        weights: `[T, out, in]`.
        biases: `[T, out]`.

    `forward(spikes, *more)` takes spikes `[T, B, H, W, C]`, along the channels also from several places,
    as `AxisLinear` does.

    Raises:
        InputError: the spikes have another number of steps.

    >>> SteppedLinear("width", torch.ones(4, 8, 8), torch.zeros(4, 8))(torch.zeros(4, 2, 8, 8, 3)).shape
    torch.Size([4, 2, 8, 8, 3])
    """

    def __init__(self, axis: Axis, weights: Tensor, biases: Tensor) -> None:
        super().__init__()
        self.axis: Axis = axis
        self.steps = nn.ModuleList(axis_linear(axis, w, b) for w, b in zip(weights, biases, strict=True))

    def forward(self, *spikes: Tensor) -> Tensor:
        """Current: each step by its own map."""
        steps, folded = len(spikes[0]), len(self.steps)
        if steps != folded:
            raise InputError(
                f"this tebn is folded into the weights of {folded} time steps and got {steps};"
                f" use time_steps={folded}, or train with time_steps={steps}"
            )
        each = (linear(*(part[t : t + 1] for part in spikes)) for t, linear in enumerate(self.steps))
        return torch.cat(list(each))


class AxisLIF(LIF):
    r"""LIF neurons driven by `a y + d` and nothing else, the scale a and shift d taken into the neuron.

    Divided by :math:`g a`, the membrane :math:`u[t] = \beta\, v[t-1] + g\, (a\, y[t] + d)` obeys

    .. math::
        \tilde u[t] = \beta\, \tilde v[t-1] + y[t] + d / a, \qquad
        s[t] = \operatorname{step}(\tilde u[t] - \tilde\theta), \qquad \tilde\theta = \theta / (g a)

    so each entry of the axis has a threshold and a bias current of its own. Where :math:`a < 0` the
    comparison turns round: the neuron fires at or below its threshold, which is negative. Where
    :math:`a = 0` nothing of y arrives, and the neuron runs on the constant current d. Both resets stay as
    they are, to 0 or by the threshold.

    Args:
        config: the neuron before folding.
        axis: the axis along which the constants differ.
        scale: a, one for each entry of the axis.
        shift: d, likewise.

    Source: arXiv 2308.08359, section 3.3, which does it for a batch norm of the membrane.

    >>> scale, shift = torch.tensor([2.0, -2.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    >>> neuron = AxisLIF(NeuronConfig(), "channel", scale, shift)
    >>> neuron(torch.tensor([1.0, -1.0, 9.0]).view(1, 1, 1, 1, 3)).flatten()
    tensor([1., 1., 1.])
    """

    threshold: Tensor
    bias: Tensor
    falling: Tensor
    driven: Tensor

    def __init__(self, config: NeuronConfig, axis: Axis, scale: Tensor, shift: Tensor) -> None:
        config = without_gain(config)
        super().__init__(config)
        self.axis: Axis = axis
        threshold, bias = config.threshold / scale, shift / scale
        # A scale so small that its threshold overflows adds as little as none.
        driven = threshold.isfinite() & bias.isfinite()
        self.register_buffer("driven", driven)
        self.register_buffer("falling", driven & (scale < 0))
        self.register_buffer("threshold", torch.where(driven, threshold, config.threshold))
        self.register_buffer("bias", torch.where(driven, bias, shift))

    def forward(self, current: Tensor) -> Tensor:
        """Spikes `[T, B, H, W, C]` for currents `[T, B, H, W, C]`."""
        return self.trace(current).spikes.to(current.dtype)

    def trace(self, current: Tensor) -> LIFTrace:
        """Spikes, and the membrane potentials that each step compared with the thresholds."""
        c = self.config
        driven, falling, threshold, bias = (
            spread_along(constants, self.axis, current)
            for constants in (self.driven, self.falling, self.threshold, self.bias)
        )
        membrane = None
        spikes, potentials = [], []
        for now in current:
            drive = torch.where(driven, now, 0) + bias
            potential = drive if membrane is None else leaky_sum(membrane, drive, c.beta)
            distance = torch.where(falling, threshold - potential, potential - threshold)
            fired = spike(distance, c.surrogate, c.slope, c.inclusive)
            reset = torch.zeros_like(potential) if c.resets_to_zero else potential - threshold
            membrane = torch.where(fired.detach().bool(), reset, potential)
            spikes.append(fired)
            potentials.append(potential)
        return LIFTrace(torch.stack(spikes), torch.stack(potentials))

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        c = self.config
        return f"axis={self.axis}, thresholds={self.threshold.numel()}, beta={c.beta}, reset={c.reset}"


def without_gain(config: NeuronConfig) -> NeuronConfig:
    """The neuron with its input gain in the threshold: the same spikes, of a membrane divided by g.

    >>> without_gain(NeuronConfig(input_gain=0.5, threshold=1.0)).threshold
    2.0
    """
    return dataclasses.replace(config, input_gain=1.0, threshold=config.threshold / config.input_gain)


class SelectedAffine(nn.Module):
    """`a x + d` of spikes, without a product: the constant `a + d` where a spike is, d where none is.

    Args:
        scale: a, one for each channel.
        shift: d, likewise.

    >>> SelectedAffine(torch.tensor([3.0]), torch.tensor([1.0]))(torch.tensor([[0.0], [1.0]])).flatten()
    tensor([1., 4.])
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.with_spike = constant(scale + shift)
        self.without_spike = constant(shift)

    def forward(self, spikes: Tensor) -> Tensor:
        """Current in the shape of the spikes, `[..., C]`."""
        return torch.where(spikes > 0, self.with_spike, self.without_spike)


class ChannelAffine(nn.Module):
    """`a x + d` of values that are no spikes, as a ReLU's: here the product has to stay.

    Args:
        scale: a, one for each channel.
        shift: d, likewise.

    >>> ChannelAffine(torch.tensor([3.0]), torch.tensor([1.0]))(torch.tensor([[0.5]]))
    tensor([[2.5000]])
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = constant(scale)
        self.shift = constant(shift)

    def forward(self, values: Tensor) -> Tensor:
        """Values `[..., C]`, scaled and shifted channel by channel."""
        return torch.addcmul(self.shift, values, self.scale)


class FoldedHead(nn.Module):
    r"""Batch norm, means over grid and steps, and linear map as one weight for each spike.

    .. math::
        \mathrm{logit}_k = \sum_{t,h,w,c} \frac{L_{kc}\, a_c}{H W T}\, s_{thwc}
        + \sum_t \frac{1}{T} \Bigl(\sum_c L_{kc}\, d_c + l_k\Bigr)

    with the head's batch norm `a s + d` and its linear map L, l. What `forward` returns for each step adds
    up to the logits.

    Args:
        weight: :math:`L_{kc}\, a_c / (H W T)`, `[classes, C]`.
        bias: the bracket divided by T, `[classes]`.
        places: `(T, H, W)` for which the weights were divided.
    """

    def __init__(self, weight: Tensor, bias: Tensor, places: tuple[int, int, int]) -> None:
        super().__init__()
        self.linear = axis_linear("channel", weight, None)
        self.bias = constant(bias)
        self.places = places

    def forward(self, spikes: Tensor) -> Tensor:
        """What each step adds to the logits, `[T, B, classes]`, for spikes `[T, B, H, W, C]`."""
        _check_places(spikes, self.places)
        return self.linear(spikes).sum(dim=(2, 3)) + self.bias

    def combine(self, steps: Tensor) -> Tensor:
        """Logits `[B, classes]` of all steps: their sum."""
        return steps.sum(dim=0)


class FoldedFigureHead(nn.Module):
    r"""The head with a neuron: a constant for each spike, summed over the grid, then fire, then weights.

    .. math::
        s'_c = \mathrm{LIF}\Bigl(\sum_{h,w} \frac{a_c}{H W}\, s_{hwc} + d_c\Bigr), \qquad
        \mathrm{logit}_k = \sum_t \Bigl(\sum_c \frac{L_{kc}}{T}\, s'_c[t] + \frac{l_k}{T}\Bigr)

    Args:
        affine: the module that makes :math:`a_c s / (H W)` of a spike.
        shift: :math:`d_c`, `[C]`.
        neuron: the neuron, folded.
        weight: :math:`L_{kc} / T`, `[classes, C]`.
        bias: :math:`l_k / T`, `[classes]`.
        places: `(T, H, W)` for which the constants were divided.
    """

    def __init__(
        self,
        affine: nn.Module,
        shift: Tensor,
        neuron: nn.Module,
        weight: Tensor,
        bias: Tensor,
        places: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.affine = affine
        self.shift = constant(shift)
        self.neuron = neuron
        self.linear = axis_linear("channel", weight, bias)
        self.places = places

    def forward(self, spikes: Tensor) -> Tensor:
        """What each step adds to the logits, `[T, B, classes]`, for spikes `[T, B, H, W, C]`."""
        _check_places(spikes, self.places)
        return self.linear(self.neuron(self.affine(spikes).sum(dim=(2, 3)) + self.shift))

    def combine(self, steps: Tensor) -> Tensor:
        """Logits `[B, classes]` of all steps: their sum."""
        return steps.sum(dim=0)


def _check_places(spikes: Tensor, places: tuple[int, int, int]) -> None:
    if (len(spikes), *spikes.shape[2:4]) != places:
        steps, height, width = places
        raise InputError(
            f"this head is folded for {steps} steps of a {height} x {width} grid and got spikes of shape"
            f" {tuple(spikes.shape)}; fold the network for the images and steps it will run on"
        )
