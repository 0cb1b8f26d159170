"""The linear map along one named axis of `[T, B, H, W, C]`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from .layout import Axis, spread_along, view_along


def mixed_precision(x: Tensor) -> bool:
    """Whether autocast is on for the device of x; the meta device has none."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


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

    def shape_of_current(self, spikes: Tensor) -> tuple[int, ...]:
        """Shape of the current for spikes of this shape; along a position axis both are as long."""
        return (*spikes.shape[:-1], self.out_features) if self.axis == "channel" else tuple(spikes.shape)

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"axis={self.axis}, {super().extra_repr()}"
