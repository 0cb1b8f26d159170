r"""Weights of a trained network for a network of other classes, image size or number of steps.

Axial mixing is tied to the grid: its map is n x n for lines of n positions. On another grid the map is
read as samples of a smooth kernel, and resampled. With the matrix R that interpolates n values
linearly to n' values (averaging where n' < n, so that nothing is skipped) and the diagonal matrix D of
its column sums:

.. math::
    W' = R\, W\, D^{-1} R^\top, \qquad b' = R\, b

On the output side, values are interpolated. On the input side, each weight is *shared out* among the new
positions that replace the old one: the shares sum to the weight, so that every row keeps
its sum, and twice as many inputs do not mean twice the current. Nothing has to be scaled afterwards, and
a row whose sum is near 0 is not blown up. The statistics of the batch norm after it fit because the current
does; they, its scale and its shift are interpolated like the bias. A map over the whole grid is treated
in the same way along both of its directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from .config import NetworkConfig
from .errors import InputError
from .model.linear import AxisLinear
from .model.network import SpikingNetwork
from .model.normalisation import BatchNorm, LayerNorm

FREE = ("num_classes", "image_size", "time_steps", "neuron")
HEAD = "head.linear."


@dataclass(frozen=True)
class Transfer:
    """What a network starts with, and where each of its tensors comes from.

    Args:
        weights: all tensors of the target, ready for `load_state_dict`.
        kept: names of those taken over as they are.
        interpolated: names of those interpolated to another grid.
        new: names of those that stay as the target had them.
        grids: side of each stage's grid in the source and in the target.
    """

    weights: Mapping[str, Tensor]
    kept: tuple[str, ...]
    interpolated: tuple[str, ...]
    new: tuple[str, ...]
    grids: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        parts = [f"{len(self.kept)} tensors kept"]
        if self.interpolated:
            changed = ", ".join(f"{old} to {new}" for old, new in self.grids if old != new)
            parts.append(f"{len(self.interpolated)} interpolated (lines of {changed} positions)")
        parts.append(f"{len(self.new)} new ({', '.join(self.new)})" if self.new else "none new")
        return ", ".join(parts)

    def shuffled(self, seed: int) -> Transfer:
        """The same with the numbers of every tensor that was taken over in another order.

        A control: what a start owes to the scale of trained weights stays, what it owes to their
        arrangement is lost. Tensors that are new stay as they are.

        Args:
            seed: of the order.
        """
        generator = torch.Generator().manual_seed(seed)
        taken = {name: shuffle(self.weights[name], generator) for name in (*self.kept, *self.interpolated)}
        return replace(self, weights={**self.weights, **taken})


def shuffle(values: Tensor, generator: torch.Generator) -> Tensor:
    """The same numbers in another order, in a tensor of the same shape."""
    order = torch.randperm(values.numel(), generator=generator).to(values.device)
    return values.flatten()[order].view(values.shape)


def transfer_weights(source: SpikingNetwork, target: SpikingNetwork, keep_head: bool = True) -> Transfer:
    """The weights of one network, made to fit another; neither network is changed.

    Args:
        source: the trained network.
        target: the network to come; it may differ in `num_classes`, `image_size`, `time_steps` (but for
            `tebn`) and in the neuron.
        keep_head: take over the linear map to the classes if its shape fits; False initialises it, for
            classes that are others though as many.

    Returns:
        All tensors of the target, and what was kept, interpolated and new.

    Raises:
        InputError: the networks are of different kinds, differ in another field, or in time steps where
            `tebn` learned a scale for each; names the field and both values. Also where a map that is tied
            to the image size is no map along a line, as in `spiking_vgg16`.

    >>> from snnmlp_edu.registry import create_model
    >>> source = create_model("mlp_spe_nano")
    >>> transfer = transfer_weights(source, create_model("mlp_spe_nano", num_classes=7))
    >>> str(transfer)
    '201 tensors kept, 2 new (head.linear.weight, head.linear.bias)'
    """
    if type(source) is not type(target):
        kinds = type(source).__name__, type(target).__name__
        raise InputError(
            f"the checkpoint's network is a {kinds[0]} and the new one a {kinds[1]}; take one kind"
        )
    _check(source.config, target.config)
    old, weights = source.state_dict(), dict(target.state_dict())
    positions = _position_axes(target)
    grids = tuple(
        (before, after)
        for (before, _), (after, _) in zip(source.config.grids, target.config.grids, strict=True)
    )
    same_classes = source.config.num_classes == target.config.num_classes
    kept, interpolated, new = [], [], []
    for name, wanted in weights.items():
        if name.startswith(HEAD) and not (keep_head and same_classes):
            new.append(name)
        elif old[name].shape == wanted.shape:
            kept.append(name)
            weights[name] = old[name].to(wanted).clone()
        else:
            interpolated.append(name)
            if name not in positions:
                raise InputError(
                    f"{name} has the shape {tuple(old[name].shape)} and {tuple(wanted.shape)} now,"
                    f" and it maps no line of positions: keep image_size={source.config.image_size}"
                )
            axis, is_map = positions[name]
            sides = grids[int(name.split(".")[1])]  # stages.<index>....
            weights[name] = _resampled(old[name], sides, axis == "token", is_map).to(wanted)
    return Transfer(weights, tuple(kept), tuple(interpolated), tuple(new), grids)


def _check(source: NetworkConfig, target: NetworkConfig) -> None:
    for field in fields(NetworkConfig):
        before, after = getattr(source, field.name), getattr(target, field.name)
        if field.name not in FREE and before != after:
            raise InputError(
                f"the checkpoint's network has {field.name}={_text(before)} and the new one"
                f" {field.name}={_text(after)}: its weights do not fit; set {field.name}={_text(before)}"
            )
    tied = "tebn" in (source.channel_norm, source.token_norm)
    if tied and source.time_steps != target.time_steps:
        raise InputError(
            f"the checkpoint's network has time_steps={source.time_steps} and the new one"
            f" time_steps={target.time_steps}: its norm tebn learned a scale for each step; set"
            f" time_steps={source.time_steps}"
        )


def _text(value: object) -> str:
    """A value as written on the command line."""
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


def _position_axes(model: SpikingNetwork) -> dict[str, tuple[str, bool]]:
    """For each tensor that belongs to positions: their axis, and whether it maps positions to positions."""
    axes: dict[str, tuple[str, bool]] = {}
    for path, module in model.named_modules():
        if isinstance(module, AxisLinear | BatchNorm | LayerNorm) and module.axis != "channel":
            for name in module.state_dict():
                is_map = isinstance(module, AxisLinear) and name == "weight"
                axes[f"{path}.{name}"] = (module.axis, is_map)
    return axes


def _resampled(values: Tensor, sides: tuple[int, int], grid: bool, is_map: bool) -> Tensor:
    """A map between positions `[n, n]`, or values of positions `[n, ...]`, on other positions."""
    before, after = sides
    matrix = _resampling(before, after)
    if grid:  # positions are numbered row by row, so that the two directions make a Kronecker product
        matrix = torch.kron(matrix, matrix)
    outputs = matrix @ values.double().cpu()
    return outputs @ (matrix / matrix.sum(0)).T if is_map else outputs


def _resampling(before: int, after: int) -> Tensor:
    """The matrix `[after, before]` of linear interpolation between cells of a line; its rows sum to 1.

    >>> _resampling(2, 4)
    tensor([[1.0000, 0.0000],
            [0.7500, 0.2500],
            [0.2500, 0.7500],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    unit = torch.eye(before, dtype=torch.float64)[None, None]
    return functional.interpolate(
        unit, size=(after, before), mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
