r"""From images and from a finer grid to tokens: the stem, and what is between two stages.

Each layer here ends in the *embedding* `h`, a current `[T, B, H, W, C]`; the stage fires on it.
"""

from __future__ import annotations

from contextvars import ContextVar
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from ..errors import InputError
from .linear import mixed_precision
from .neurons import make_activation
from .normalisation import BatchNorm


class ConvNorm(nn.Module):
    """A convolution without bias and its batch norm, channels last: `[T, B, H, W, C]` in and out.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        kernel_size: side of the kernel.
        stride: step of the kernel, in tokens.
        padding: zeros around the grid, in tokens.
        norm: another normalisation; with `nn.Identity()`, which is none, the convolution has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        bias = isinstance(norm, nn.Identity)
        # Backward of a 1 x 1 convolution with a stride writes out of bounds on channels-last memory of few
        # channels (torch 2.14.1), so the places that it passes over are left out before it.
        self.every = stride if (kernel_size, padding) == (1, 0) else 1
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride // self.every, padding, bias=bias
        )
        self.norm = BatchNorm("channel", out_channels) if norm is None else norm

    def forward(self, spikes: Tensor) -> Tensor:
        """Currents `[T, B, H / stride, W / stride, C]` for spikes `[T, B, H, W, C]`."""
        steps, batch = spikes.shape[:2]
        spikes = spikes[:, :, :: self.every, :: self.every]
        # A view: channels-last memory is what PyTorch calls channels_last of [N, C, H, W].
        current = self.conv(spikes.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(current.unflatten(0, (steps, batch)))


# How often stems present an image inside `SpikingNetwork.presenting`, separately in each thread.
PRESENTED: ContextVar[dict[Stem, int] | None] = ContextVar("PRESENTED", default=None)


class Stem(nn.Module):
    """Cuts images into patches and embeds each: a convolution as wide as its stride, and batch norm.

    A static image `[B, channels, H, W]` is the same at every step (direct encoding), so it is embedded
    once and the current is then repeated; its batch norm counts it T times. Images that have a time axis,
    `[T, B, channels, H, W]`, are embedded step by step.

    Args:
        config: the network.
        embed: another convolution in place of the one described.

    Raises:
        InputError: the images have another shape than the configuration says, or another dtype or device
            than the weights.

    Source: arXiv 2306.12465, section III-D.
    """

    def __init__(self, config: NetworkConfig, embed: ConvNorm | None = None) -> None:
        super().__init__()
        self.config = config
        patch = config.patch_size
        self.embed = embed or ConvNorm(config.in_channels, config.dim, patch, patch)

    @property
    def time_steps(self) -> int:
        """How often an image is presented: as configured, or as `SpikingNetwork.presenting` says."""
        presented = PRESENTED.get()
        return self.config.time_steps if presented is None else presented.get(self, self.config.time_steps)

    def forward(self, images: Tensor) -> Tensor:
        """Embedding `[T, B, H / patch, W / patch, dim]` of images."""
        self._check(images)
        if images.ndim == 5:
            return self.embed(images.movedim(2, 4))
        before = _running_variance(self.embed.norm)
        current = self.embed(images.unsqueeze(0).movedim(2, 4))  # [1, B, H / patch, W / patch, dim]
        if before is not None:
            _count_copies(self.embed.norm, before, prod(current.shape[:-1]), self.time_steps)
        return current.expand(self.time_steps, *current.shape[1:])

    def _check(self, images: Tensor) -> None:
        c = self.config
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(
                f"images are {kind}; this network takes floating point: preprocess them as for its training"
            )
        weight = next(self.embed.parameters(), None)  # a replica for one of several devices has none
        if weight is not None and images.device != weight.device:
            raise InputError(
                f"images are on {images.device} and the network on {weight.device}; move one of them"
            )
        if weight is not None and images.dtype != weight.dtype and not mixed_precision(weight):
            raise InputError(
                f"images are {images.dtype} and the network's weights {weight.dtype}; convert the images with"
                f" images.to({weight.dtype})"
            )
        image = (c.in_channels, c.image_size, c.image_size)
        static = images.ndim == 4 and images.shape[1:] == image
        timed = images.ndim == 5 and images.shape[0] == self.time_steps and images.shape[2:] == image
        if not (static or timed):
            sizes = ", ".join(map(str, image))
            raise InputError(
                f"images have shape {tuple(images.shape)}; this network takes [B, {sizes}] or"
                f" [{self.time_steps}, B, {sizes}]: resize them, or build it with other in_channels,"
                " image_size or time_steps"
            )


def _running_variance(norm: Any) -> Tensor | None:
    """The running variance that a norm is about to update, as it is now."""
    learns = isinstance(norm, BatchNorm) and norm.batch_norm.training
    variance: Tensor | None = norm.batch_norm.running_var if learns else None
    return None if variance is None else variance.clone()


def _count_copies(norm: Any, before: Tensor, places: int, copies: int) -> None:
    r"""Update a running variance as if each of n places had been seen in so many copies.

    Batch norm adds the unbiased variance, which depends on n: with T copies of each place it is

    .. math::
        \frac{T (n - 1)}{T n - 1}

    times that of one.
    """
    batch_norm = norm.batch_norm
    if isinstance(batch_norm, nn.SyncBatchNorm) and torch.distributed.is_initialized():
        places = places * torch.distributed.get_world_size(batch_norm.process_group)
    places = places * getattr(batch_norm, "processes", 1)  # training.synchronise.SharedBatchNorm
    factor = copies * (places - 1) / (copies * places - 1)
    momentum = batch_norm.momentum
    kept = 1 - (1 / batch_norm.num_batches_tracked.to(before.dtype) if momentum is None else momentum)
    # By its data: the backward pass remembers this buffer, and reads it only where it has not learnt.
    batch_norm.running_var.data.mul_(factor).add_((1 - factor) * kept * before)


class ConvPatchEmbedding(nn.Module):
    """A convolution with stride 2 and batch norm: the plain way to halve the grid (ablation).

    Args:
        in_channels: width of the stage before.
        out_channels: width of the stage.
        kernel_size: 2; or 3, as in `SpikingPatchEncoding`, of which it is what enters the nodes.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Literal[2, 3] = 2) -> None:
        super().__init__()
        self.embed = ConvNorm(in_channels, out_channels, kernel_size, stride=2, padding=kernel_size - 2)

    def forward(self, spikes: Tensor) -> Tensor:
        """Embedding `[T, B, H / 2, W / 2, C']` of spikes `[T, B, H, W, C]`."""
        return self.embed(spikes)


