"""Handwritten digits that scikit-learn ships: a second real data set, so that nothing is downloaded."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from ..fields import checked
from .datasets import LabelledImages, Split, train_validation_split

DIGIT_NAMES = tuple("0123456789")
SIDE = 32
TEST_FRACTION = 1 / 3
HIGHEST = 16  # the stored ink runs from 0 to 16


def load_digits(split: Split) -> LabelledImages:
    """1,797 handwritten digits, white on black: 1,198 to train on and 599 to test on.

    The set has no split of its own. This one takes a third of each class as test images, chosen by the
    generator seed 0, so it is the same everywhere. The stored images are 8 x 8 with ink 0 to 16; they are
    enlarged to 32 x 32 by bilinear interpolation between pixel centres, and their ink is scaled to 0 to
    255 and rounded.

    Args:
        split: `train` or `test`.

    Returns:
        Images uint8 `[N, 1, 32, 32]` and labels int64 `[N]`, the digit itself.

    Raises:
        InputError: scikit-learn is not installed.

    Source: UCI machine learning repository, Optical Recognition of Handwritten Digits, test part;
    doi 10.24432/C50P49.

    >>> load_digits("test").images.shape
    torch.Size([599, 1, 32, 32])
    """
    checked("the split", split, Split)
    return enlarged_digits(split, SIDE)


def enlarged_digits(split: Split, side: int) -> LabelledImages:
    """The digits of `load_digits` at any size, uint8 `[N, 1, side, side]`.

    Raises:
        InputError: scikit-learn is not installed.
    """
    pixels, labels = _read()
    train, test = train_validation_split(labels, TEST_FRACTION, seed=0)
    chosen = {"train": train, "test": test}[split]
    ink = functional.interpolate(pixels[chosen], size=(side, side), mode="bilinear", align_corners=False)
    return LabelledImages((ink * (255 / HIGHEST)).round().to(torch.uint8), labels[chosen])


@cache
def _read() -> tuple[Tensor, Tensor]:
    try:
        from sklearn import datasets  # it takes seconds to import
    except ModuleNotFoundError as error:
        raise InputError(
            "the data set digits comes with scikit-learn, which is not installed; run, in a clone:"
            " pip install -e '.[train]'"
        ) from error
    bunch = datasets.load_digits()
    return torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1), torch.tensor(bunch.target)
