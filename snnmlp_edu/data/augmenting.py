"""The random changes of a training picture, as a recipe asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from ..errors import InputError
from .resizing import to_pixels
from .settings import Augmentation
from .transforms import Preprocessing

TRANSLATION = 0.45  # of the side: the largest in timm's training script


def training_transform(
    augmentation: Augmentation, preprocessing: Preprocessing, flip: bool, max_shift: int
) -> Callable[[Image.Image], Tensor]:
    """From a decoded picture to uint8 `[C, side, side]`, drawing from the shared generators.

    torchvision's transforms and timm's RandAugment do the work. Pixels stay whole numbers up to the end:
    they are normalised on the device, a quarter as many bytes on the way.

    Args:
        augmentation: what to do.
        preprocessing: the size, and the mean colour.
        flip: mirror every second picture.
        max_shift: largest shift, in pixels; what comes in from outside repeats the border.

    Raises:
        InputError: torchvision or timm is not installed.
    """
    try:
        from torchvision.transforms import v2  # it takes seconds to import
    except ModuleNotFoundError as error:
        raise InputError(
            "augmentation needs torchvision, which is not installed; run, in a clone:"
            " pip install -e '.[train]'"
        ) from error
    a = augmentation
    side = preprocessing.side
    resize = {"interpolation": v2.InterpolationMode(a.interpolation), "antialias": True}
    steps: list[Callable[[Any], Any]] = [preprocessing.fit]
    if a.random_resized_crop:
        side = preprocessing.image_size
        steps = [v2.RandomResizedCrop(side, scale=a.scale, ratio=a.ratio, **resize)]
    if max_shift:
        steps += [v2.Pad(max_shift, padding_mode="edge"), v2.RandomCrop(side)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    mean = [round(255 * value) for value in preprocessing.mean]
    if a.randaugment:
        steps.append(InColour(_randaugment(a.randaugment, side, mean)))
    if a.colour_jitter:
        steps.append(v2.ColorJitter(*[a.colour_jitter] * 3))
    steps.append(to_pixels)
    if a.random_erasing:
        steps.append(v2.RandomErasing(a.random_erasing, value=mean))
    return Chain(steps)


class Chain:
    """One step after the other; unlike a closure it can be pickled for a worker."""

    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self.steps = steps

    def __call__(self, value: Any) -> Any:
        """The outcome of the last step."""
        for step in self.steps:
            value = step(value)
        return value


class InColour:
    """A step that wants three channels, for grey pictures too."""

    def __init__(self, step: Callable[[Image.Image], Image.Image]) -> None:
        self.step = step

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The outcome in the picture's own mode."""
        return self.step(picture.convert("RGB")).convert(picture.mode)


def _randaugment(policy: str, side: int, mean: list[int]) -> Callable[[Image.Image], Image.Image]:
    try:
        from timm.data.auto_augment import rand_augment_transform
    except ModuleNotFoundError as error:
        raise InputError(
            "RandAugment needs timm, which is not installed; run, in a clone: pip install -e '.[train]'"
        ) from error
    colour = tuple(mean) if len(mean) == 3 else tuple(mean * 3)
    return rand_augment_transform(policy, {"translate_const": int(TRANSLATION * side), "img_mean": colour})
