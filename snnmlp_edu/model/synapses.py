r"""Synapses: a linear map along one named axis of `[T, B, H, W, C]`, a normalisation, and a neuron.

The axis that the map writes and the axis of the normalisation decide whether the two fold into one map.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ChannelNorm, NetworkConfig
from .firing import fire
from .layout import Axis, features_along
from .linear import AxisLinear
from .neurons import make_activation
from .normalisation import make_norm


class Synapse(nn.Module):
    r"""What turns incoming spikes into current, and the neuron behind it that fires on it.

    .. math::
        i = \mathrm{norm}(M s) + h, \qquad s' = \mathrm{LIF}(i)

    Args:
        linear: the map M.
        norm: the normalisation.
        neuron: the neuron; by default there is none, and what comes out is the current itself.

    >>> import torch
    >>> from snnmlp_edu import LIF
    >>> synapse = Synapse(AxisLinear("channel", 3, 6), nn.Identity(), LIF())
    >>> spikes, _ = synapse(torch.ones(4, 2, 8, 8, 3))
    >>> spikes.shape
    torch.Size([4, 2, 8, 8, 6])
    """

    def __init__(self, linear: AxisLinear, norm: nn.Module, neuron: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm
        self.neuron = nn.Identity() if neuron is None else neuron

    def forward(
        self, *spikes: Tensor, shortcut: Tensor | None = None, keep_current: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Spikes of the neuron, and the current that it fires on.

        Args:
            spikes: `[T, B, H, W, C]`, from one place or from several.
            shortcut: another current h, `[T, B, H, W, C']`.
            keep_current: whether the current is wanted; if not, it takes no memory, and None is in its place.
        """
        return fire(self.linear, self.norm, self.neuron, spikes, shortcut, keep_current)

    def current(self, *spikes: Tensor) -> Tensor:
        """The current `norm(M s)` alone, `[T, B, H, W, C']`."""
        current: Tensor = self.norm(self.linear(*spikes))
        return current


def make_synapse(
    config: NetworkConfig,
    norm: ChannelNorm,
    axis: Axis,
    in_features: int,
    shape: tuple[int, int, int],
    *,
    bias: bool = True,
    currents_summed: int = 1,
) -> Synapse:
    """Linear map along one axis to a current of shape `(H, W, C)`, its normalisation and its neuron.

    Args:
        config: the network; its time steps and threshold matter to `tebn` and `tdbn`.
        norm: kind of normalisation; `none` gives the map a bias.
        axis: the axis that the map reads and writes.
        in_features: entries along that axis that come in.
        shape: `(H, W, C)` of the current that goes out.
        bias: whether the map has a bias.
        currents_summed: currents that add up at the neuron.
    """
    return Synapse(
        AxisLinear(axis, in_features, features_along(axis, shape), bias or norm == "none"),
        make_norm(
            norm,
            axis,
            shape,
            time_steps=config.time_steps,
            threshold=config.neuron.threshold,
            currents_summed=currents_summed,
        ),
        make_activation(config),
    )
