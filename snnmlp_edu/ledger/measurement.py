"""What is measured of a trained network, beyond its accuracy."""

from __future__ import annotations

import base64
import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints import Checkpoint, load_checkpoint
from ..cost import count_operations
from ..data.datasets import LabelledImages
from ..data.embedded import CLASS_NAMES
from ..errors import InputError
from ..mfi import audit, fold_batch_norm
from ..mfi.auditing.report import without_numbers
from ..precision import single_precision
from ..training.evaluation import BATCH_SIZE, evaluate, evaluate_embedded
from ..training.fitting import make_network
from ..training.recipe import Recipe

COUNTED_IMAGES = 100
GRADIENT_IMAGES = 64
AUDITED_IMAGES = 4
STEPS = (1, 2, 4, 6, 8)


def untrained(recipe: Recipe, class_names: tuple[str, ...]) -> nn.Module:
    """The network as `fit` begins with it: the recipe's seed draws the same weights."""
    with torch.random.fork_rng(devices=[]), single_precision():
        torch.default_generator.manual_seed(recipe.seed)
        return make_network(None, recipe, class_names)[0]


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Norm of the gradient of each map's weights, by depth: what the loss tells each layer to change.

    The network is in training mode, on one batch; the one given stays as it is.

    Args:
        model: takes `[B, C, H, W]` and returns logits `[B, classes]`.
        images: `[B, C, H, W]`, as the network takes them.
        labels: int64 `[B]`.
    """
    copied = copy.deepcopy(model).train().requires_grad_(True)
    functional.cross_entropy(copied(images), labels).backward()
    return {
        name: rounded(0.0 if weight.grad is None else weight.grad.norm().item())
        for name, weight in copied.named_parameters()
        if weight.ndim > 1
    }


def loss_and_hits(checkpoint: Checkpoint, test: LabelledImages) -> tuple[float, Tensor]:
    """Mean cross-entropy of the test images, and bool `[N]`: which of them are classified correctly."""
    total, right = 0.0, []
    with torch.no_grad():
        for images, labels in zip(*(column.split(BATCH_SIZE) for column in test), strict=True):
            logits = checkpoint.model(checkpoint.preprocessing(images))
            total += functional.cross_entropy(logits, labels, reduction="sum").item()
            right.append(logits.argmax(1) == labels)
    return total / len(test.labels), torch.cat(right)


def packed(right: Tensor) -> str:
    """Which test images were classified correctly, bool `[N]`, as a record holds it.

    >>> base64.b64decode(packed(torch.tensor([True, False, True])))[0] == 0b10100000
    True
    """
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode()


def embedded_hits(checkpoint: Checkpoint, dataset: str, correct: int) -> int | None:
    """Hits among the embedded test images; None for a network of other classes.

    Args:
        checkpoint: the network.
        dataset: what it was trained and tested on.
        correct: hits there.
    """
    if dataset == "embedded":
        return correct
    return evaluate_embedded(checkpoint)[0] if checkpoint.class_names == CLASS_NAMES else None


def accuracy_at_steps(file: Path, test: LabelledImages, trained: int, known: float) -> dict[str, float]:
    """T -> accuracy of the same weights with T steps; none where the weights belong to one T.

    Args:
        file: the checkpoint.
        test: the test images.
        trained: T in training.
        known: accuracy with that T.
    """
    found = {}
    for steps in STEPS:
        if steps == trained:
            found[str(steps)] = known
            continue
        try:
            other = load_checkpoint(file, time_steps=steps)
        except InputError:
            return {}  # `tebn` learns a scale for each step
        correct, total = evaluate(other.model, other.preprocessing, *test)
        found[str(steps)] = correct / total
    return found


def cost(checkpoint: Checkpoint, test: LabelledImages) -> dict[str, Any]:
    """Fields of a record: firing rates, operations and energy, on the first test images."""
    images = test.images[:COUNTED_IMAGES]
    found = count_operations(checkpoint.model, checkpoint.preprocessing(images))
    sums = ("stem_macs", "macs", "synaptic_operations", "accumulates", "neuron_updates")
    return {
        "counted_images": len(images),
        "firing_rates": {
            path: rounded(sum(rates) / len(rates)) for path, rates in found.firing_rates.items()
        },
        "operations": {name: getattr(found, name) for name in sums},
        "energy_joules": found.energy_joules,
    }


def multiplications(checkpoint: Checkpoint, test: LabelledImages) -> list[str]:
    """What the audit finds in the folded network, in words, one line for layers that are alike."""
    folded = fold_batch_norm(checkpoint.model, strict=False)
    report = audit(folded, checkpoint.preprocessing(test.images[:AUDITED_IMAGES]))
    lines = (f"{without_numbers(row.path) or '(model)'}: {row.violation}" for row in report.violations)
    return list(dict.fromkeys(lines))


def rounded(value: float) -> float | None:
    """Six digits, enough for a table; None for what is not finite, which JSON cannot hold.

    >>> rounded(0.123456789), rounded(float("inf"))
    (0.123457, None)
    """
    return float(f"{value:.6g}") if math.isfinite(value) else None


def parameters(model: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(parameter.numel() for parameter in model.parameters())
