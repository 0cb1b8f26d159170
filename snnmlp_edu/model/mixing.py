"""Token mixing, channel mixing, and the mixer block made of the two."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ..config import NetworkConfig
from ..errors import InputError
from .layout import Axis, features_along
from .normalisation import BatchNorm, LayerNorm
from .synapses import make_synapse


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

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes `[T, B, H, W, C]` for spikes of the same shape."""
        fired: Tensor = self.synapse(spikes)[0]
        return fired


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


class TokenMixing(nn.Module):
    """Token block: mixes positions, fuses the result with what came in to one current, and fires.

    `fuse` is a 1 x 1 convolution of all that side by side, that is a linear map along the channels, and
    its normalisation.

    Args:
        shape: `(H, W, C)` of the stage.
        config: the network; `token_mixing` selects which positions are mixed.
        currents_summed: currents that add up at its neuron.

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

    def forward(
        self, spikes: Tensor, shortcut: Tensor | None = None, keep_current: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Spikes `LIF(t + shortcut)`, and that current where it is kept; `[T, B, H, W, C]` each."""
        return self.fuse(*self.positions(spikes), shortcut=shortcut, keep_current=keep_current)

    def current(self, spikes: Tensor) -> Tensor:
        """The current t alone."""
        return self.fuse.current(*self.positions(spikes))


class ChannelMixing(nn.Module):
    """Channel block: up to `expansion` times the channels, fire, down again, fire; each token separately.

    Args:
        shape: `(H, W, C)` of the stage.
        config: the network.
        currents_summed: currents that add up at its last neuron.

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
        self.down = make_synapse(config, norm, "channel", hidden, shape, currents_summed=currents_summed)

    def forward(
        self, spikes: Tensor, shortcut: Tensor | None = None, keep_current: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Spikes `LIF(c + shortcut)`, and that current where it is kept; `[T, B, H, W, C]` each."""
        hidden, _ = self.up(spikes)  # [T, B, H, W, expansion C]
        return self.down(hidden, shortcut=shortcut, keep_current=keep_current)

    def current(self, spikes: Tensor) -> Tensor:
        """The current c alone."""
        return self.down.current(self.up(spikes)[0])


class Wiring(NamedTuple):
    """What the shortcut of a block adds, and where; every class of blocks states its own.

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
    """The wiring that a class of blocks itself states, or None: its parent's need not hold for it."""
    return vars(block).get("wiring")


class MixerBlock(nn.Module):
    r"""A block: token mixing, fire, channel mixing, fire; the shortcut is the stage's embedding.

    With the input spikes s, the stage's embedding h, and the currents t of the token mixing and c of the
    channel mixing:

    .. math::
        s' = \mathrm{LIF}(h + t), \qquad s'' = \mathrm{LIF}(h + t + c)

    Args:
        shape: `(H, W, C)` of the stage.
        config: the network.

    A subclass states its own `wiring`, because the parent's counts need not hold for it.

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
                f"{type(self).__name__} does not state its wiring, and that of its parent need not hold for"
                " it; give the class `wiring = Wiring(...)` (snnmlp_edu.model.mixing)"
            )
        self.token = TokenMixing(shape, config, currents_summed=wiring.token_currents)
        self.channel = ChannelMixing(shape, config, currents_summed=wiring.channel_currents)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes, and the current that the next block's shortcut carries; `[T, B, H, W, C]` each."""
        spikes, current = self.token(spikes, shortcut, keep_current=True)  # s' = LIF(h + t)
        spikes, _ = self.channel(spikes, current)  # s'' = LIF(h + t + c)
        return spikes, shortcut


class MembraneSkipBlock(MixerBlock):
    """The shortcut carries the sum of all currents of the stage so far: `m += t`, fire, `m += c`, fire."""

    wiring = Wiring(token_currents=2, channel_currents=2, additions=2)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes, and the sum of currents for the next block."""
        spikes, current = self.token(spikes, shortcut, keep_current=True)  # s' = LIF(m + t)
        return self.channel(spikes, current, keep_current=True)  # s'' = LIF(m + t + c)


class NormalisedSpikeSkipBlock(MixerBlock):
    """Spikes enter the shortcut through a batch norm: `LIF(BN(s) + t)`, `LIF(BN(s') + c)`."""

    wiring = Wiring(token_currents=2, channel_currents=2, additions=2)

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__(shape, config)
        self.token_skip_norm = BatchNorm("channel", shape[-1])
        self.channel_skip_norm = BatchNorm("channel", shape[-1])

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes; the embedding is passed on unused."""
        spikes, _ = self.token(spikes, self.token_skip_norm(spikes))  # s' = LIF(BN(s) + t)
        spikes, _ = self.channel(spikes, self.channel_skip_norm(spikes))  # s'' = LIF(BN(s') + c)
        return spikes, shortcut


