"""Input gradients: how a unit's membrane, or its spikes, change with every pixel of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..data.transforms import check_finite
from ..errors import InputError
from ..neurons import LIF, lif_trace
from ..recording import evaluating, uncompiled
from .fields import Fields, Position, choose_units, neuron_layer

Quantity = Literal["membrane", "spikes"]
COPIES = 512  # images in one pass; each carries the gradient of one unit


def input_gradients(
    model: nn.Module,
    path: str,
    images: Tensor,
    positions: Sequence[Position] | None = None,
    quantity: Quantity = "membrane",
) -> Fields:
    """Receptive fields of a layer's units from derivatives: the mean over images of a gradient.

    What is differentiated is the unit's membrane potential, or its spikes, summed over all steps. Through
    spikes the surrogate's derivative is taken, as in training. This gradient has no noise of its own; its
    standard error tells how much it differs from image to image.

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        path: a layer of neurons, as in `record(model, images)`.
        images: what the gradient is averaged over, `[B, C, H, W]`.
        positions: rows and columns whose units are measured, all channels of each; None takes all.
        quantity: `membrane` (before the reset) or `spikes`.

    Raises:
        InputError: the layer does not exist or has no membrane, a position lies outside it, there are no
            images, or one is not finite.
    """
    layer = neuron_layer(model, path)
    if quantity not in get_args(Quantity):
        raise InputError(f"quantity is {quantity!r}; choose one of {', '.join(get_args(Quantity))}")
    if quantity == "membrane" and not isinstance(layer, LIF):
        raise InputError(f"{path} is a layer of ReLU and has no membrane; take quantity='spikes'")
    if len(images) == 0:
        raise InputError("there are no images to average over; give at least one")
    check_finite(images)
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if quantity == "membrane" and isinstance(module, LIF):
            output = lif_trace(inputs[0], module.config).membrane
        seen[:] = [output]
        raise _Reached  # what lies behind the layer has no part in its gradient

    with evaluating(model), uncompiled(model):
        hook = layer.register_forward_hook(keep)
        try:
            with torch.no_grad():
                _run(model, images[:1])
            units = choose_units(seen[0].shape[2:], positions)
            found = [
                _gradients(model, seen, images, some) for some in units.split(max(1, COPIES // len(images)))
            ]
        finally:
            hook.remove()
    mean, error = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Fields(path, units, mean, error)


class _Reached(Exception):
    """The layer has run."""


def _run(model: nn.Module, images: Tensor) -> None:
    """Run a network as far as the layer whose hook stops it."""
    with contextlib.suppress(_Reached):
        model(images)


def _gradients(model: nn.Module, seen: list[Tensor], images: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error over the images of the gradients of some units, `[U, C, H, W]` each."""
    count = len(images)
    # Each unit gets copies of all images for itself, so that one backward pass serves many units.
    copies = images.detach().repeat(len(units), 1, 1, 1).requires_grad_()
    with torch.enable_grad():
        _run(model, copies)
        summed = seen[0].sum(0)  # over time: [U B, H, W, C]
        rows, columns, channels = units.repeat_interleave(count, dim=0).unbind(1)
        picked = summed[torch.arange(len(copies)), rows, columns, channels].sum()
        (gradient,) = torch.autograd.grad(picked, copies)
    each = gradient.cpu().double().unflatten(0, (len(units), count))  # [U, B, C, H, W]
    spread = each.var(1, correction=1) if count > 1 else torch.zeros_like(each[:, 0])
    return each.mean(1), (spread / count).sqrt()
