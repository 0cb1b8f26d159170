r"""The spiking MLP: read this file first.

An image becomes currents, then spikes, on a grid that is halved from stage to stage:

`images -> Stage 0 (stem, blocks) -> Stage 1 (patch encoding, blocks) -> ... -> Head -> logits`

Between the stem and the head everything that moves is a tensor of spikes `[T, B, H, W, C]`: time,
batch, rows, columns, channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, assert_never

from torch import Tensor, nn

from ..config import NetworkConfig
from ..errors import InputError
from .mixing import (
    BLOCKS,
    ChannelMixing,
    NormalisedSpikeSkipBlock,
    OuterSkipBlock,
    PositionMixing,
    TokenMixing,
)
from .neurons import make_activation
from .normalisation import BatchNorm
from .patches import PRESENTED, ConvPatchEmbedding, SpikingPatchEncoding, Stem
from .recomputing import recomputed


class SpikingNetwork(nn.Module):
    """Stages, one after the other, and a head: the forward pass of every network here.

    Args:
        config: sizes and variants; kept as `network.config`.
        stages: the first takes images, every other one the spikes of the stage before.
        head: makes logits of the last spikes.
    """

    def __init__(self, config: NetworkConfig, stages: Iterable[nn.Module], head: Head) -> None:
        super().__init__()
        self.config = config
        self.preprocessing: Any = None  # of the checkpoint that the weights were loaded from
        self.stages = nn.ModuleList(stages)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, classes]`: the mean over all steps."""
        return self.head.combine(self.forward_steps(images))

    def forward_steps(self, images: Tensor) -> Tensor:
        """Logits of every step, `[T, B, classes]`."""
        x = images  # [B, channels, H, W]
        for stage in self.stages:
            x = stage(x)  # [T, B, H / (patch 2^i), W / (patch 2^i), dim 2^i], spikes
        return self.head(x)  # [T, B, classes]

    @contextmanager
    def presenting(self, time_steps: int) -> Iterator[None]:
        """Within it, every image is presented `time_steps` times, whatever the configuration says.

        Weights, statistics and configuration stay as they are: it makes the first epochs of a training
        cheap. It holds for this thread alone. A network with the norm `tebn`, which is tied to its T, raises
        `InputError` when it is run.

        >>> import torch
        >>> network = SpikingMLP(NetworkConfig(dim=6, depths=(1, 1), image_size=8, patch_size=2))
        >>> with network.presenting(2):
        ...     network.forward_steps(torch.rand(3, 3, 8, 8)).shape
        torch.Size([2, 3, 1000])
        """
        steps = self.config.replace(time_steps=time_steps).time_steps
        stems = {module: steps for module in self.modules() if isinstance(module, Stem)}
        token = PRESENTED.set({**(PRESENTED.get() or {}), **stems})
        try:
            yield
        finally:
            PRESENTED.reset(token)


class SpikingMLP(SpikingNetwork):
    """A multi-stage spiking MLP-Mixer.

    Args:
        config: sizes and variants; kept as `model.config`.

    `model(images)` takes `[B, channels, H, W]` and returns logits `[B, classes]`, the mean over T of
    `model.forward_steps(images)`, `[T, B, classes]`. Images with a time axis, `[T, B, channels, H, W]`,
    are presented step by step.

    Raises:
        InputError: the images have another shape than the configuration says, or another dtype or device
            than the weights.

    Source: arXiv 2306.12465, section III.

    >>> import torch
    >>> model = SpikingMLP(NetworkConfig(dim=6, depths=(1, 1), image_size=8, patch_size=2, num_classes=10))
    >>> model(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: NetworkConfig) -> None:
        if not isinstance(config, NetworkConfig):
            raise InputError(f"SpikingMLP got {config!r} as its config; give a NetworkConfig")
        stages = [Stage(config, index) for index in range(len(config.depths))]
        super().__init__(config, stages, Head(config))


class Stage(nn.Module):
    """One resolution: an embedding, and blocks of mixing that all see it again through their shortcut."""

    def __init__(self, config: NetworkConfig, index: int) -> None:
        super().__init__()
        width = config.widths[index]
        self.embedding = make_embedding(config, index)
        self.neuron = make_activation(config)
        block = BLOCKS[config.skip]
        shape = (*config.grids[index], width)
        self.blocks = nn.ModuleList(block(shape, config) for _ in range(config.depths[index]))
        self.recompute = False  # see snnmlp_edu.model.regions

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of this stage, for images (first stage) or the spikes of the stage before."""
        shortcut = self.embedding(x)  # the current h, [T, B, H, W, C]
        spikes = self.neuron(shortcut)
        for block in self.blocks:
            run = partial(recomputed, block) if self.recompute else block
            spikes, shortcut = run(spikes, shortcut)
        return spikes


