"""Calls timed in turn, and what was measured of them."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import NetworkConfig

Action = Callable[[], Any]


@dataclass(frozen=True)
class Measurement:
    """Times of several contestants at one task.

    Args:
        task: what each of them did.
        milliseconds: contestant -> median time of a call.
        ours: the contestant that the ratios are about.
    """

    task: str
    milliseconds: dict[str, float]
    ours: str = "ours"

    @property
    def ratios(self) -> dict[str, float]:
        """Contestant -> its time as a multiple of ours."""
        own = self.milliseconds[self.ours]
        return {name: t / own for name, t in self.milliseconds.items() if name != self.ours}


def wait_for_devices() -> None:
    """Wait until a GPU has finished its queue; a clock would only measure the launch."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def race(
    task: str,
    contestants: Mapping[str, Action],
    rounds: int = 15,
    warm_up: int = 3,
    settle: bool = True,
    rest: float = 0.0,
) -> Measurement:
    """Call all contestants in turn, round after round, and take the median time of each.

    Taking turns makes a disturbance meet all of them.

    Args:
        task: what each of them does.
        contestants: name -> what is called.
        rounds: calls of which the median counts.
        warm_up: rounds before those, not counted.
        settle: call each once, untimed, before each timed call; it takes back the memory and the caches that
            the one before had. Twice the time.
        rest: seconds to wait before that, until threads of the one before no longer look out for work; then
            each is called untimed for a third as long, since cores that rested are slow at first.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + rounds):
        for name, action in contestants.items():
            if rest:
                time.sleep(rest)
            if settle:
                awake = time.perf_counter() + rest / 3
                action()
                while time.perf_counter() < awake:
                    action()
            wait_for_devices()
            start = time.perf_counter()
            action()
            wait_for_devices()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return Measurement(task, {name: 1e3 * statistics.median(t) for name, t in times.items()})


@dataclass(frozen=True)
class Sweep:
    """One task measured at several values of one variable.

    Args:
        task: what was done.
        variable: what changed, with its unit.
        values: the values it took.
        measurements: one for each value.
    """

    task: str
    variable: str
    values: tuple[float, ...]
    measurements: tuple[Measurement, ...]


def random_batch(config: NetworkConfig, batch: int) -> tuple[Tensor, Tensor]:
    """Random images `[B, C, H, W]` that fit a network, and random labels `[B]`."""
    images = torch.rand(batch, config.in_channels, config.image_size, config.image_size)
    return images, torch.randint(config.num_classes, (batch,))


def measure_in_child(measure: Callable[..., float], *arguments: Any) -> float:
    """What a function of a module returns in a process of its own, which shares no memory with this one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward, loss and backward; the optimiser is the same for all and left out."""
    model.train()
    model.zero_grad(set_to_none=True)
    functional.cross_entropy(model(images), labels).backward()
