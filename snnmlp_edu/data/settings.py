"""How a recipe asks for its images: what is done to each one, and how they are loaded."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from ..config import Side
from ..fields import NOT_NEGATIVE, PROBABILITY, Rule, check_fields, whole

Interpolation = Literal["bilinear", "bicubic"]
Verification = Literal["decode", "none"]
RANDAUGMENT = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-t(weights|3aw?))*")
MOST_WORKERS = 16
MaxShift = Annotated[int, whole(0, 10_000)]  # in pixels


def _is_policy(text: str) -> bool:
    return RANDAUGMENT.fullmatch(text) is not None


def _rising(highest: float, expected: str) -> Rule:
    return Rule(lambda pair: 0 < pair[0] <= pair[1] <= highest, expected)


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images one by one, and how all others are brought to the network's size.

    The default does nothing: images in memory are only flipped and shifted, as the recipe says, and files
    are resized and cropped as for validation. The steps are taken in this order: crop, flip, RandAugment,
    colour jitter, erasing. What happens to an image depends on the seed, the epoch and the image's number
    alone: not on the number of loader workers, nor on where a run was interrupted.

    Args:
        random_resized_crop: cut out a random part and resize it to the network's input.
        scale: smallest and largest part of the area that is cut out.
        ratio: smallest and largest width-to-height ratio of the part.
        interpolation: how images are resized, here and in validation: `bilinear` or `bicubic`.
        randaugment: timm's description of a RandAugment policy, such as `rand-m9-mstd0.5`; None for none.
        colour_jitter: brightness, contrast and saturation change by up to this factor. timm leaves it out
            where there is RandAugment; here each does as its field says.
        random_erasing: probability that a rectangle is replaced by the mean colour.
        repeats: how often each image occurs in an epoch, augmented differently each time, in the same batch;
            an epoch keeps its length, and so shows fewer images (repeated augmentation, in the order of
            timm's sampler).
        resize: shorter side, in pixels, to which images are resized before the centre is cut out: for
            validation, tests and predictions, and for training without `random_resized_crop`. None means
            256 / 224 of the network's input where images are read from files; images in memory are
            padded instead.

    Raises:
        InputError: a field is of the wrong kind or out of range.

    Sources: random resized crop, arXiv 1409.4842; RandAugment, arXiv 1909.13719; random erasing, arXiv
    1708.04896; repeated augmentation, arXiv 1901.09335.
    """

    random_resized_crop: bool = False
    scale: Annotated[tuple[float, float], _rising(1.0, "two rising numbers above 0 up to 1")] = (0.08, 1.0)
    ratio: Annotated[tuple[float, float], _rising(math.inf, "two rising numbers above 0")] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    randaugment: Annotated[str, Rule(_is_policy, "a policy such as rand-m9-mstd0.5")] | None = None
    colour_jitter: Annotated[float, NOT_NEGATIVE] = 0.0
    random_erasing: Annotated[float, PROBABILITY] = 0.0
    repeats: Annotated[int, whole(1, 1_000)] = 1
    resize: Side | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def one_by_one(self) -> bool:
        """Whether images have to be processed one by one, by loader workers."""
        return self != Augmentation(interpolation=self.interpolation, scale=self.scale, ratio=self.ratio)


@dataclass(frozen=True)
class Loading:
    """How images are loaded: it affects the speed of a training, not its result.

    Args:
        workers: processes that read and augment; 0 leaves it to the training's own. None asks the machine.
        pin_memory: whether batches wait in memory that a GPU reads directly; None where there is one.
        prefetch: batches that each worker keeps ready. None asks the machine.
        memory_share: decode images once and keep their pixels where all of them fit into this part of the
            machine's memory; 0 reads the files in every epoch.
        verify: before the first epoch, `decode` every image, or `none`. What was found is remembered.

    Raises:
        InputError: a field is of the wrong kind or out of range.
    """

    workers: Annotated[int, whole(0, 1_000)] | None = None
    pin_memory: bool | None = None
    prefetch: Annotated[int, whole(1, 1_000)] | None = None
    memory_share: Annotated[float, PROBABILITY] = 0.25
    verify: Verification = "decode"

    def __post_init__(self) -> None:
        check_fields(self)

    def on_machine(self, cores: int, cuda: bool, processes: int = 1) -> Loading:
        """Every field that is None, set for a machine.

        With a GPU, every core but the one that drives it reads images, up to 16 for each training process.
        Without one the network needs the cores, and a fourth of them reads images.

        Args:
            cores: that this machine lends.
            cuda: whether the network runs on a GPU.
            processes: of this training, on this machine.

        >>> Loading().on_machine(cores=64, cuda=True, processes=8)
        Loading(workers=7, pin_memory=True, prefetch=4, memory_share=0.25, verify='decode')
        >>> Loading(prefetch=3).on_machine(cores=2, cuda=False)
        Loading(workers=1, pin_memory=False, prefetch=3, memory_share=0.25, verify='decode')
        """
        share = cores // processes
        workers = min(MOST_WORKERS, max(1, share - 1 if cuda else share // 4))
        return Loading(
            workers if self.workers is None else self.workers,
            cuda if self.pin_memory is None else self.pin_memory,
            (4 if cuda else 2) if self.prefetch is None else self.prefetch,
            self.memory_share,
            self.verify,
        )


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
