r"""Batch norm over the images of all processes, on the CPU; PyTorch's `SyncBatchNorm` needs GPUs.

With the :math:`n` values of a feature in all processes together, each step computes

.. math::
    \mu = \frac1n \sum x, \qquad \sigma^2 = \frac1n \sum (x - \mu)^2

where both sums run over all processes, forwards and, for the gradient, backwards. So several processes
compute what one would with all the images, but for the order in which numbers are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each summand has a part in what every process makes of the sum, so its
    gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, summand: Tensor) -> Tensor:
        return _summed(summand)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


class SharedBatchNorm(nn.BatchNorm1d):
    """A `BatchNorm1d` whose batch is that of all processes; each must have as many values.

    Args:
        local: the batch norm whose parameters, statistics and mode it takes over.
    """

    def __init__(self, local: nn.BatchNorm1d) -> None:
        super().__init__(local.num_features, local.eps, local.momentum)
        self._parameters, self._buffers = local._parameters, local._buffers
        self.processes = distributed.get_world_size()  # over which the statistics are taken
        self.train(local.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[N, features]` or `[N, features, L]`."""
        if not self.training:
            return super().forward(x)
        kind, x = x.dtype, x if x.dtype == torch.float64 else x.float()  # autocast hands over half precision
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        count = self.processes * x.numel() // self.num_features
        mean = _Sum.apply(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(kind)


@contextmanager
def shared_statistics(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it, every `BatchNorm1d` inside a model normalises by the images of all processes.

    On a GPU this is PyTorch's `SyncBatchNorm`.
    """
    replaced = []
    for parent in list(model.modules()):
        for name, local in parent.named_children():
            if type(local) is nn.BatchNorm1d:
                on_gpu = device.type == "cuda"
                shared = nn.SyncBatchNorm.convert_sync_batchnorm(local) if on_gpu else SharedBatchNorm(local)
                replaced.append((parent, name, local, shared))
                setattr(parent, name, shared)
    try:
        yield
    finally:
        for parent, name, local, shared in replaced:
            local._parameters, local._buffers = shared._parameters, shared._buffers
            setattr(parent, name, local.train(shared.training))