def make_embedding(config: NetworkConfig, index: int) -> nn.Module:
    """What a stage begins with: the stem, or the patch encoding that the configuration names."""
    if index == 0:
        return Stem(config)
    before, width = config.widths[index - 1], config.widths[index]
    match config.patch_encoding:
        case "spiking":
            return SpikingPatchEncoding(before, width, config)
        case "conv":
            return ConvPatchEmbedding(before, width)
        case "conv3":
            return ConvPatchEmbedding(before, width, kernel_size=3)
        case _:
            assert_never(config.patch_encoding)


class Head(nn.Module):
    """From the last spikes to logits: batch norm, mean over the grid, linear map.

    With `head="figure"` there is a neuron between mean and linear map, as in the paper's figure.

    Args:
        config: the network.
        shape: `(H, W, C)` of the last spikes; by default that of the last stage.
        normalised: whether there is a batch norm.
    """

    def __init__(
        self, config: NetworkConfig, shape: tuple[int, int, int] | None = None, normalised: bool = True
    ) -> None:
        super().__init__()
        height, width, channels = shape or (*config.grids[-1], config.widths[-1])
        self.grid = (height, width)
        self.norm = BatchNorm("channel", channels) if normalised else nn.Identity()
        self.neuron = _neuron_of_head(config)
        self.linear = nn.Linear(channels, config.num_classes)

    def forward(self, spikes: Tensor) -> Tensor:
        """Logits `[T, B, classes]` for spikes `[T, B, H, W, C]`."""
        features = self.norm(spikes).mean(dim=(2, 3))  # [T, B, C]
        return self.linear(self.neuron(features))

    def combine(self, steps: Tensor) -> Tensor:
        """Logits `[B, classes]` of all steps, `[T, B, classes]`: their mean."""
        return steps.mean(dim=0)


def _neuron_of_head(config: NetworkConfig) -> nn.Module:
    match config.head:
        case "released":
            return nn.Identity()
        case "figure":
            return make_activation(config)
        case _:
            assert_never(config.head)


def parts_of(network: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Which modules make up a part: its name, the path and the module, in the order of the network.

    The parts are stem, patch encoding, axial (the mixing of positions, whatever its kind), fuse, channel,
    skip (the norms that the shortcuts `spike_bn` and `outer` add) and head. What is none of these has no
    part.
    """
    for path, module in network.named_modules():
        match module:
            case Stem():
                yield "stem", path, module
            case SpikingPatchEncoding() | ConvPatchEmbedding():
                yield "patch encoding", path, module
            case PositionMixing():
                yield "axial", path, module
            case TokenMixing():
                yield "fuse", f"{path}.fuse", module.fuse
            case ChannelMixing():
                yield "channel", path, module
            case NormalisedSpikeSkipBlock():
                yield "skip", f"{path}.token_skip_norm", module.token_skip_norm
                yield "skip", f"{path}.channel_skip_norm", module.channel_skip_norm
            case OuterSkipBlock():
                yield "skip", f"{path}.token_pre_norm", module.token_pre_norm
                yield "skip", f"{path}.channel_pre_norm", module.channel_pre_norm
            case Head():
                yield "head", path, module


def count_parameters(model: SpikingMLP) -> dict[str, int]:
    """Parameters of a network by part: stem, axial, fuse, channel, patch encoding, skip, head.

    `skip` are the norms that the shortcuts `spike_bn` and `outer` add. The parts sum to the total.

    Raises:
        InputError: the network is no `SpikingMLP`, and so has other parts; or a parameter belongs to none.

    >>> from snnmlp_edu.registry import create_model
    >>> sum(count_parameters(create_model("mlp_spe_nano")).values())
    193958
    """
    if not isinstance(model, SpikingMLP):
        raise InputError(
            f"only a SpikingMLP has these parts, and this is a {type(model).__name__}; for a total take"
            " sum(p.numel() for p in model.parameters())"
        )
    counts = dict.fromkeys(("stem", "axial", "fuse", "channel", "patch encoding", "skip", "head"), 0)
    seen: set[nn.Parameter] = set()
    for part, _, module in parts_of(model):
        new = set(module.parameters()) - seen
        counts[part] += sum(parameter.numel() for parameter in new)
        seen |= new
    for path, parameter in model.named_parameters():
        if parameter not in seen:
            owner = model.get_submodule(path.rpartition(".")[0])
            raise InputError(
                f"{path}, in a {type(owner).__name__}, belongs to no part that is known; extend parts_of in"
                " snnmlp_edu/model/network.py"
            )
    return counts
