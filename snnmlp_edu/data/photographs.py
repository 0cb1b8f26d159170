"""Patches of natural photographs, turned by 0, 90, 180 or 270 degrees: which way up were they?

Garments on black are no natural images. Which way a patch of a photograph is turned can be told from what
photographs have in common, light from above and upright things, so it needs no labels by hand.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..fields import checked
from .datasets import LabelledImages, Split
from .files import read_verified

ROTATION_NAMES = ("upright", "90 degrees", "180 degrees", "270 degrees")
# Whole photographs are kept apart: a test patch comes from a picture of which nothing was trained on. The
# two were set aside for what they show, upright things out of doors, before anything was trained.
PHOTOGRAPHS: dict[str, Split] = {
    "astronaut": "train",
    "camera": "test",
    "chelsea": "train",
    "china": "train",
    "coffee": "train",
    "coins": "train",
    "flower": "train",
    "rocket": "test",
}
SIDE = 32
PATCHES = {"train": 500, "test": 125}  # of each photograph; each is shown in all four rotations
LOWEST_CONTRAST = 12.0  # standard deviation of a patch, in grey levels: an empty sky has no top
MEAN, CONTRAST = 128.0, 48.0  # every patch is brought to this mean and standard deviation


def load_photographs(split: Split) -> LabelledImages:
    """12,000 training or 1,000 test patches, `[N, 1, 32, 32]`, each labelled with its rotation.

    Patches are cut at random places from the shipped photographs, every second one mirrored left to right;
    those with next to no contrast are left out, and the others are all brought to the same mean and the
    same contrast. Each is then turned counter-clockwise by 0, 90, 180 and 270 degrees, so that the classes
    are equally frequent. The choice is drawn with a fixed seed: it is the same everywhere. Patches of one
    photograph overlap, and patches for training and for testing come from different photographs.

    Args:
        split: `train` (six photographs) or `test` (two others).

    Returns:
        Images uint8 `[N, 1, 32, 32]` and labels int64 `[N]`, numbered as in `ROTATION_NAMES`.

    Raises:
        InputError: another split, or a file that is not the one the manifest names.

    Source: photographs of scikit-image and scikit-learn; `data/photographs/README.md` has their licences.

    >>> load_photographs("test").images.shape
    torch.Size([1000, 1, 32, 32])
    """
    checked("the split", split, Split)
    images, labels = _load(split)
    return LabelledImages(images.clone(), labels.clone())  # the kept ones stay as they are


def photograph(name: str) -> Tensor:
    """One photograph, grey uint8 `[H, W]`.

    Raises:
        InputError: there is no such photograph, or its file has changed.

    >>> photograph("camera").shape
    torch.Size([256, 256])
    """
    if name not in PHOTOGRAPHS:
        raise InputError(f"there is no photograph {name!r} (there are: {', '.join(PHOTOGRAPHS)})")
    with Image.open(io.BytesIO(read_verified(f"photographs/{name}.png"))) as image:
        return torch.from_numpy(np.asarray(image).copy())


@cache
def _load(split: Split) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    upright = torch.cat(
        [
            patches(photograph(name), PATCHES[split], generator)
            for name, part in PHOTOGRAPHS.items()
            if part == split
        ]
    )  # [n, 32, 32]
    turned = torch.stack([upright.rot90(turns, (1, 2)) for turns in range(4)], dim=1)  # [n, 4, 32, 32]
    labels = torch.arange(4).repeat(len(upright))
    return LabelledImages(turned.flatten(0, 1).unsqueeze(1), labels)


def _standardised(patch: Tensor) -> Tensor:
    """The patch with mean and contrast of all others, so that brightness reveals nothing."""
    pixels = patch.double()
    scaled = (pixels - pixels.mean()) / pixels.std() * CONTRAST + MEAN
    return scaled.round().clamp(0, 255).to(torch.uint8)


def patches(picture: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Patches `[count, 32, 32]` at random places of a grey picture `[H, W]`, every second one mirrored.

    Args:
        picture: uint8 `[H, W]`.
        count: how many.
        generator: draws places and mirrors.

    Raises:
        InputError: the picture is smaller than a patch, or nearly all of it lacks contrast.
    """
    height, width = picture.shape
    if min(height, width) < SIDE:
        raise InputError(f"the picture is {height} x {width} pixels; a patch needs {SIDE} x {SIDE}")
    windows = picture.unfold(0, SIDE, 1).unfold(1, SIDE, 1)  # [H - 31, W - 31, 32, 32], a view
    chosen: list[Tensor] = []
    for _ in range(20 * count):
        row, column, mirrored = (
            int(torch.randint(limit, (), generator=generator))
            for limit in (height - SIDE + 1, width - SIDE + 1, 2)
        )
        patch = windows[row, column]
        if patch.float().std() >= LOWEST_CONTRAST:
            chosen.append(_standardised(patch.flip(1) if mirrored else patch))
        if len(chosen) == count:
            return torch.stack(chosen)
    raise InputError(
        f"only {len(chosen)} of {count} patches have a standard deviation of {LOWEST_CONTRAST:g} grey levels;"
        " use a picture with more contrast"
    )
