r"""Losses of the logits `[T, B, classes]` that a network puts out step by step.

With the logits :math:`o[t]` of step t, their mean :math:`\bar o` and the labels y:

| name | what is computed | source |
|---|---|---|
| `cross_entropy` | :math:`\mathrm{CE}(\bar o, y)` | the paper's |
| `tet` | :math:`(1-\lambda)\,\frac1T\sum_t \mathrm{CE}(o[t], y) + \lambda\,\frac1T\sum_t \mathrm{MSE}(o[t], \phi)` | temporal efficient training, arXiv 2202.11946 |
| `ce_rate` | :math:`\frac1T\sum_t \mathrm{CE}(o[t], y)` | snnTorch's `ce_rate_loss` |
| `ce_count` | :math:`\mathrm{CE}(\sum_t o[t], y)` | snnTorch's `ce_count_loss` |
| `mse_count` | :math:`\frac1T\,\mathrm{MSE}(\sum_t o[t], T\,\mathrm{onehot}(y))` | snnTorch's `mse_count_loss` |

snnTorch's losses are written for output neurons and count their spikes. The networks here end in a linear
map, and so the "count" of a class is the sum of its logits, which need not be whole.
"""  # noqa: E501  (a table's row is one line)

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from .recipe import Recipe

StepLoss = Callable[[Tensor, Tensor], Tensor]


def make_loss(recipe: Recipe) -> StepLoss:
    """The recipe's loss.

    Returns:
        A function of logits `[T, B, classes]` and of labels, int64 `[B]` or the classes' shares
        `[B, classes]`, that returns the mean over the images. snnTorch's take int64 alone.
    """
    smoothing = recipe.label_smoothing
    match recipe.loss:
        case "cross_entropy":
            return lambda steps, labels: functional.cross_entropy(
                steps.mean(0), labels, label_smoothing=smoothing
            )
        case "tet":
            return lambda steps, labels: tet(steps, labels, recipe.tet_lambda, recipe.tet_phi, smoothing)
        case "ce_rate" | "ce_count" | "mse_count":
            return _of_snntorch(recipe.loss)
        case _:
            assert_never(recipe.loss)


def tet(steps: Tensor, labels: Tensor, weight: float, level: float, smoothing: float = 0.0) -> Tensor:
    """Temporal efficient training: every step is to answer for itself, and logits stay near one level.

    Args:
        steps: logits `[T, B, classes]`.
        labels: int64 `[B]`, or shares `[B, classes]`.
        weight: lambda, of the regulariser.
        level: phi, which the regulariser pulls to.
        smoothing: part of the target that is spread over all classes.

    Source: arXiv 2202.11946.
    """
    repeated = labels.repeat(len(steps), *(1,) * (labels.ndim - 1))  # [T B] or [T B, classes]
    entropy = functional.cross_entropy(steps.flatten(0, 1), repeated, label_smoothing=smoothing)
    return (1 - weight) * entropy + weight * (steps - level).square().mean()


def _of_snntorch(name: str) -> StepLoss:
    import snntorch.functional

    loss = getattr(snntorch.functional, f"{name}_loss")()
    return lambda steps, labels: torch.as_tensor(loss(steps, labels)).squeeze()
