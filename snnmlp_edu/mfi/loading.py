"""A network to examine, from what a person names: trained weights where there are any, else a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint, list_pretrained, load_checkpoint
from ..data import CLASS_NAMES, load_embedded
from ..errors import InputError
from ..fields import nearest
from ..registry import create_model, list_models
from .calibration import calibrate


@dataclass(frozen=True)
class Loaded:
    """A network and images to run it on.

    Args:
        model: the network, not folded, in evaluation mode; every layer of neurons can fire.
        images: a batch `[B, channels, H, W]`.
        origin: where both come from, in words.
        class_names: what each logit stands for, where that is known.
    """

    model: nn.Module
    images: Tensor
    origin: str
    class_names: tuple[str, ...] = ()


def load_or_calibrate(source: str, batch: int = 2, /, **overrides: Any) -> Loaded:
    """A checkpoint as it was trained, or a preset that calibration makes fire.

    A name that is both, such as `mlp_spe_nano`, means the shipped checkpoint, unless the overrides change
    its weights. The images are the first of the embedded test images for a checkpoint that was trained on
    their classes, and uniform random pixels for any other network. Weights, constants and pixels that are
    drawn come from the seed 0.

    Args:
        source: a preset's name, a shipped checkpoint's name, or a checkpoint's path.
        batch: number of images.
        overrides: fields of `NetworkConfig` to change; for a checkpoint's path only those that leave every
            weight its shape.

    Raises:
        InputError: the name or an override is unknown, or the checkpoint cannot be read.

    >>> load_or_calibrate("mlp_spe_nano").origin
    'trained weights mlp_spe_nano, on embedded test images'
    """
    presets = list_models()
    if source in list_pretrained() or Path(source).exists():
        try:
            return _trained(load_checkpoint(source, **overrides), source, batch, overrides)
        except InputError:
            if source not in presets or not overrides:
                raise
            load_checkpoint(source)  # a damaged file must not fall back to a preset
    if source not in presets:
        known = [*presets, *list_pretrained()]
        raise InputError(
            f"{source} is neither a preset nor a file{nearest(source, known)} (`snnmlp models` lists presets)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: Any = create_model(source, **overrides)
        images = _random_images(model, batch)
    origin = f"preset {source}, not trained: calibrated to fire, with random constants, on random images"
    return Loaded(calibrate(model, images), images, origin)


def _trained(checkpoint: Checkpoint, source: str, batch: int, overrides: Mapping[str, Any]) -> Loaded:
    changes = ", ".join(f"{name}={value}" for name, value in overrides.items())
    origin = f"trained weights {source}{f' ({changes}: not trained so)' if changes else ''}, on"
    if checkpoint.class_names == CLASS_NAMES:
        images = checkpoint.preprocessing(load_embedded("test").images[:batch])
        return Loaded(checkpoint.model, images, f"{origin} embedded test images", checkpoint.class_names)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        images = _random_images(checkpoint.model, batch)
    return Loaded(checkpoint.model, images, f"{origin} random images", checkpoint.class_names)


def _random_images(model: Any, batch: int) -> Tensor:
    side = model.config.image_size
    return torch.rand(batch, model.config.in_channels, side, side)
