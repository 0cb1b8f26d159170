"""Mixup and cutmix: whole batches mixed in pairs, by torchvision's transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from .recipe import Recipe

if TYPE_CHECKING:
    from torchvision.transforms import v2


class BatchMixing:
    """Mixes the images of a batch, and their labels, as a recipe says.

    torchvision's transforms draw from the generator that the program shares.

    Args:
        recipe: with `mixup`, `cutmix` and their probabilities.
        classes: of the data set.

    Raises:
        InputError: images are mixed, and torchvision is not installed.

    Sources: mixup, arXiv 1710.09412; cutmix, arXiv 1905.04899.
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self.probability = recipe.mix_probability
        self.transforms: list[v2.Transform] = []
        self.shares: list[float] = []
        if not recipe.mixup and not recipe.cutmix:
            return
        try:
            from torchvision.transforms import v2  # it takes seconds to import
        except ModuleNotFoundError as error:
            raise InputError(
                "mixup and cutmix need torchvision, which is not installed; run, in a clone:"
                " pip install -e '.[train]'"
            ) from error
        both = recipe.mixup > 0 and recipe.cutmix > 0
        if recipe.mixup > 0:
            self.transforms.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
            self.shares.append(1 - recipe.cutmix_probability if both else 1.0)
        if recipe.cutmix > 0:
            self.transforms.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
            self.shares.append(recipe.cutmix_probability if both else 1.0)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images `[B, C, H, W]` and labels `[B]`, mixed or not; the labels become shares if so.

        Returns:
            The images, and int64 `[B]` or each image's share of every class, `[B, classes]`.
        """
        if not self.transforms:
            return images, labels
        if torch.rand(()) < self.probability:
            chosen = int(torch.multinomial(torch.tensor(self.shares), 1))
            images, labels = self.transforms[chosen](images, labels)
        return images, labels
