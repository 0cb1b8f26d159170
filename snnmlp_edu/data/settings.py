"""How a recipe asks for its images: what is done to each one, and how they are fetched."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from ..config import is_number, nearest
from ..errors import InputError

Interpolation = Literal["bilinear", "bicubic"]
Verification = Literal["decode", "none"]
RANDAUGMENT = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-t(weights|3aw?))*")
MOST_WORKERS = 16

Kind = TypeVar("Kind", bound="Augmentation | Loading")


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images one by one, and how all others are brought to the network's size.

    The default does nothing: images in memory are only flipped and shifted, as the recipe says, and files
    are resized and cropped as for validation. The steps are taken in this order: crop, flip, RandAugment,
    colour jitter, erasing. What happens to an image depends on the seed, the epoch and the image's number
    alone: not on the number of loader workers, nor on where a run was cut.

    Args:
        random_resized_crop: cut out a random part and resize it to the network's input.
        scale: smallest and largest part of the area that is cut out.
        ratio: smallest and largest width-to-height ratio of the part.
        interpolation: how images are resized, here and in validation: `bilinear` or `bicubic`.
        randaugment: timm's description of a RandAugment policy, such as `rand-m9-mstd0.5`; None for none.
        colour_jitter: brightness, contrast and saturation change by up to this factor. timm leaves it out
            where there is RandAugment; here each does as its field says.
        random_erasing: probability that a rectangle is replaced by the mean colour.
        repeats: how often each image stands in an epoch, augmented anew, in the same batch; an epoch keeps
            its length, and so shows fewer images (repeated augmentation, in the order of timm's sampler).
        resize: shorter side, in pixels, to which images are resized before the centre is cut out: for
            validation, tests and predictions, and for training without `random_resized_crop`. None stands
            for 256 / 224 of the network's input where images are read from files; images in memory are
            padded instead.

    Raises:
        InputError: a field is of the wrong kind or out of range.

    Sources: random resized crop, arXiv 1409.4842; RandAugment, arXiv 1909.13719; random erasing, arXiv
    1708.04896; repeated augmentation, arXiv 1901.09335.
    """

    random_resized_crop: bool = False
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    randaugment: str | None = None
    colour_jitter: float = 0.0
    random_erasing: float = 0.0
    repeats: int = 1
    resize: int | None = None

    def __post_init__(self) -> None:
        check(self, "random_resized_crop", isinstance(self.random_resized_crop, bool), "true or false")
        for name, highest in {"scale": 1.0, "ratio": math.inf}.items():
            value = getattr(self, name)
            pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))
            good = pair and 0 < value[0] <= value[1] <= highest
            check(self, name, good, "two rising numbers above 0" + (" up to 1" if highest == 1 else ""))
            object.__setattr__(self, name, tuple(map(float, value)))
        check_choice(self, "interpolation", Interpolation)
        policy = self.randaugment
        good = policy is None or (isinstance(policy, str) and RANDAUGMENT.fullmatch(policy) is not None)
        check(self, "randaugment", good, "a policy such as rand-m9-mstd0.5, or null")
        check(self, "colour_jitter", is_number(self.colour_jitter) and self.colour_jitter >= 0, "0 or more")
        erasing = self.random_erasing
        check(self, "random_erasing", is_number(erasing) and 0 <= erasing <= 1, "between 0 and 1")
        check_whole(self, "repeats", 1)
        check_whole(self, "resize", 1, optional=True)

    @property
    def one_by_one(self) -> bool:
        """Whether images have to be treated each for itself, by loader workers."""
        return self != Augmentation(interpolation=self.interpolation, scale=self.scale, ratio=self.ratio)


@dataclass(frozen=True)
class Loading:
    """How images are fetched. It changes how fast a training is, and not what it computes.

    Args:
        workers: processes that read and augment; 0 leaves it to the training's own. None asks the machine.
        pin_memory: whether batches wait in memory that a GPU fetches from directly; None where there is one.
        prefetch: batches that each worker keeps ready. None asks the machine.
        memory_share: decode images once and keep their pixels where all of them fit into this part of the
            machine's memory; 0 reads the files in every epoch.
        verify: before the first epoch, `decode` every image, or `none`. What was found is remembered.

    Raises:
        InputError: a field is of the wrong kind or out of range.
    """

    workers: int | None = None
    pin_memory: bool | None = None
    prefetch: int | None = None
    memory_share: float = 0.25
    verify: Verification = "decode"

    def __post_init__(self) -> None:
        check_whole(self, "workers", 0, optional=True)
        check(self, "pin_memory", isinstance(self.pin_memory, bool | None), "true, false or null")
        check_whole(self, "prefetch", 1, optional=True)
        share = self.memory_share
        check(self, "memory_share", is_number(share) and 0 <= share <= 1, "between 0 and 1")
        check_choice(self, "verify", Verification)

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


def settings_from(kind: type[Kind], values: Any) -> Kind:
    """An `Augmentation` or a `Loading` from plain values.

    Raises:
        InputError: there is no such field (the nearest is suggested), or its value is not allowed.

    >>> settings_from(Loading, {"workers": 2}).workers
    2
    """
    if isinstance(values, kind):
        return values
    name = kind.__name__.lower()
    if not isinstance(values, Mapping):
        raise InputError(f"recipe field {name} is {values!r}; it must be a mapping of its fields")
    known = [field.name for field in dataclasses.fields(kind)]
    for field in values:
        if field not in known:
            hint = nearest(str(field), known)
            raise InputError(f"{name} has no field {field!r}{hint} (fields: {', '.join(known)})")
    return kind(**values)


def check(owner: Any, name: str, valid: bool, expected: str) -> None:
    """Raise for a field that is not as it must be.

    Raises:
        InputError: names the field, its value, and what it must be.
    """
    if not valid:
        place = f"{type(owner).__name__.lower()}.{name}"
        raise InputError(f"recipe field {place} is {getattr(owner, name)!r}; it must be {expected}")


def check_whole(owner: Any, name: str, lowest: int, optional: bool = False) -> None:
    """Raise for a field that is no whole number of at least `lowest`, nor None where that is allowed."""
    value = getattr(owner, name)
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
    expected = f"a whole number of at least {lowest}" + (", or null" if optional else "")
    check(owner, name, whole or (optional and value is None), expected)


def check_choice(owner: Any, name: str, choices: Any) -> None:
    """Raise for a field that is none of its choices; the nearest is suggested."""
    value, allowed = getattr(owner, name), get_args(choices)
    check(owner, name, value in allowed, f"one of {', '.join(allowed)}{nearest(str(value), allowed)}")