class SpikingPatchEncoding(nn.Module):
    r"""Halves the grid with a graph of three nodes, each a third of the new width.

    .. math::
        n_1 = P_1 s, \quad n_2 = P_2 s + Q_1\, \mathrm{LIF}(n_1), \quad
        n_3 = P_3 s + n_1 + Q_2\, \mathrm{LIF}(n_2)

    where every :math:`P_j` is a 3 x 3 convolution of stride 2 and every :math:`Q_j` one of stride 1, each
    with its batch norm. The embedding is the concatenation of the three nodes.

    Args:
        in_channels: width of the stage before.
        out_channels: width of the stage, divisible by 3.
        config: the network.

    Source: arXiv 2306.12465, section III-C; the graph as in the released code.
    """

    def __init__(self, in_channels: int, out_channels: int, config: NetworkConfig) -> None:
        super().__init__()
        node = out_channels // 3
        # One convolution writes the stride-2 parts of all three nodes: its batch norm is by channel.
        self.down = ConvNorm(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.between = nn.ModuleList(
            ConvNorm(node, node, kernel_size=3, stride=1, padding=1) for _ in range(2)
        )
        self.neurons = nn.ModuleList(make_activation(config) for _ in range(2))

    def forward(self, spikes: Tensor) -> Tensor:
        """Embedding `[T, B, H / 2, W / 2, C']` of spikes `[T, B, H, W, C]`."""
        first, second, third = self.down(spikes).chunk(3, dim=-1)
        second = second + self.between[0](self.neurons[0](first))
        third = third + first + self.between[1](self.neurons[1](second))
        return torch.cat((first, second, third), dim=-1)
