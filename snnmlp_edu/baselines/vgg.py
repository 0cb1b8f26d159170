"""The spiking VGG-16: thirteen 3 x 3 convolutions and three linear maps, 138 M parameters.

| layer | grid at 224 px | channels | |
|---|---|---|---|
| 2 convolutions, max pooling | 224 | 64 | the first multiplies pixels |
| 2 convolutions, max pooling | 112 | 128 | |
| 3 convolutions, max pooling | 56 | 256 | |
| 3 convolutions, max pooling | 28 | 512 | |
| 3 convolutions, max pooling | 14 | 512 | |
| linear map of all 7 x 7 x 512 spikes | 1 | 4,096 | 103 M parameters |
| linear map | 1 | 4,096 | |
| linear map | 1 | 1,000 | |

The layers are those of VGG-16 (arXiv 1409.1556), each map with a bias and without normalisation, and a
neuron after every map but the last. Diet-SNN (arXiv 2008.03658) trained it with five steps; it leaves the
biases out (13,416 parameters), learns a threshold and a leak for each layer, and pools by the mean. A mean
of spikes is no spike, and the next layer would have to multiply it, so ours pools by the maximum, as VGG
does: of spikes that is a comparison. `channel_norm="bn"` puts batch norm in place of the biases.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import NetworkConfig
from ..model.network import Head, SpikingNetwork
from ..model.neurons import make_activation
from ..model.patches import Stem
from ..model.synapses import make_synapse
from .convolution import SpikePool, make_convolution, refuse_fields_of_a_mixer

VGG16 = NetworkConfig(
    dim=64,
    depths=(2, 2, 3, 3, 3),
    patch_size=2,  # a stage leaves half the grid that it gets
    time_steps=5,
    channel_norm="none",
    patch_encoding="conv",
    token_mixing="none",
)


class SpikingVGG(SpikingNetwork):
    """A spiking network of plain convolutions.

    Stage i has `dim * 2**i` channels but at most `8 dim`, the two wide linear maps `64 dim`.

    Args:
        config: of `NetworkConfig`, the fields `dim`, `depths`, `image_size`, `in_channels`, `num_classes`,
            `time_steps`, `neuron`, `activation` and `channel_norm` (`bn`, `tdbn` or `none`, after every map
            but the last).

    Raises:
        InputError: another field is changed, or the images have another shape than the configuration says.

    Source: arXiv 1409.1556, table 1, column D; arXiv 2008.03658.

    >>> import torch
    >>> SpikingVGG(VGG16.replace(dim=4, depths=(1, 1), image_size=8))(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 1000])
    """

    def __init__(self, config: NetworkConfig) -> None:
        refuse_fields_of_a_mixer("spiking_vgg16", config, VGG16)
        wide = 64 * config.dim
        height, width = config.grids[-1]
        convolutions = [ConvolutionStage(config, index) for index in range(len(config.depths))]
        linear_maps = FullyConnectedStage(config, height * width * channels_of(config, -1), wide)
        super().__init__(config, [*convolutions, linear_maps], Head(config, (1, 1, wide), normalised=False))


def channels_of(config: NetworkConfig, index: int) -> int:
    """Channels of a stage: twice as many as before, up to eight times the first.

    >>> [channels_of(VGG16, index) for index in range(5)]
    [64, 128, 256, 512, 512]
    """
    return min(config.widths[index], 8 * config.dim)


class ConvolutionStage(nn.Module):
    """Convolutions on one grid, each with its neurons, and max pooling that halves it."""

    def __init__(self, config: NetworkConfig, index: int) -> None:
        super().__init__()
        channels, side = channels_of(config, index), 2 * config.grids[index][0]
        before = channels_of(config, index - 1) if index else config.in_channels
        convolutions = [
            make_convolution(config, before if number == 0 else channels, channels, side)
            for number in range(config.depths[index])
        ]
        first: nn.Module = convolutions[0] if index else Stem(config, convolutions[0])
        self.convolutions = nn.ModuleList([first, *convolutions[1:]])
        self.neurons = nn.ModuleList(make_activation(config) for _ in convolutions)
        self.pool = SpikePool(2)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes `[T, B, H / 2, W / 2, C']`, for images (first stage) or the spikes of the stage before."""
        for convolution, neuron in zip(self.convolutions, self.neurons, strict=True):
            x = neuron(convolution(x))
        return self.pool(x)


class FullyConnectedStage(nn.Module):
    """Two linear maps, each with its neurons; the first reads all channels of all positions at once."""

    def __init__(self, config: NetworkConfig, in_features: int, width: int) -> None:
        super().__init__()
        self.synapses = nn.ModuleList(
            make_synapse(config, config.channel_norm, "channel", features, (1, 1, width), bias=False)
            for features in (in_features, width)
        )

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes `[T, B, 1, 1, width]` for spikes `[T, B, H, W, C]`."""
        spikes = spikes.flatten(2)[:, :, None, None]  # [T, B, 1, 1, H W C]
        for synapse in self.synapses:
            spikes, _ = synapse(spikes)
        return spikes
