"""Stimuli without structure: whatever structure an average of them shows comes from the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import InputError

BATCH = 128


def white_noise(
    shape: tuple[int, int, int], count: int, *, contrast: float = 1.0, seed: int = 0
) -> Iterator[Tensor]:
    """Gaussian white noise, batch after batch: every pixel is drawn independently.

    Args:
        shape: `(channels, H, W)` of an image, as the network takes it.
        count: number of images.
        contrast: standard deviation per pixel. After the usual preprocessing, 1 is that of real images.
        seed: the same seed gives the same images.

    Yields:
        float32 `[B, channels, H, W]`.

    Raises:
        InputError: no images are asked for, or a contrast that is not above 0.

    >>> sum(len(batch) for batch in white_noise((1, 8, 8), 200))
    200
    """
    return _batches(shape, count, contrast, seed, torch.randn)


def sparse_noise(
    shape: tuple[int, int, int],
    count: int,
    *,
    density: float = 0.05,
    contrast: float = 3.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Sparse noise, batch after batch: a few bright and dark pixels on a ground of 0.

    Args:
        shape: `(channels, H, W)` of an image, as the network takes it.
        count: number of images.
        density: probability with which a pixel is lit, half of them bright and half dark.
        contrast: what is added to the ground, or taken from it, where a pixel is lit.
        seed: the same seed gives the same images.

    Yields:
        float32 `[B, channels, H, W]`.

    Raises:
        InputError: no images are asked for, a contrast that is not above 0, or a density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise InputError(f"density is {density}; it must be above 0 and at most 1, such as 0.05")

    def draw(*size: int, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(*size, generator=generator)
        return (drawn < density / 2).float() - (drawn >= 1 - density / 2).float()

    return _batches(shape, count, contrast, seed, draw)


def _batches(
    shape: tuple[int, int, int], count: int, contrast: float, seed: int, draw: Callable[..., Tensor]
) -> Iterator[Tensor]:
    if count < 1:
        raise InputError(f"count is {count}; ask for at least one image")
    if not contrast > 0:
        raise InputError(f"contrast is {contrast}; it must be above 0")
    generator = torch.Generator().manual_seed(seed)
    sizes = (min(BATCH, count - start) for start in range(0, count, BATCH))
    return (contrast * draw(size, *shape, generator=generator) for size in sizes)
