"""What compiling costs at the start, and what it gains afterwards."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from functools import partial
from typing import Any

import torch

from .config import Backend
from .racing import Action, Measurement, race, training_step
from .regions import compile_blocks
from .registry import create_model, get_config


def _first_step(preset: str, batch: int, backend: Backend, cache: str, queue: Any) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # looked up when something is compiled, not before
    model, config = create_model(preset, neuron={"backend": backend}), get_config(preset)
    images = torch.rand(batch, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(config.num_classes, (batch,))
    start = time.perf_counter()
    training_step(model, images, labels)
    queue.put(1e3 * (time.perf_counter() - start))


def measure_start(preset: str, batch: int = 16) -> Measurement:
    """The first training step of a process: with compiled neurons stored by an earlier one, or still without.

    Each in a process of its own, whose start and imports do not count.
    """
    spawn = multiprocessing.get_context("spawn")
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        runs: dict[str, Backend] = {
            "ours, nothing compiled yet": "auto",
            "ours": "auto",
            "ours, eager": "eager",
        }
        for name, backend in runs.items():
            queue = spawn.Queue()
            child = spawn.Process(target=_first_step, args=(preset, batch, backend, cache, queue))
            child.start()
            found[name] = queue.get(timeout=600)
            child.join()
    return Measurement(f"{preset}, batch {batch}, first training step of a process", found)


def race_compiled_blocks(preset: str, batch: int, rounds: int = 5) -> Measurement:
    """Training steps with each block compiled as a whole, beside the usual ones, where neurons alone are."""
    models = {"ours": create_model(preset), "ours, compiled blocks": create_model(preset)}
    compile_blocks(models["ours, compiled blocks"])
    config = get_config(preset)
    images = torch.rand(batch, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(config.num_classes, (batch,))
    steps: dict[str, Action] = {n: partial(training_step, m, images, labels) for n, m in models.items()}
    return race(f"{preset}, batch {batch}, training step by what is compiled", steps, rounds, warm_up=1)
