"""How far a value reaches: the fan-out of linear maps and convolutions, exact at the borders."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Reached(NamedTuple):
    """What some values stand for at a map, in all images and steps together.

    Args:
        dense: operations if every value counted.
        spikes: values other than 0.
        events: operations for these alone.
    """

    dense: int
    spikes: int
    events: int


def reached(layer: nn.Module, values: Tensor) -> Reached:
    """Operations of a map for the values that arrive: for each, as many as outputs depend on it.

    Args:
        layer: a convolution, or a linear map with `out_features`.
        values: `[N, C, H, W]` for a convolution, else of any shape.

    >>> reached(nn.Conv2d(1, 4, 3, padding=1), torch.ones(1, 1, 2, 2))
    Reached(dense=64, spikes=4, events=64)
    >>> reached(nn.Linear(3, 5), torch.tensor([0.0, 1.0, 1.0]))
    Reached(dense=15, spikes=2, events=10)
    """
    if isinstance(layer, nn.Conv2d):
        down, right = (windows(values.shape[2 + axis], layer, axis) for axis in (0, 1))
        fan_out = torch.outer(down, right) * (layer.out_channels // layer.groups)  # [H, W]
        spikes = torch.count_nonzero(values, dim=(0, 1)).cpu()
        dense = values.shape[:2].numel() * int(fan_out.sum())
        return Reached(dense, int(spikes.sum()), int((spikes * fan_out).sum()))
    out_features = layer.out_features
    assert isinstance(out_features, int)
    arrived = int(torch.count_nonzero(values))
    return Reached(values.numel() * out_features, arrived, arrived * out_features)


def windows(size: int, layer: nn.Conv2d, axis: int) -> Tensor:
    """For each position along one axis, how many windows of a convolution cover it: integers `[size]`.

    >>> windows(5, nn.Conv2d(1, 1, 3, stride=2, padding=1), axis=0).tolist()
    [1, 2, 1, 2, 1]
    """
    kernel, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    assert not isinstance(layer.padding, str)
    padding = layer.padding[axis]
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    first = torch.arange(outputs).unsqueeze(1) * stride - padding  # [outputs, 1]
    covered = first + torch.arange(kernel) * dilation  # [outputs, kernel]
    return torch.bincount(covered[(covered >= 0) & (covered < size)], minlength=size)
