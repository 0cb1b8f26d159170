"""Token mixing, channel mixing, and the mixer block made of the two."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ..config import NetworkConfig
from ..errors import InputError
from .firing import fire_behind, watched
from .layout import Axis, features_along
from .neurons import make_activation
from .normalisation import BatchNorm
from .synapses import Synapse, make_synapse


class PositionMixing(nn.Module):
    """Mixes the positions along one axis, then fires: `LIF(norm(M s))`, M shared by the channels.

    Args:
        axis: `width` (within each row), `height` (within each column) or `token` (the whole grid).
        shape: `(H, W, C)` of the stage.
        config: the network.

    Source: arXiv 2306.12465, section III-B (axial sampling).
    """

    def __init__(self, axis: Axis, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()
        self.synapse = make_synapse(config, config.token_norm, axis, features_along(axis, shape), shape)
        self.neuron = make_activation(config)

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes `[T, B, H, W, C]` for spikes of the same shape."""
        return self.synapse.fire(self.neuron, spikes)


class AxialMixing(nn.Module):
    """Axial sampling: every token hears its row and its column, `s, rows(s), columns(s)`.

    Two small maps, `W x W` and `H x H`, in place of one `HW x HW`: after two blocks every token has
    heard every other.

    Source: arXiv 2306.12465, section III-B.
    """

    streams = 3

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()
        self.rows = PositionMixing("width", shape, config)
        self.columns = PositionMixing("height", shape, config)

    def forward(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """The spikes, and what their rows and their columns make of them; `[T, B, H, W, C]` each."""
        return spikes, self.rows(spikes), self.columns(spikes)


class FullMixing(nn.Module):
    """Every token hears every token through one `HW x HW` map, `s, grid(s)` (ablation)."""

    streams = 2

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()
        self.grid = PositionMixing("token", shape, config)

    def forward(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """The spikes, and what the whole grid makes of them; `[T, B, H, W, C]` each."""
        return spikes, self.grid(spikes)


class NoMixing(nn.Module):
    """Every token hears only itself, `s` (ablation)."""

    streams = 1

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()

    def forward(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """The spikes as they are."""
        return (spikes,)


_POSITIONS: dict[str, type[AxialMixing] | type[FullMixing] | type[NoMixing]] = {
    "axial": AxialMixing,
    "full": FullMixing,
    "none": NoMixing,
}


class Mixing(nn.Module):
    """Spikes in, a current out; or straight on to the spikes of the neuron behind, in fewer passes."""

    def incoming(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """The spikes that reach the last synapse, from one place or from several."""
        raise NotImplementedError

    def last(self) -> Synapse:
        """The synapse that writes the current."""
        raise NotImplementedError

    def forward(self, spikes: Tensor) -> Tensor:
        """Current `[T, B, H, W, C]` for spikes of the same shape."""
        return self.last()(*self.incoming(spikes))

    def fire(self, neuron: nn.Module, spikes: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Spikes `neuron(self(spikes) + shortcut)`."""
        if watched(self):
            return fire_behind(self, neuron, (spikes,), shortcut)[0]
        return self.last().fire(neuron, *self.incoming(spikes), shortcut=shortcut)

    def fire_and_keep(self, neuron: nn.Module, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes `neuron(self(spikes) + shortcut)`, and that current."""
        if watched(self):
            return fire_behind(self, neuron, (spikes,), shortcut)
        return self.last().fire_and_keep(neuron, *self.incoming(spikes), shortcut=shortcut)


class TokenMixing(Mixing):
    """Token block: mixes positions, and fuses the result with what came in to one current.

    `fuse` is a 1 x 1 convolution of all that side by side, that is a linear map along the channels, and
    its normalisation.

    Args:
        shape: `(H, W, C)` of the stage.
        config: the network; `token_mixing` selects which positions are mixed.
        currents_summed: currents that add up at the neuron behind it.

    Source: arXiv 2306.12465, section III-B.
    """

    def __init__(
        self, shape: tuple[int, int, int], config: NetworkConfig, *, currents_summed: int = 1
    ) -> None:
        super().__init__()
        positions = _POSITIONS[config.token_mixing](shape, config)
        self.positions = positions
        self.fuse = make_synapse(
            config,
            # The authors' layer-norm variant leaves the batch norm of the fuse in place.
            "bn" if config.token_norm == "ln" else config.token_norm,
            "channel",
            positions.streams * shape[-1],
            shape,
            bias=False,
            currents_summed=currents_summed,
        )

    def incoming(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """The spikes, and what their rows and columns, or the grid, make of them."""
        return self.positions(spikes)

    def last(self) -> Synapse:
        """The fuse."""
        return self.fuse


class ChannelMixing(Mixing):
    """Channel block: up to `expansion` times the channels, fire, down again; every token by itself.

    Args:
        shape: `(H, W, C)` of the stage.
        config: the network.

    Source: arXiv 2306.12465, section III-B.
    """

    def __init__(
        self, shape: tuple[int, int, int], config: NetworkConfig, *, currents_summed: int = 1
    ) -> None:
        super().__init__()
        height, width, channels = shape
        hidden = config.expansion * channels
        norm = config.channel_norm
        self.up = make_synapse(config, norm, "channel", channels, (height, width, hidden))
        self.neuron = make_activation(config)
        self.down = make_synapse(config, norm, "channel", hidden, shape, currents_summed=currents_summed)

    def incoming(self, spikes: Tensor) -> tuple[Tensor, ...]:
        """Spikes `[T, B, H, W, expansion C]` of the neurons between the two maps."""
        return (self.up.fire(self.neuron, spikes),)

    def last(self) -> Synapse:
        """The map down to C channels."""
        return self.down


class Wiring(NamedTuple):
    """What a block's shortcut adds, and where; each class of blocks states its own.

    Args:
        token_currents: normalised currents that add up at the neurons behind the token mixing; tdBN's alpha
            is `1 / sqrt` of it.
        channel_currents: the same at the neurons behind the channel mixing.
        additions: additions that the shortcut makes for each value of the grid, in all.
        puts_out_spikes: whether all that leaves the block is 0 or 1.
    """

    token_currents: int
    channel_currents: int
    additions: int
    puts_out_spikes: bool = True


def wiring_of(block: type[nn.Module]) -> Wiring | None:
    """What a class of blocks states of itself, or None: what its parent states need not be true of it."""
    return vars(block).get("wiring")


class MixerBlock(nn.Module):
    r"""A block: token mixing, fire, channel mixing, fire; the shortcut is the stage's embedding.

    With the input spikes s, the stage's embedding h, `t = token(s)` and `c = channel(s')`:

    .. math::
        s' = \mathrm{LIF}(h + t), \qquad s'' = \mathrm{LIF}(h + t + c)

    Args:
        shape: `(H, W, C)` of the stage.
        config: the network.

    A subclass states its own `wiring`, because the parent's counts need not be true of it.

    Raises:
        InputError: a subclass states none.

    Source: arXiv 2306.12465, section III-B; released code. The subclasses are the other shortcuts: the
    paper's own list is not known, and these span it.
    """

    wiring: ClassVar[Wiring] = Wiring(token_currents=2, channel_currents=3, additions=2)

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__()
        wiring = wiring_of(type(self))
        if wiring is None:
            raise InputError(
                f"{type(self).__name__} does not state its wiring, and that of its parent need not be true of"
                " it; give the class `wiring = Wiring(...)` (snnmlp_edu.model.mixing)"
            )
        self.token = TokenMixing(shape, config, currents_summed=wiring.token_currents)
        self.token_neuron = make_activation(config)
        self.channel = ChannelMixing(shape, config, currents_summed=wiring.channel_currents)
        self.channel_neuron = make_activation(config)

    def forward(self, spikes: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes, and the current that the next block's shortcut carries; `[T, B, H, W, C]` each."""
        spikes, current = self.token.fire_and_keep(self.token_neuron, spikes, residual)
        return self.channel.fire(self.channel_neuron, spikes, current), residual


class MembraneSkipBlock(MixerBlock):
    """The shortcut carries the sum of all currents of the stage so far: `m += t`, fire, `m += c`, fire."""

    wiring = Wiring(token_currents=2, channel_currents=2, additions=2)

    def forward(self, spikes: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes, and the sum of currents for the next block."""
        spikes, current = self.token.fire_and_keep(self.token_neuron, spikes, residual)
        return self.channel.fire_and_keep(self.channel_neuron, spikes, current)


class NormalisedSpikeSkipBlock(MixerBlock):
    """Spikes enter the shortcut through a batch norm: `LIF(BN(s) + t)`, `LIF(BN(s') + c)`."""

    wiring = Wiring(token_currents=2, channel_currents=2, additions=2)

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__(shape, config)
        self.token_skip_norm = BatchNorm("channel", shape[-1])
        self.channel_skip_norm = BatchNorm("channel", shape[-1])

    def forward(self, spikes: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes; the embedding is passed on unused."""
        spikes = self.token.fire(self.token_neuron, spikes, self.token_skip_norm(spikes))
        return self.channel.fire(self.channel_neuron, spikes, self.channel_skip_norm(spikes)), residual


class SpikeSkipBlock(MixerBlock):
    """Spikes are added behind the neuron: `LIF(t) + s`, `LIF(c) + s'`; the sums are not binary."""

    wiring = Wiring(token_currents=1, channel_currents=1, additions=2, puts_out_spikes=False)

    def forward(self, spikes: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Integers that grow by up to 2 a block; the embedding is passed on unused."""
        spikes = self.token.fire(self.token_neuron, spikes) + spikes
        return self.channel.fire(self.channel_neuron, spikes) + spikes, residual


class NoSkipBlock(MixerBlock):
    """No shortcut: `LIF(t)`, `LIF(c)`."""

    wiring = Wiring(token_currents=1, channel_currents=1, additions=0)

    def forward(self, spikes: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes; the embedding is passed on unused."""
        spikes = self.token.fire(self.token_neuron, spikes)
        return self.channel.fire(self.channel_neuron, spikes), residual


BLOCKS: dict[str, type[MixerBlock]] = {
    "stage": MixerBlock,
    "membrane": MembraneSkipBlock,
    "spike_bn": NormalisedSpikeSkipBlock,
    "spike": SpikeSkipBlock,
    "none": NoSkipBlock,
}
