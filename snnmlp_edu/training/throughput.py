"""How fast a training goes: images per second, and the time that is left."""

from __future__ import annotations

import time

from .schedule import TrainingSchedule


class Throughput:
    """Measures from the end of this process's first batch, which compiles, and leaves validation out.

    Args:
        schedule: how many images a batch has, and how many steps there are.
        time_steps: T of the network; epochs that take fewer are cheaper by that much.
        step: at which the run begins, or continues.
    """

    def __init__(self, schedule: TrainingSchedule, time_steps: int, step: int = 0) -> None:
        self.schedule, self.time_steps, self.first_step = schedule, time_steps, step
        self.warm = False
        self.images, self.seconds = 0, 0.0
        self.batch_began = self.run_began = time.monotonic()
        self.seconds_left: float | None = None

    @property
    def images_per_second(self) -> float | None:
        """Of all processes, while they train, in this epoch; None before the second batch."""
        return self.images / self.seconds if self.seconds > 0 else None

    def begin_epoch(self) -> None:
        """Restart the measurement."""
        self.images, self.seconds = 0, 0.0
        self.batch_began = time.monotonic()

    def end_batch(self, step: int) -> None:
        """Count a batch, after which so many steps are done."""
        now = time.monotonic()
        if self.warm:
            self.images += self.schedule.recipe.batch_size
            self.seconds += now - self.batch_began
        self.warm, self.batch_began = True, now
        done = self.schedule.presentations(self.first_step, step, self.time_steps)
        left = self.schedule.presentations(step, self.schedule.steps, self.time_steps)
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
