r"""Synapses: a linear map along one named axis of `[T, B, H, W, C]`, then a normalisation.

The axis that the map writes and the axis of the normalisation decide whether the two fold into one map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import ChannelNorm, NetworkConfig
from ..errors import InputError
from .firing import fire, fire_and_keep, fire_behind, joins, mixed_precision, watched
from .layout import Axis, features_along, spread_along, view_along
from .normalisation import make_norm


class AxisLinear(nn.Linear):
    r"""A linear map along one named axis, shared by all places of the other axes.

    .. math::
        y_{\dots q \dots} = \sum_p W_{qp}\, x_{\dots p \dots} + b_q

    Along the channels, spikes from several places may be given apart: their channels follow one another,
    and nothing is copied to join them.

    Args:
        axis: `channel`, `width`, `height` or `token`.
        in_features: entries along that axis that come in.
        out_features: entries along that axis that go out.
        bias: whether there is a bias b, one for each output entry.

    >>> AxisLinear("width", 8, 8)(torch.zeros(4, 2, 8, 8, 3)).shape
    torch.Size([4, 2, 8, 8, 3])
    """

    def __init__(self, axis: Axis, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.axis: Axis = axis

    def forward(self, spikes: Tensor, *more: Tensor) -> Tensor:
        """Current: the map along the axis, all other axes as they were."""
        if self.axis == "channel" and not more:
            return functional.linear(spikes, self.weight, self.bias)
        current = self.weigh(spikes, *more)
        return current if self.bias is None else current + spread_along(self.bias, self.axis, current)

    def weigh(self, spikes: Tensor, *more: Tensor) -> Tensor:
        """The map without its bias."""
        if more:
            return self._side_by_side((spikes, *more))
        if self.axis == "channel":
            return functional.linear(spikes, self.weight)
        seen = view_along(spikes, self.axis)  # [before, features, after]
        # torch.matmul would move all data to make one large product of a weight that learns.
        return torch.bmm(self.weight.expand(seen.shape[0], -1, -1), seen).view(spikes.shape)

    def _side_by_side(self, parts: tuple[Tensor, ...]) -> Tensor:
        """The map of all parts: a sum of products, one for each part's columns of the weight."""
        if self.axis != "channel":
            raise InputError(f"spikes from several places join along the channels, not along {self.axis}")
        if mixed_precision(self.weight):
            return functional.linear(
                torch.cat(parts, dim=-1), self.weight
            )  # it does not reach a sum in place
        first, *rest = (part.flatten(0, -2) for part in parts)
        weight, *weights = self.weight.split([part.shape[-1] for part in parts], dim=1)
        current = functional.linear(first, weight)
        for part, columns in zip(rest, weights, strict=True):
            current = current.addmm_(part, columns.t())
        return current.unflatten(0, parts[0].shape[:-1])

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"axis={self.axis}, {super().extra_repr()}"


class Synapse(nn.Module):
    """Linear map, then normalisation: what turns incoming spikes into current."""

    def __init__(self, linear: AxisLinear, norm: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm

    def forward(self, *spikes: Tensor) -> Tensor:
        """Current `[T, B, H, W, C']` for spikes `[T, B, H, W, C]`, from one place or from several."""
        return self.norm(self.linear(*spikes))

    def fire(self, neuron: nn.Module, *spikes: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Spikes of the neuron behind, `neuron(self(*spikes) + shortcut)`."""
        if watched(self):
            return fire_behind(self, neuron, spikes, shortcut)[0]
        return fire(neuron, self.norm, self.linear.axis, *self._weighed(neuron, spikes), shortcut)

    def fire_and_keep(self, neuron: nn.Module, *spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes of the neuron behind, and the current `self(*spikes) + shortcut` that they come from."""
        if watched(self):
            return fire_behind(self, neuron, spikes, shortcut)
        return fire_and_keep(neuron, self.norm, self.linear.axis, *self._weighed(neuron, spikes), shortcut)

    def _weighed(self, neuron: nn.Module, spikes: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        """What the map makes of spikes, and apart from it a bias that the scan of the neuron can take."""
        linear = self.linear
        plain = type(linear) is AxisLinear and linear.bias is not None and not watched(linear)
        if plain and joins(neuron, self.norm, linear.axis, spikes[0]):
            return linear.weigh(*spikes), linear.bias
        return linear(*spikes), None


def make_synapse(
    config: NetworkConfig,
    norm: ChannelNorm,
    axis: Axis,
    in_features: int,
    shape: tuple[int, int, int],
    *,
    bias: bool = True,
    currents_summed: int = 1,
) -> Synapse:
    """Linear map along one axis to a current of shape `(H, W, C)`, and its normalisation.

    Args:
        config: the network; its time steps and threshold matter to `tebn` and `tdbn`.
        norm: kind of normalisation; `none` gives the map a bias.
        axis: the axis that the map reads and writes.
        in_features: entries along that axis that come in.
        shape: `(H, W, C)` of the current that goes out.
        bias: whether the map has a bias.
        currents_summed: currents that add up at the neuron behind it.
    """
    return Synapse(
        AxisLinear(axis, in_features, features_along(axis, shape), bias or norm == "none"),
        make_norm(
            norm,
            axis,
            shape,
            time_steps=config.time_steps,
            threshold=config.neuron.threshold,
            currents_summed=currents_summed,
        ),
    )
