"""What compiling costs at the start, and what it gains afterwards."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from typing import Any

from ..config import Backend
from ..model.regions import compile_blocks
from ..registry import create_model, get_config
from ..timing import Action, Measurement, measure_in_child, race, random_batch, training_step


def _first_step(preset: str, overrides: dict[str, Any], batch: int, backend: Backend, cache: str) -> float:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # looked up when something is compiled, not before
    model = create_model(preset, **overrides, neuron={"backend": backend})
    images, labels = random_batch(model.config, batch)
    start = time.perf_counter()
    training_step(model, images, labels)
    return 1e3 * (time.perf_counter() - start)


def measure_start(preset: str, batch: int = 16, **overrides: Any) -> Measurement:
    """The first training step of a process, with compiled neurons cached by an earlier one or not.

    Each in a process of its own, whose start and imports do not count.
    """
    with tempfile.TemporaryDirectory() as cache:
        runs: dict[str, Backend] = {
            "ours, nothing compiled yet": "auto",
            "ours": "auto",
            "ours, eager": "eager",
        }
        found = {
            name: measure_in_child(_first_step, preset, overrides, batch, backend, cache)
            for name, backend in runs.items()
        }
    return Measurement(f"{preset}, batch {batch}, first training step of a process", found)


def race_compiled_blocks(preset: str, batch: int, rounds: int = 5) -> Measurement:
    """Training steps with each block compiled as a whole, against the usual ones, where only neurons are."""
    models = {"ours": create_model(preset), "ours, compiled blocks": create_model(preset)}
    compile_blocks(models["ours, compiled blocks"])
    images, labels = random_batch(get_config(preset), batch)
    steps: dict[str, Action] = {n: partial(training_step, m, images, labels) for n, m in models.items()}
    return race(f"{preset}, batch {batch}, training step by what is compiled", steps, rounds, warm_up=1)
