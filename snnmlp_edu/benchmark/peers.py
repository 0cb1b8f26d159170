"""The same network assembled from the layers of another library, for comparison of speed.

Written from the equations of arXiv 2306.12465 in SpikingJelly's own style: tensors `[T, B, C, H, W]`,
multi-step layers, a reset before each call. It covers the default variant of `NetworkConfig` only.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..config import NetworkConfig, NeuronConfig
from ..errors import InputError


def _spikingjelly() -> Any:
    try:
        from spikingjelly import activation_based
        from spikingjelly.activation_based import functional, layer, neuron, surrogate  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the comparison needs SpikingJelly ({error}); run, in a clone: pip install -e '.[bench]'"
        ) from error
    return activation_based


def spikingjelly_lif(config: NeuronConfig) -> nn.Module:
    """SpikingJelly's multi-step layer of the released network's neuron.

    Raises:
        InputError: SpikingJelly is not installed, or the neuron is another one.
    """
    if config != NeuronConfig():
        raise InputError("the comparison is made with the default neuron; leave its fields alone")
    library = _spikingjelly()
    return library.neuron.LIFNode(
        tau=1 / config.beta,
        v_threshold=config.threshold,
        detach_reset=True,
        step_mode="m",
        surrogate_function=library.surrogate.Sigmoid(alpha=4.0),
    )


class NorseLIF(nn.Module):
    """norse's LIF without synaptic current, step by step, as the released network's neuron.

    One Euler step with `dt / tau = 0.5` is `v + 0.5 (x - v)`: beta and input gain of 0.5.

    Raises:
        InputError: norse is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # norse compiles with torch.jit on import
                from norse.torch.functional import lif_box
        except ImportError as error:
            raise InputError(
                f"the comparison needs norse ({error}); run, in a clone: pip install -e '.[bench]'"
            ) from error
        self.library = lif_box
        self.parameters_of_norse = lif_box.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0))

    def forward(self, current: Tensor) -> Tensor:
        """Spikes `[T, ...]` for currents `[T, ...]`."""
        state = self.library.LIFBoxFeedForwardState(v=torch.zeros_like(current[0]))
        spikes = []
        for now in current:
            fired, state = self.library.lif_box_feed_forward_step(now, state, self.parameters_of_norse)
            spikes.append(fired)
        return torch.stack(spikes)


def _lif(config: NetworkConfig) -> nn.Module:
    return spikingjelly_lif(config.neuron)


def _conv(inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> nn.Module:
    layer = _spikingjelly().layer
    padding = 1 if kernel == 3 else 0
    return nn.Sequential(
        layer.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias, step_mode="m"),
        layer.BatchNorm2d(outputs, step_mode="m"),
    )


class _Line(nn.Module):
    """Mixes the positions of one axis: the axis is swapped with the channels and back."""

    def __init__(self, config: NetworkConfig, length: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.mix = nn.Sequential(_conv(length, length, 1, 1, bias=True), _lif(config))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.transpose(2, self.axis)).transpose(2, self.axis)


class _Block(nn.Module):
    def __init__(self, config: NetworkConfig, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.rows, self.columns = _Line(config, grid[1], 4), _Line(config, grid[0], 3)
        self.fuse = _conv(3 * width, width, 1, 1, bias=False)
        self.token_neuron = _lif(config)
        hidden = config.expansion * width
        self.channel = nn.Sequential(
            _conv(width, hidden, 1, 1, bias=True),
            _lif(config),
            _conv(hidden, width, 1, 1, bias=True),
        )
        self.channel_neuron = _lif(config)

    def forward(self, s: Tensor, h: Tensor) -> Tensor:
        current = h + self.fuse(torch.cat((s, self.rows(s), self.columns(s)), dim=2))
        return self.channel_neuron(current + self.channel(self.token_neuron(current)))


class _PatchEncoding(nn.Module):
    def __init__(self, config: NetworkConfig, before: int, width: int) -> None:
        super().__init__()
        node = width // 3
        self.down = nn.ModuleList(_conv(before, node, 3, 2, bias=False) for _ in range(3))
        self.between = nn.ModuleList(
            nn.Sequential(_lif(config), _conv(node, node, 3, 1, bias=False)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](x) + self.between[0](first)
        third = self.down[2](x) + first + self.between[1](second)
        return torch.cat((first, second, third), dim=2)


class SpikingJellyMLP(nn.Module):
    """The default network of a configuration, from SpikingJelly's layers.

    Args:
        config: sizes; every variant must be the default one.

    Raises:
        InputError: SpikingJelly is not installed, or the configuration is another variant.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        sizes = ("dim", "depths", "patch_size", "image_size", "in_channels", "num_classes", "time_steps")
        plain = NetworkConfig(**{name: getattr(config, name) for name in (*sizes, "expansion")})
        if config != plain:
            raise InputError("the SpikingJelly network has no variants; change its sizes only")
        self.config = config
        patch, widths = config.patch_size, config.widths
        stem = _conv(config.in_channels, config.dim, patch, patch, bias=False)
        encodings = (_PatchEncoding(config, *pair) for pair in pairwise(widths))
        self.embeddings = nn.ModuleList([stem, *encodings])
        self.neurons = nn.ModuleList(_lif(config) for _ in widths)
        self.stages = nn.ModuleList(
            nn.ModuleList(_Block(config, grid, width) for _ in range(depth))
            for grid, width, depth in zip(config.grids, widths, config.depths, strict=True)
        )
        self.norm = _spikingjelly().layer.BatchNorm2d(config.widths[-1], step_mode="m")
        self.linear = nn.Linear(config.widths[-1], config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, classes]` of images `[B, channels, H, W]`."""
        _spikingjelly().functional.reset_net(self)
        x = images.unsqueeze(0).repeat(self.config.time_steps, 1, 1, 1, 1)
        for embedding, neuron, blocks in zip(self.embeddings, self.neurons, self.stages, strict=True):
            h = embedding(x)
            x = neuron(h)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, h)
        return self.linear(self.norm(x).mean((3, 4))).mean(0)
