"""Pictures brought to a size, and to and from arrays of pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LONGEST = 8  # times its shorter side: of a picture longer than that, only the middle is resized
REACH = 3  # pixels, more than bicubic interpolation looks at on either side
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def contain(picture: Image.Image, side: int, interpolation: str = "bilinear") -> Image.Image:
    """The whole picture in the middle of a black square that its longer side just fits."""
    longer = max(picture.size)
    width, height = (max(1, round(side * length / longer)) for length in picture.size)
    return _centred(_resized(picture, width, height, interpolation), side)


def cover(picture: Image.Image, shorter: int, side: int, interpolation: str = "bilinear") -> Image.Image:
    """The middle of a picture whose shorter side was resized to `shorter`; black where it is too small.

    A picture of any shape takes little memory: of a very long one, only what is kept is resized.

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
    if max(width, height) > LONGEST * max(shorter, side):
        return _centred(_middle(picture, (width, height), side, interpolation), side)
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


class _Kept(NamedTuple):
    """What is kept along one axis of a resized picture.

    Args:
        length: pixels that are kept.
        first, last: where they begin and end among the pixels before resizing.
        low, high: the pixels before resizing that they depend on.
    """

    length: int
    first: float
    last: float
    low: int
    high: int


def _kept(before: int, after: int, side: int) -> _Kept:
    start, length = max(0, _start(after, side)), min(after, side)
    scale = before / after
    first, last = start * scale, min((start + length) * scale, before)
    reach = REACH * max(1, scale)
    return _Kept(length, first, last, max(0, math.floor(first - reach)), min(before, math.ceil(last + reach)))


def _middle(picture: Image.Image, whole: tuple[int, int], side: int, interpolation: str) -> Image.Image:
    """What is left of a picture that was resized to `whole` and cut to `side`; only that is computed."""
    x, y = (_kept(before, after, side) for before, after in zip(picture.size, whole, strict=True))
    part = picture.crop((x.low, y.low, x.high, y.high))
    for size, box in (  # first along the rows, as a whole picture is resized
        ((x.length, part.height), (x.first - x.low, 0, x.last - x.low, part.height)),
        ((x.length, y.length), (0, y.first - y.low, x.length, y.last - y.low)),
    ):
        part = part.resize(size, RESAMPLING[interpolation], box=box)
    return part


def _centred(picture: Image.Image, side: int) -> Image.Image:
    left, top = (_start(length, side) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def _start(length: int, side: int) -> int:
    return round((length - side) / 2) if length > side else -((side - length) // 2)
