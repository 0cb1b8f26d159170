"""Receptive fields as they were measured, and which units they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..fields import nearest
from ..model.neurons import LIF

Position = tuple[int, int]


@dataclass(frozen=True)
class Fields:
    """One receptive field for each unit of a layer.

    Args:
        path: the layer.
        units: row, column and channel of each unit, int64 `[U, 3]`.
        maps: the fields, fp64 `[U, C, H, W]`, as large as the images; that of a silent unit is zero.
        standard_error: of every entry of the maps, in the same shape.
        spikes: how often each unit fired, int64 `[U]`; None where no spikes were counted.
    """

    path: str
    units: Tensor
    maps: Tensor
    standard_error: Tensor
    spikes: Tensor | None = None

    @property
    def silent(self) -> Tensor:
        """Which units never fired, bool `[U]`."""
        if self.spikes is None:
            return torch.zeros(len(self.units), dtype=torch.bool)
        return self.spikes == 0

    @property
    def noise(self) -> Tensor:
        """What part of each map's sum of squares its standard errors account for, `[U]`; 1 where it is zero.

        Near 0 the map is well measured; near 1 there is nothing to see in it but noise.
        """
        energy = self.maps.square().flatten(1).sum(1)
        expected = self.standard_error.square().flatten(1).sum(1)
        return torch.where(energy > 0, (expected / energy.clamp_min(1e-300)).clamp_max(1), 1.0)


def centre(grid: tuple[int, int], side: int = 2) -> list[Position]:
    """The `side x side` positions in the middle of a grid, row by row.

    >>> centre((8, 8))
    [(3, 3), (3, 4), (4, 3), (4, 4)]
    """
    if not 1 <= side <= min(grid):
        raise InputError(f"side is {side} and the grid {grid[0]} x {grid[1]}; choose a side within it")
    top, left = (grid[0] - side) // 2, (grid[1] - side) // 2
    return [(top + row, left + column) for row in range(side) for column in range(side)]


def neuron_layer(model: nn.Module, path: str) -> nn.Module:
    """The layer of neurons at a path.

    Raises:
        InputError: there is none; the nearest path is suggested.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LIF | nn.ReLU)}
    if path not in layers:
        what = "is no layer of neurons" if path in dict(model.named_modules()) else "does not exist"
        known = ", ".join(layers) or "none"
        raise InputError(f"{path!r} {what} in this network{nearest(path, layers)} (its neurons: {known})")
    return layers[path]


def choose_units(shape: Sequence[int], positions: Sequence[Position] | None) -> Tensor:
    """Row, column and channel of all units at some positions of a layer `(H, W, C)`, int64 `[U, 3]`.

    Args:
        shape: `(H, W, C)`.
        positions: rows and columns; None takes all.

    Raises:
        InputError: the layer has no grid, there are no positions, or one lies outside.
    """
    if len(shape) != 3:
        raise InputError(
            "the head's neurons have no place on a grid and so no position; choose a layer of a stage"
        )
    height, width, channels = shape
    if positions is None:
        positions = [(row, column) for row in range(height) for column in range(width)]
    if not positions:
        raise InputError("there are no positions to look at; give (row, column) pairs, or None for all")
    for row, column in positions:
        if not (0 <= row < height and 0 <= column < width):
            raise InputError(f"position {(row, column)} lies outside the layer's {height} x {width} grid")
    places = torch.tensor(positions).repeat_interleave(channels, dim=0)
    channel = torch.arange(channels).repeat(len(positions)).unsqueeze(1)
    return torch.cat([places, channel], dim=1)
