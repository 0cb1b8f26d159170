"""What both convolutional networks share: convolutions, pooling of spikes, and a check of their fields."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn
from torch.nn import functional

from ..config import NetworkConfig
from ..errors import InputError
from ..model.normalisation import make_norm
from ..model.patches import ConvNorm

# What says how tokens are mixed, embedded and read out in a spiking MLP says nothing about a convolution:
# every other field must stay as the preset has it.
_OWN_FIELDS = frozenset(
    {
        "dim",
        "depths",
        "image_size",
        "in_channels",
        "num_classes",
        "time_steps",
        "neuron",
        "activation",
        "channel_norm",
    }
)


NORMS = ("bn", "tdbn", "none")


def refuse_fields_of_a_mixer(name: str, config: NetworkConfig, preset: NetworkConfig) -> None:
    """Raise where a configuration changes a field that a convolutional network does not have.

    Raises:
        InputError: a field that has no meaning here differs from the preset's, or `channel_norm` is none of
            `NORMS`.

    >>> from snnmlp_edu.config import NetworkConfig
    >>> preset = NetworkConfig()
    >>> refuse_fields_of_a_mixer("spiking_vgg16", preset.replace(skip="none"), preset)
    Traceback (most recent call last):
    snnmlp_edu.errors.InputError: spiking_vgg16 has nothing that skip='none' could change; leave it at 'stage'
    """
    for field in (f.name for f in dataclasses.fields(config) if f.name not in _OWN_FIELDS):
        value, kept = getattr(config, field), getattr(preset, field)
        if value != kept:
            raise InputError(f"{name} has nothing that {field}={value!r} could change; leave it at {kept!r}")
    if config.channel_norm not in NORMS:
        raise InputError(f"{name} cannot have channel_norm={config.channel_norm!r}; take {', '.join(NORMS)}")


def make_convolution(
    config: NetworkConfig,
    in_channels: int,
    out_channels: int,
    side: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    currents_summed: int = 1,
) -> ConvNorm:
    """A convolution that keeps the grid, or divides it by its stride, and the network's normalisation.

    Args:
        config: the network; `channel_norm` names the normalisation.
        in_channels: channels that come in.
        out_channels: channels that go out.
        side: side of the grid that goes out.
        kernel_size: side of the kernel, an odd number.
        stride: step of the kernel.
        currents_summed: currents that add up at the neuron behind it.
    """
    norm = make_norm(
        config.channel_norm,
        "channel",
        (side, side, out_channels),
        time_steps=config.time_steps,
        threshold=config.neuron.threshold,
        currents_summed=currents_summed,
    )
    return ConvNorm(in_channels, out_channels, kernel_size, stride, kernel_size // 2, norm)


class SpikePool(nn.Module):
    """Max pooling of spikes: a position fires if any in its window does, which takes comparisons alone.

    Args:
        kernel_size: side of the window.
        padding: positions around the grid that never fire.

    The window moves in steps of 2, so `forward(spikes)` halves the grid of `[T, B, H, W, C]`.

    >>> import torch
    >>> SpikePool(2)(torch.eye(4).view(1, 1, 4, 4, 1)).flatten()
    tensor([1., 0., 0., 1.])
    """

    def __init__(self, kernel_size: int, padding: int = 0) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.padding = padding

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes `[T, B, H / 2, W / 2, C]` for spikes `[T, B, H, W, C]`."""
        steps, batch = spikes.shape[:2]
        images = spikes.flatten(0, 1).permute(0, 3, 1, 2)
        pooled = functional.max_pool2d(images, self.kernel_size, stride=2, padding=self.padding)
        return pooled.permute(0, 2, 3, 1).unflatten(0, (steps, batch))

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"kernel_size={self.kernel_size}, stride=2, padding={self.padding}"
