"""Small networks to audit: what test_audit*.py share."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnmlp_edu import NetworkConfig, SpikingMLP
from snnmlp_edu.mfi import audit, calibrate, fold_batch_norm


class Fires(nn.Module):
    """Spikes by comparison with a threshold."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, current: Tensor) -> Tensor:
        return (current >= self.threshold).to(current.dtype)


def small(*between: nn.Module) -> nn.Sequential:
    """A stem, neurons, whatever is put there, and a map of what comes out."""
    return nn.Sequential(nn.Linear(4, 8), Fires(), *between, nn.Linear(8, 2)).eval()


IMAGES = torch.linspace(-1, 1, 12).view(3, 4)


def folded(config: NetworkConfig, batch: int = 2, timed: bool = False) -> tuple[nn.Module, Tensor]:
    shape = (batch, config.in_channels, config.image_size, config.image_size)
    images = torch.rand((config.time_steps, *shape) if timed else shape)
    return fold_batch_norm(calibrate(SpikingMLP(config), images)), images


class Applies(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, spikes: Tensor) -> Tensor:
        return self.function(spikes)


def violations(model: nn.Module, images: Tensor = IMAGES) -> list[tuple[str, str, str]]:
    """Path, operation and reason of every violation."""
    report = audit(model.eval(), images)
    assert report.multiplication_free == (not report.violations)
    return [(row.path, row.name, row.violation or "") for row in report.violations]


def assert_one(found: list[tuple[str, str, str]], path: str, name: str, reason: str) -> None:
    assert [row[:2] for row in found] == [(path, name)], found
    assert re.search(reason, found[0][2]), found
