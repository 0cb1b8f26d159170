"""Pictures brought to a size, and to and from arrays of pixels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def contain(picture: Image.Image, side: int, interpolation: str = "bilinear") -> Image.Image:
    """The whole picture in the middle of a black square that its longer side just fits."""
    longer = max(picture.size)
    width, height = (max(1, round(side * length / longer)) for length in picture.size)
    return _centred(_resized(picture, width, height, interpolation), side)


def cover(picture: Image.Image, shorter: int, side: int, interpolation: str = "bilinear") -> Image.Image:
    """The middle of a picture whose shorter side was resized to `shorter`; black where it is too small.

    Args:
        picture: any picture.
        shorter: its shorter side after resizing; the longer one is rounded down.
        side: of the square that is cut out.
        interpolation: a key of `RESAMPLING`; both average where they shrink.

    >>> cover(Image.new("L", (30, 20)), 8, 6).size
    (6, 6)
    """
    least = min(picture.size)
    width, height = (shorter * length // least for length in picture.size)
    return _centred(_resized(picture, width, height, interpolation), side)


def to_pixels(picture: Image.Image) -> Tensor:
    """uint8 `[C, H, W]` of a picture in mode `L` or `RGB`."""
    array = np.asarray(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())


def to_picture(pixels: Tensor) -> Image.Image:
    """The inverse of `to_pixels`, for one or three channels."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _resized(picture: Image.Image, width: int, height: int, interpolation: str) -> Image.Image:
    same = (width, height) == picture.size
    return picture if same else picture.resize((width, height), RESAMPLING[interpolation])


def _centred(picture: Image.Image, side: int) -> Image.Image:
    left, top = (_start(length, side) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def _start(length: int, side: int) -> int:
    return round((length - side) / 2) if length > side else -((side - length) // 2)