class SpikeSkipBlock(MixerBlock):
    """Spikes are added after the neuron: `LIF(t) + s`, `LIF(c) + s'`; the sums are not binary."""

    wiring = Wiring(token_currents=1, channel_currents=1, additions=2, puts_out_spikes=False)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Integers that grow by up to 2 per block; the embedding is passed on unused."""
        spikes = self.token(spikes)[0] + spikes  # s' = LIF(t) + s
        spikes = self.channel(spikes)[0] + spikes  # s'' = LIF(c) + s'
        return spikes, shortcut


class NoSkipBlock(MixerBlock):
    """No shortcut: `LIF(t)`, `LIF(c)`."""

    wiring = Wiring(token_currents=1, channel_currents=1, additions=0)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes; the embedding is passed on unused."""
        spikes, _ = self.token(spikes)  # s' = LIF(t)
        spikes, _ = self.channel(spikes)  # s'' = LIF(c)
        return spikes, shortcut


class InnerSkipBlock(MixerBlock):
    r"""A shortcut inside the channel block: the current of its first map passes the neuron in between.

    With the map's current :math:`c = \mathrm{N}(W_1 s')`, N a normalisation:

    .. math::
        s' = \mathrm{LIF}(t), \qquad s'' = \mathrm{LIF}(\mathrm{N}(W_2\, \mathrm{LIF}(c)) + c)

    Both maps have one width, so the expansion is 1: compare it with `stage` at that expansion. The token
    block is no such pair of maps and has no shortcut here.

    Source: the authors' repository in July 2022, whose token block was such a pair too.
    """

    wiring = Wiring(token_currents=1, channel_currents=2, additions=1)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Output spikes; the embedding is passed on unused."""
        spikes, _ = self.token(spikes)  # s' = LIF(t)
        hidden, current = self.channel.up(spikes, keep_current=True)  # LIF(c), c = N(W1 s')
        spikes, _ = self.channel.down(hidden, shortcut=current)  # s'' = LIF(N(W2 LIF(c)) + c)
        return spikes, shortcut


class OuterSkipBlock(MixerBlock):
    r"""A shortcut around each part, which reads a layer norm of what comes in.

    With t and c as functions of what their part reads:

    .. math::
        s' = \mathrm{LIF}(t(\mathrm{LN}(s))) + s, \qquad s'' = \mathrm{LIF}(c(\mathrm{LN}(s'))) + s'

    The sums are not binary. The layer norm, over the channels of each token, does not fold, so the maps that
    read it multiply.

    Source: the authors' repository in July 2022, where there was an inner shortcut in each part as well.
    """

    wiring = Wiring(token_currents=1, channel_currents=1, additions=2, puts_out_spikes=False)

    def __init__(self, shape: tuple[int, int, int], config: NetworkConfig) -> None:
        super().__init__(shape, config)
        self.token_pre_norm = LayerNorm("token", shape)
        self.channel_pre_norm = LayerNorm("token", shape)

    def forward(self, spikes: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Integers that grow by up to 2 per block; the embedding is passed on unused."""
        spikes = self.token(self.token_pre_norm(spikes))[0] + spikes  # s' = LIF(t(LN(s))) + s
        spikes = self.channel(self.channel_pre_norm(spikes))[0] + spikes  # s'' = LIF(c(LN(s'))) + s'
        return spikes, shortcut


BLOCKS: dict[str, type[MixerBlock]] = {
    "stage": MixerBlock,
    "membrane": MembraneSkipBlock,
    "spike_bn": NormalisedSpikeSkipBlock,
    "spike": SpikeSkipBlock,
    "none": NoSkipBlock,
    "inner": InnerSkipBlock,
    "outer": OuterSkipBlock,
}
