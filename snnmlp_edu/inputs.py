"""Checks of the arguments of functions that run a network: once at the entry, not in every forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError


def check_tensor(name: str, value: Any) -> None:
    """Raise for anything but a tensor, such as a NumPy array.

    Raises:
        InputError: names the argument and the type.
    """
    if not isinstance(value, Tensor):
        raise InputError(f"{name} is a {type(value).__name__}; give a tensor, as torch.as_tensor makes it")


def check_finite(images: Tensor) -> None:
    """Raise for images with NaN or infinite values.

    Raises:
        InputError: names the first such image.
    """
    if images.is_floating_point():
        bad = ~torch.isfinite(images).flatten(1).all(1)
        if bad.any():
            first = int(bad.nonzero()[0])
            raise InputError(
                f"{int(bad.sum())} of {len(images)} images have NaN or infinite values, the first is image"
                f" {first}; remove or repair them"
            )


def check_network_input(images: Tensor, model: nn.Module) -> None:
    """Raise for input that a network does not take; the network itself checks the shape.

    Args:
        images: to be checked.
        model: what will be called with them.

    Raises:
        InputError: the images are no tensor, none, not in floating point, of another precision than the
            weights, NaN or infinite.
    """
    check_tensor("images", images)
    if images.numel() == 0:
        raise InputError(f"images have shape {tuple(images.shape)}, which holds none; give at least one")
    if not images.is_floating_point():
        raise InputError(
            f"images have type {images.dtype}; give floating point, as a checkpoint's preprocessing makes it"
        )
    weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), images.dtype)
    if images.dtype != weights and not torch.is_autocast_enabled(images.device.type):
        raise InputError(
            f"images have type {images.dtype} and the weights {weights}; convert them with"
            f" images.to({weights})"
        )
    if not images.is_meta and not images.isfinite().all():
        raise InputError(
            f"images of shape {tuple(images.shape)} have NaN or infinite values; remove or repair them"
        )


def check_pixels(images: Tensor) -> None:
    """Raise for anything but stored images `[N, C, H, W]`: uint8, or floating point in 0 to 1.

    Raises:
        InputError: the images are of another shape or type, NaN or infinite, or leave that range.

    >>> check_pixels(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    """
    check_tensor("images", images)
    if images.ndim != 4:
        raise InputError(f"images have shape {tuple(images.shape)}; give [N, C, height, width]")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise InputError(f"images have type {images.dtype}; give uint8, or floats from 0 to 1")
    check_finite(images)
    if images.numel() and (images.min() < 0 or images.max() > 1):
        raise InputError(
            f"images have values from {images.min().item():g} to {images.max().item():g}; give uint8, or"
            " floats from 0 to 1, as a division by 255 makes them"
        )


def check_labels(labels: Tensor, images: int, classes: int | None = None) -> None:
    """Raise for labels that are not one whole number for each image.

    Args:
        labels: to be checked.
        images: how many there are.
        classes: labels are 0 to `classes - 1`; None leaves the upper end open.

    Raises:
        InputError: the labels are of another type or shape, or name a class that does not exist.

    >>> check_labels(torch.tensor([0, 9]), images=2, classes=10)
    """
    check_tensor("labels", labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels have type {labels.dtype}; give whole numbers, as int64")
    if labels.ndim != 1:
        raise InputError(f"labels have shape {tuple(labels.shape)}; give one number for each image, [N]")
    if len(labels) != images or images == 0:
        raise InputError(f"there are {images} images and {len(labels)} labels; give as many of each")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (classes is not None and highest >= classes):
        bounds = "at least 0" if classes is None else f"0 to {classes - 1}"
        raise InputError(f"labels reach from {lowest} to {highest}; they must be {bounds}")
