r"""The spiking ResNet-34: residual learning with spikes, 22 M parameters.

| layer | grid at 224 px | channels | |
|---|---|---|---|
| stem: 7 x 7 convolution with stride 2, fire, max pooling 3 x 3 with stride 2 | 56 | 64 | multiplies pixels |
| 3 blocks | 56 | 64 | |
| 4 blocks | 28 | 128 | |
| 6 blocks | 14 | 256 | |
| 3 blocks | 7 | 512 | |
| mean over the grid, linear map | 1 | 1,000 | |

Grid, widths, depths and shortcuts are those of ResNet-34 (arXiv 1512.03385), the normalisation is tdBN
(arXiv 2011.05280), with :math:`\alpha = 1 / \sqrt 2` where two currents add up. Both come before the
neuron, so that every layer but the stem gets spikes. The neuron is this package's.

The stem's pooling is ResNet's maximum: of spikes that is a comparison. The mean over the grid folds into
the linear map. What the tdBN authors put on a shortcut that changes nothing is not known here: ours passes
the spikes on as they are, as ResNet does.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import NetworkConfig
from ..model.network import Head, SpikingNetwork
from ..model.neurons import make_activation
from ..model.patches import Stem
from .convolution import SpikePool, make_convolution, refuse_fields_of_a_mixer

RESNET34 = NetworkConfig(
    dim=64,
    depths=(3, 4, 6, 3),
    patch_size=4,  # the stem halves the grid twice
    time_steps=6,
    channel_norm="tdbn",
    patch_encoding="conv",
    token_mixing="none",
)


class SpikingResNet(SpikingNetwork):
    """A spiking residual network of two-layer blocks.

    Args:
        config: of `NetworkConfig`, the fields `dim`, `depths`, `image_size`, `in_channels`, `num_classes`,
            `time_steps`, `neuron`, `activation` and `channel_norm` (`bn`, `tdbn` or `none`, after every
            convolution).

    Raises:
        InputError: another field is changed, or the images have another shape than the configuration says.

    Source: arXiv 1512.03385, table 1; arXiv 2011.05280, sections 4 and 5.

    >>> import torch
    >>> SpikingResNet(RESNET34.replace(dim=8, depths=(1, 1), image_size=16))(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 1000])
    """

    def __init__(self, config: NetworkConfig) -> None:
        refuse_fields_of_a_mixer("spiking_resnet34", config, RESNET34)
        stages = [ResidualStage(config, index) for index in range(len(config.depths))]
        super().__init__(config, stages, Head(config, normalised=False))


class ResidualStage(nn.Module):
    """One resolution: residual blocks, of which the first halves the grid; in the first stage a stem does."""

    def __init__(self, config: NetworkConfig, index: int) -> None:
        super().__init__()
        width, (side, _) = config.widths[index], config.grids[index]
        before, stride = (config.widths[index - 1], 2) if index else (width, 1)
        self.embedding = nn.Identity() if index else FiringStem(config)
        self.blocks = nn.Sequential(
            ResidualBlock(config, before, width, side, stride),
            *(ResidualBlock(config, width, width, side) for _ in range(config.depths[index] - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of this stage, for images (first stage) or the spikes of the stage before."""
        return self.blocks(self.embedding(x))


class FiringStem(nn.Module):
    """From images to spikes: a 7 x 7 convolution with stride 2, fire, max pooling."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        side = config.image_size // 2
        convolution = make_convolution(config, config.in_channels, config.dim, side, kernel_size=7, stride=2)
        self.stem = Stem(config, convolution)
        self.neuron = make_activation(config)
        self.pool = SpikePool(3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Spikes `[T, B, H / 4, W / 4, dim]` for images `[B, channels, H, W]`."""
        return self.pool(self.neuron(self.stem(images)))


class ResidualBlock(nn.Module):
    r"""Two convolutions and a shortcut around them, which meet before the second neuron.

    .. math::
        s' = \mathrm{LIF}\bigl(C_2(\mathrm{LIF}(C_1(s))) + S(s)\bigr)

    where S passes the spikes on, or is a 1 x 1 convolution where grid or width change.

    Args:
        config: the network.
        in_channels: channels that come in.
        out_channels: channels that go out.
        side: side of the grid that goes out.
        stride: 2 to halve the grid.

    Source: arXiv 2011.05280, section 4, for tdBN in a block; arXiv 1512.03385, section 3.3, option B.
    """

    def __init__(
        self, config: NetworkConfig, in_channels: int, out_channels: int, side: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.first = make_convolution(config, in_channels, out_channels, side, stride=stride)
        self.first_neuron = make_activation(config)
        self.second = make_convolution(config, out_channels, out_channels, side, currents_summed=2)
        self.shortcut = (
            nn.Identity()
            if (in_channels, stride) == (out_channels, 1)
            else make_convolution(
                config, in_channels, out_channels, side, kernel_size=1, stride=stride, currents_summed=2
            )
        )
        self.neuron = make_activation(config)

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes `[T, B, H / stride, W / stride, C']` for spikes `[T, B, H, W, C]`."""
        current = self.second(self.first_neuron(self.first(spikes)))
        return self.neuron(current + self.shortcut(spikes))
