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
            mean, error = _gradients(model, seen, images, units)
        finally:
            hook.remove()
    return Fields(path, units, mean, error)


class _Reached(Exception):
    """The layer has run."""


def _run(model: nn.Module, images: Tensor) -> None:
    """Run a network as far as the layer whose hook stops it."""
    with contextlib.suppress(_Reached):
        model(images)


def _gradients(model: nn.Module, seen: list[Tensor], images: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error over the images of the gradients of some units, `[U, C, H, W]` each."""
    pixels = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        _run(model, pixels)
        rows, columns, channels = units.unbind(1)
        # Over time and over images, which do not see each other: one backward pass for each unit.
        responses = seen[0].sum((0, 1))[rows, columns, channels]
    found = []
    for response in responses:
        (each,) = torch.autograd.grad(response, pixels, retain_graph=True)  # [B, C, H, W]
        each = each.cpu().double()
        spread = each.var(0, correction=1) if len(images) > 1 else torch.zeros_like(each[0])
        found.append((each.mean(0), (spread / len(images)).sqrt()))
    mean, error = (torch.stack(parts) for parts in zip(*found, strict=True))
    return mean, error
