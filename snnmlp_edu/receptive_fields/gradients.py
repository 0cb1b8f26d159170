"""Input gradients: how a unit's membrane, or its spikes, change with every pixel of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..fields import checked
from ..inputs import check_finite
from ..model.holding import in_this_thread
from ..model.neurons import LIF, plain_steps
from ..model.recording import evaluating, uncompiled
from .fields import Fields, Position, choose_units, neuron_layer

Quantity = Literal["membrane", "spikes"]
# Gradients with respect to an image in one pass: fewer wait for Python, more leave the cache.
TOGETHER = 32


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
    checked("quantity", quantity, Quantity)
    if quantity == "membrane" and not isinstance(layer, LIF):
        raise InputError(f"{path} is a layer of ReLU and has no membrane; take quantity='spikes'")
    if len(images) == 0:
        raise InputError("there are no images to average over; give at least one")
    check_finite(images)
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if quantity == "membrane" and isinstance(module, LIF):
            output = module.trace(inputs[0]).membrane
        seen[:] = [output]
        raise _Reached  # layers after it have no part in its gradient

    with evaluating(model), uncompiled(model), plain_steps():  # gradients of many units are taken at once
        hook = layer.register_forward_hook(in_this_thread(keep))
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
        # Over time and over images, which do not see each other.
        responses = seen[0].sum((0, 1))[rows, columns, channels].split(max(1, TOGETHER // len(images)))
    means, errors = [], []
    for some in responses:
        each_alone = torch.eye(len(some)).to(some)
        (found,) = torch.autograd.grad(some, pixels, each_alone, retain_graph=True, is_grads_batched=True)
        found = found.cpu().double()  # [U, B, C, H, W]
        spread = found.var(1, correction=1) if len(images) > 1 else torch.zeros_like(found[:, 0])
        means.append(found.mean(1))
        errors.append((spread / len(images)).sqrt())
    return torch.cat(means), torch.cat(errors)
