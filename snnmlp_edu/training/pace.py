"""How fast a training goes: images a second, and the time that is left."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .optimisation import Plan


class Pace(Callback):
    """Measures from the end of this process's first batch, which compiles, and leaves validation out.

    Args:
        plan: how many images a batch has, and how many steps there are.
        time_steps: T of the network; epochs that take fewer are cheaper by that much.
    """

    def __init__(self, plan: Plan, time_steps: int) -> None:
        self.plan = plan
        self.time_steps = time_steps
        self.warm = False
        self.images = 0
        self.seconds = 0.0
        self.batch_began = self.run_began = 0.0
        self.first_step = 0
        self.seconds_left: float | None = None

    @property
    def images_per_second(self) -> float | None:
        """Of all processes, while they train, in this epoch; None before the second batch."""
        return self.images / self.seconds if self.seconds > 0 else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the time of the whole run, or of what is left of it."""
        self.batch_began = self.run_began = time.monotonic()
        self.first_step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure anew."""
        self.images, self.seconds = 0, 0.0
        self.batch_began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count the batch."""
        now = time.monotonic()
        if self.warm:
            self.images += self.plan.recipe.batch_size
            self.seconds += now - self.batch_began
        self.warm, self.batch_began = True, now
        step = trainer.global_step
        done = self.plan.presentations(self.first_step, step, self.time_steps)
        left = self.plan.presentations(step, self.plan.steps, self.time_steps)
        if done > 0:
            self.seconds_left = (now - self.run_began) / done * left


def in_words(seconds: float) -> str:
    """A time, rounded to two units at most.

    >>> in_words(9.6), in_words(95), in_words(3 * 3600 + 25 * 60), in_words(200_000)
    ('10 s', '2 min', '3 h 25 min', '2 d 8 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"
