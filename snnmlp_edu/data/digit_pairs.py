r"""Two handwritten digits in far corners of one picture: are they the same?

What a network knows of each corner by itself does not answer that. If its decision is a sum of something from
each corner, :math:`f(a) + g(b) > 0` for digits a and b, at most three in four answers are right. Say there
are m digits, and it is right about k of the m pairs of equal ones. For any two of these, a and b,

.. math::
    \bigl(f(a) + g(b)\bigr) + \bigl(f(b) + g(a)\bigr) = \bigl(f(a) + g(a)\bigr) + \bigl(f(b) + g(b)\bigr) > 0,

so it takes the pair (a, b) or the pair (b, a) for equal. That makes k(k - 1)/2 errors or more among the
m(m - 1) pairs of different digits. With half of the pictures in each class, its accuracy is at most
:math:`\tfrac12 + \tfrac{k}{2m} - \tfrac{k(k - 1)}{4m(m - 1)}`. That is 3/4 for k = m - 1 and for k = m, and
less for all others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..fields import checked
from .datasets import LabelledImages, Split
from .digits import enlarged_digits

PAIR_NAMES = ("different", "same")
SIDE = 64
DIGIT_SIDE = 16  # of each digit; the two are 32 pixels apart in either direction
DIGITS = 3  # 0, 1 and 2
PAIRS = {"train": 8_000, "test": 2_000}
SEEDS = {"train": 0, "test": 1}


class Pairs(NamedTuple):
    """Which digit is in the upper left corner, and which in the lower right: indices `[N]`."""

    first: Tensor
    second: Tensor


def load_digit_pairs(split: Split) -> LabelledImages:
    """8,000 pictures of two digits to train on, and 2,000 to test on; in half of them both are the same.

    One digit is in the upper left corner, the other in the lower right, on black. Each is a 0, a 1 or a 2,
    all equally likely. Equal digits are two different pictures of one digit. Pictures to train and to test
    on are made of the training and of the test images of `load_digits`, with a fixed seed: they are the same
    everywhere.

    Args:
        split: `train` or `test`.

    Returns:
        Images uint8 `[N, 1, 64, 64]` and labels int64 `[N]`, 1 where both digits are the same.

    Raises:
        InputError: scikit-learn is not installed.

    Source: the digits are those of `load_digits`.

    >>> load_digit_pairs("test").images.shape
    torch.Size([2000, 1, 64, 64])
    """
    checked("the split", split, Split)
    digits = enlarged_digits(split, DIGIT_SIDE)
    labels = torch.arange(PAIRS[split]) % len(PAIR_NAMES)
    pairs = draw_pairs(digits.labels, labels, SEEDS[split])
    images = torch.zeros(len(labels), 1, SIDE, SIDE, dtype=torch.uint8)
    images[..., :DIGIT_SIDE, :DIGIT_SIDE] = digits.images[pairs.first]
    images[..., -DIGIT_SIDE:, -DIGIT_SIDE:] = digits.images[pairs.second]
    return LabelledImages(images, labels)


def draw_pairs(digits: Tensor, same: Tensor, seed: int) -> Pairs:
    """Two images for each label: of one digit where it is 1, of two where it is 0.

    Args:
        digits: int64 `[M]`, which digit each image shows; at least two images of each of the first `DIGITS`.
        same: int64 `[N]`.
        seed: of the generator that draws.

    >>> digits = torch.arange(10).repeat(2)
    >>> pairs = draw_pairs(digits, torch.tensor([1, 0]), seed=0)
    >>> digits[pairs.first] == digits[pairs.second]
    tensor([ True, False])
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(below: Tensor) -> Tensor:
        return (torch.rand(len(below), generator=generator, dtype=torch.float64) * below).long()

    ordered, counts = digits.argsort(stable=True), digits.bincount(minlength=DIGITS)
    starts = counts.cumsum(0) - counts
    all_digits = torch.full_like(same, DIGITS)
    digit = draw(all_digits)
    other = torch.where(same == 1, digit, (digit + 1 + draw(all_digits - 1)) % DIGITS)
    first = draw(counts[digit])
    # Where both are the same digit, the second is another image of it.
    another = (first + 1 + draw(counts[digit] - 1)) % counts[digit]
    second = torch.where(same == 1, another, draw(counts[other]))
    return Pairs(ordered[starts[digit] + first], ordered[starts[other] + second])
