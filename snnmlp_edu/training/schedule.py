"""Optimiser, learning rate and number of steps of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from ..errors import InputError
from .recipe import Recipe


@dataclass(frozen=True)
class TrainingSchedule:
    """How many images and steps a training takes on so many processes, and at which learning rate.

    Args:
        recipe: how to train.
        images: to train on, in an epoch.
        processes: that share them.

    Raises:
        InputError: there are fewer images than one step needs.

    >>> recipe = Recipe("r", "ours", epochs=2, learning_rate=0.1, batch_size=32, base_batch=16)
    >>> schedule = TrainingSchedule(recipe.replace(scale_learning_rate="linear"), images=100, processes=4)
    >>> schedule.global_batch_size, schedule.steps_per_epoch, schedule.steps, schedule.learning_rate
    (32, 3, 6, 0.2)
    >>> print(schedule)
    global batch 32 = 4 processes x 8 images; learning rate 0.2 = 0.1 x 32 / 16
    """

    recipe: Recipe
    images: int
    processes: int = 1

    def __post_init__(self) -> None:
        batch, accumulate = self.recipe.batch_size, self.recipe.accumulate
        if batch % self.processes:
            raise InputError(
                f"batch_size is {batch}, which {self.processes} processes cannot share evenly; choose a"
                f" multiple of {self.processes}"
            )
        if self.steps_per_epoch == 0:
            step = (
                f", {self.global_batch_size} images with accumulate={accumulate}," if accumulate > 1 else ""
            )
            raise InputError(
                f"batch_size is {batch}{step} and there are {self.images} training images;"
                " choose a smaller batch_size"
            )

    @property
    def global_batch_size(self) -> int:
        """The global batch: images of all processes between two updates of the weights."""
        return self.recipe.batch_size * self.recipe.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Updates of the weights; images that do not fill a last one are left out."""
        return self.images // self.global_batch_size

    @property
    def steps(self) -> int:
        """Updates of the weights in the whole training."""
        steps = self.recipe.epochs * self.steps_per_epoch
        return steps if self.recipe.max_steps is None else min(steps, self.recipe.max_steps)

    @property
    def epochs(self) -> int:
        """Epochs that are begun; `max_steps` may leave some out, and cut the last one short."""
        return -(-self.steps // self.steps_per_epoch)

    def presentations(self, begin: int, end: int, time_steps: int) -> int:
        """How often an image is presented from one update to another, for a network of so many time steps.

        >>> recipe = Recipe("r", "ours", epochs=3, learning_rate=0.1, batch_size=64, early_epochs=2)
        >>> schedule = TrainingSchedule(recipe, images=256)
        >>> schedule.presentations(6, 12, 4)  # two cheap steps, and four of four time steps
        18
        """
        early = self.recipe.early_epochs * self.steps_per_epoch
        cheap = max(min(end, early) - begin, 0)
        return cheap * self.recipe.early_time_steps + (end - begin - cheap) * time_steps

    @property
    def warmup(self) -> float:
        """Part of the steps in which the learning rate goes up."""
        recipe = self.recipe
        if recipe.warmup_epochs is not None:
            return min(recipe.warmup_epochs * self.steps_per_epoch, self.steps - 1) / self.steps
        if recipe.warmup is not None:
            return recipe.warmup
        match recipe.schedule:
            case "one_cycle":
                return 0.3
            case "cosine" | "constant":
                return 0.0
            case _:
                assert_never(recipe.schedule)

    @property
    def learning_rate(self) -> float:
        """The highest learning rate, scaled as the recipe says."""
        return self.recipe.learning_rate * self._rate_scale

    @property
    def min_learning_rate(self) -> float | None:
        """Where the schedule ends, scaled as the highest rate is; None leaves it to the schedule."""
        lowest = self.recipe.min_learning_rate
        return None if lowest is None else lowest * self._rate_scale

    @property
    def _rate_scale(self) -> float:
        recipe = self.recipe
        if recipe.scale_learning_rate is None or recipe.base_batch is None:
            return 1.0
        ratio = self.global_batch_size / recipe.base_batch
        match recipe.scale_learning_rate:
            case "linear":
                return ratio
            case "sqrt":
                return math.sqrt(ratio)
            case _:
                assert_never(recipe.scale_learning_rate)

    def _product(self) -> str:
        parts = [f"{self.recipe.batch_size // self.processes} images"]
        if self.processes > 1:
            parts.insert(0, f"{self.processes} processes")
        if self.recipe.accumulate > 1:
            parts.append(f"{self.recipe.accumulate} batches accumulated")
        return " x ".join(parts)

    def __str__(self) -> str:
        recipe = self.recipe
        text = f"global batch {self.global_batch_size}"
        if self.global_batch_size != recipe.batch_size or self.processes > 1:
            text += f" = {self._product()}"
        text += f"; learning rate {self.learning_rate:g}"
        if recipe.scale_learning_rate is not None:
            ratio = f"{self.global_batch_size} / {recipe.base_batch}"
            ratio = f"sqrt({ratio})" if recipe.scale_learning_rate == "sqrt" else ratio
            return f"{text} = {recipe.learning_rate:g} x {ratio}"
        if recipe.base_batch not in (None, self.global_batch_size):
            return (
                f"{text}, as the recipe has it for a batch of {recipe.base_batch};"
                " scale_learning_rate=linear would scale it"
            )
        return f"{text}, as the recipe has it"


def make_optimizer(model: nn.Module, schedule: TrainingSchedule) -> Optimizer:
    """The recipe's optimiser; weight decay acts on matrices and kernels, not on vectors.

    Args:
        model: whose weights it changes.
        schedule: the recipe, and the highest learning rate.
    """
    recipe, rate = schedule.recipe, schedule.learning_rate
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    match recipe.optimizer:
        case "adamw":
            return AdamW(groups, lr=rate)
        case "sgd":
            nesterov = recipe.nesterov and recipe.momentum > 0
            return SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov)
        case _:
            assert_never(recipe.optimizer)


