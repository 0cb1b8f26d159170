"""Forget what a module computed for its backward pass, and compute it again there: less memory, more time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: Tensor) -> Any:
    """What `module(*inputs)` returns, keeping only the inputs for the backward pass.

    Batch norms learn their running statistics in the first pass only.

    Source: arXiv 1604.06174; `torch.utils.checkpoint`.
    """
    contexts = partial(_first_and_second_pass, module)
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


def _first_and_second_pass(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _statistics_stay(module)


@contextmanager
def _statistics_stay(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, batches in before:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if batches is None else batches.clone()
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches
