"""Forget what a module computed for its backward pass, and compute it again there: less memory, more time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .holding import holding


def recomputed(module: nn.Module, *inputs: Tensor) -> Any:
    """What `module(*inputs)` returns, keeping only the inputs for the backward pass.

    Batch norms learn their running statistics in the first pass only.

    Source: arXiv 1604.06174; `torch.utils.checkpoint`.
    """
    contexts = partial(_first_and_second_pass, module)
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


def _first_and_second_pass(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _statistics_stay(module)


def _statistics_stay(module: nn.Module) -> AbstractContextManager[None]:
    changes: list[tuple[nn.Module, str, Any]] = []
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            changes.append((norm, "momentum", 0.0))
            if norm.num_batches_tracked is not None:
                changes.append((norm, "num_batches_tracked", norm.num_batches_tracked.clone()))
    return holding(changes)