def make_learning_rate_schedule(optimizer: Optimizer, schedule: TrainingSchedule) -> LRScheduler:
    r"""The learning rate of every step.

    With W steps of warm-up out of S, the rate of step i = 0, 1, ... is, as a part of the highest,

    .. math::
        \frac{i + 1}{W + 1} \text{ for } i < W, \qquad
        m + (1 - m)\,\frac{1 + \cos\left(\pi\,(i - W) / (S - W)\right)}{2} \text{ after that}

    for `cosine`, with m the lowest rate; `constant` stays at 1 after its warm-up; `one_cycle` is PyTorch's.
    """
    match schedule.recipe.schedule:
        case "one_cycle":
            return _one_cycle(optimizer, schedule)
        case "cosine":
            lowest = (schedule.min_learning_rate or 0.0) / schedule.learning_rate
            return _after_warmup(
                optimizer, schedule, lambda done: lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2
            )
        case "constant":
            return _after_warmup(optimizer, schedule, lambda done: 1.0)
        case _:
            assert_never(schedule.recipe.schedule)


def _one_cycle(optimizer: Optimizer, schedule: TrainingSchedule) -> LRScheduler:
    initial, final, lowest = 25.0, 1e4, schedule.min_learning_rate
    if lowest is not None:
        final = schedule.learning_rate / initial / lowest if lowest > 0 else math.inf
    return OneCycleLR(
        optimizer,
        max_lr=schedule.learning_rate,
        total_steps=schedule.steps,
        # PyTorch divides by the length of the warm-up less one step.
        pct_start=schedule.warmup * (1 + 1e-9) if schedule.warmup * schedule.steps == 1 else schedule.warmup,
        div_factor=initial,
        final_div_factor=final,
        # One-cycle would also move the first moment's decay; a recipe names one momentum.
        cycle_momentum=False,
    )


def _after_warmup(
    optimizer: Optimizer, schedule: TrainingSchedule, part: Callable[[float], float]
) -> LRScheduler:
    """A linear warmup, then a fraction of the highest rate by the progress of the remaining steps."""
    warmup = schedule.warmup * schedule.steps

    def part_at(step: int) -> float:
        return (
            (step + 1) / (warmup + 1) if step < warmup else part((step - warmup) / (schedule.steps - warmup))
        )

    return LambdaLR(optimizer, part_at)
