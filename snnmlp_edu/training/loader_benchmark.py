"""Whether the loader or the network holds a training up: each measured alone, on the same recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.batches import sound
from ..errors import InputError
from .data_module import DataModule
from .feeding import feed, open_recipe_source
from .fitting import make_network
from .losses import make_loss
from .optimisation import make_optimizer
from .recipe import Recipe, load_recipe
from .rules import Precision

AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LoaderBenchmark:
    """How many images a second the loader delivers and the network trains on.

    Args:
        loader: images a second that the loader delivers, with nobody else at work.
        network: images a second that training steps take, on one batch that is there.
        workers: processes that load; 0 where the images are in memory.
        batch_size: images in a batch.
        device: that the network runs on.
    """

    loader: float
    network: float
    workers: int
    batch_size: int
    device: str

    @property
    def ratio(self) -> float:
        """How many times as many images the loader delivers as the network takes."""
        return self.loader / self.network

    @property
    def bottleneck(self) -> str:
        """`loader` or `network`."""
        return "loader" if self.ratio < 1 else "network"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"ratio": self.ratio, "bottleneck": self.bottleneck, **asdict(self)}

    def __str__(self) -> str:
        lines = [
            f"{self.ratio:.2f} loaded for each image trained on: the bottleneck is the {self.bottleneck}",
            f"loader {self.loader:,.0f} images/s, {self.workers} workers, batches of {self.batch_size}",
            f"network {self.network:,.0f} images/s on {self.device}",
        ]
        if self.bottleneck == "loader":
            lines.append("try more loading.workers, prepared shards, smaller files, or a larger network")
        elif self.device == "cpu":
            lines.append("both share the processor's cores: together each is slower than alone")
        return "\n".join(lines)


def measure(recipe: Recipe | str | Path, seconds: float = 10.0, /, **overrides: Any) -> LoaderBenchmark:
    """Measure loader and network of a recipe, on one device.

    Args:
        recipe: a recipe, its name, or the path of a YAML file.
        seconds: how long each is measured, after a start that does not count.
        overrides: fields of the recipe, or of `NetworkConfig`, to change.

    Raises:
        InputError: as `fit`; or `seconds` is not above 0.
    """
    if not seconds > 0:
        raise InputError(f"seconds is {seconds}; it must be above 0")
    recipe = (recipe if isinstance(recipe, Recipe) else load_recipe(recipe)).replace(**overrides)
    recipe = recipe.replace(loading={"verify": "none"})
    source = open_recipe_source(recipe)
    model = make_network(None, recipe, source).model
    data = feed(source, recipe, model.config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = data.train_dataloader()
    batches = _endless(data, loader)
    for _ in range(1 + loader.num_workers * (loader.prefetch_factor or 0)):
        batch = next(batches)  # what workers had ready when the clock starts would count as too fast
    delivered = _rate(lambda: len(next(batches)[1]), seconds)
    images, labels = (part.to(device) for part in batch)
    step = _training_step(model.to(device), recipe, data.preprocessing.normalise(images), labels)
    step()  # which compiles
    return LoaderBenchmark(
        loader=delivered,
        network=_rate(step, seconds),
        workers=loader.num_workers,
        batch_size=recipe.batch_size,
        device=device.type,
    )


def _endless(data: DataModule, loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count():
        data.batches.set_epoch(epoch)
        for batch in loader:
            yield sound(batch)


def _training_step(model: Any, recipe: Recipe, images: Tensor, labels: Tensor) -> Callable[[], int]:
    loss, optimizer = make_loss(recipe), make_optimizer(model, recipe)
    kind = AUTOCAST[recipe.precision]

    def step() -> int:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, kind or torch.bfloat16, enabled=kind is not None):
            steps = model.forward_steps(images)
            value = loss(steps.float(), labels)
        value.backward()
        optimizer.step()
        value.item()  # waits for a GPU
        return len(labels)

    model.train()
    return step


def _rate(act: Callable[[], int], seconds: float) -> float:
    """Images a second of something done again and again."""
    done, start = 0, time.perf_counter()
    while True:
        done += act()
        passed = time.perf_counter() - start
        if passed >= seconds:
            return done / passed
