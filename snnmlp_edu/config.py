"""The configurations: every variant of the neuron and of the network is a field here.

Both classes are frozen and check themselves when made, so a configuration that exists is valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, assert_never

from .errors import InputError
from .fields import POSITIVE, PROBABILITY, Rule, check_fields, from_mapping, require_known, whole

Reset = Literal["hard", "soft"]
SurrogateName = Literal["sigmoid", "atan", "fast_sigmoid", "triangle", "dspike"]
Backend = Literal["auto", "compiled", "eager", "snntorch"]
Activation = Literal["lif", "relu"]
ChannelNorm = Literal["bn", "bn_token", "ln", "tdbn", "tebn", "none"]
TokenNorm = Literal["bn", "ln", "tdbn", "tebn", "none"]
Skip = Literal["stage", "membrane", "spike_bn", "spike", "none", "inner", "outer"]
PatchEncoding = Literal["spiking", "conv", "conv3"]
TokenMixingName = Literal["axial", "full", "none"]
HeadName = Literal["released", "figure"]


# Rules with a highest value refuse in one line what no machine holds or finishes.
TimeSteps = Annotated[int, whole(1, 1_000)]
Side = Annotated[int, whole(1, 10_000)]  # of images and their parts, in pixels
Channels = Annotated[int, whole(1, 1_000)]  # of images
MOST_STAGES = 10
MOST_WEIGHTS = 10**11  # 400 GB in single precision
Depths = Annotated[
    tuple[Annotated[int, whole(1, 1_000)], ...],
    Rule(
        lambda depths: len(depths) <= MOST_STAGES,
        f"a whole number of blocks, from 1 to 1,000, for each of 1 to {MOST_STAGES} stages",
    ),
]


@dataclass(frozen=True)
class NeuronConfig:
    r"""The leaky integrate-and-fire (LIF) neuron, in discrete time.

    .. math::
        u[t] = \beta\, v[t-1] + g\, x[t], \qquad s[t] = \operatorname{step}(u[t] - \theta)

    with hard reset :math:`v[t] = 0` where :math:`s[t] = 1`, else :math:`u[t]`; or soft reset
    :math:`v[t] = u[t] - \theta\, s[t]`. The defaults are the neuron of the paper's released code.

    Args:
        beta: leak factor of the membrane per step, in [0, 1]; a power of two is a bit shift.
        threshold: membrane potential at which the neuron fires, above 0.
        input_gain: factor g on the input current, above 0.
        reset: `hard` (to zero) or `soft` (subtract the threshold).
        surrogate: name of the surrogate gradient (`snnmlp_edu.model.surrogates`).
        slope: parameter of the surrogate; None takes its default.
        inclusive: fire at `u >= threshold`; False fires at `u > threshold`, as snnTorch does.
        backend: how all T steps are computed; `auto` takes the fastest that works.

    Raises:
        InputError: a field is out of range or of the wrong kind.

    >>> NeuronConfig().beta
    0.5
    """

    beta: Annotated[float, PROBABILITY] = 0.5
    threshold: Annotated[float, POSITIVE] = 1.0
    input_gain: Annotated[float, POSITIVE] = 0.5
    reset: Reset = "hard"
    surrogate: SurrogateName = "sigmoid"
    slope: Annotated[float, POSITIVE] | None = None
    inclusive: bool = True
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def resets_to_zero(self) -> bool:
        """Whether a spike sets the membrane to 0; else it takes the threshold off."""
        match self.reset:
            case "hard":
                return True
            case "soft":
                return False
            case _:
                assert_never(self.reset)

    @classmethod
    def early_2022(cls) -> NeuronConfig:
        """The neuron of the authors' experiments in mid-2022 (gain and reset are not certain)."""
        return cls(beta=0.8, threshold=0.5, input_gain=1.0, surrogate="dspike", slope=3.0)


@dataclass(frozen=True)
class NetworkConfig:
    """A spiking MLP: its sizes, and one field for each thing that can be varied.

    Stage `i` has width `dim * 2**i` and a grid of `image_size / (patch_size * 2**i)` tokens a side.

    Args:
        dim: channels of the first stage.
        depths: number of mixer blocks in each stage.
        patch_size: side of the stem's patches, in pixels.
        image_size: side of the square input images, in pixels.
        in_channels: channels of the input images.
        num_classes: number of logits.
        time_steps: T, how often the image is presented.
        expansion: hidden channels of the channel block, as a multiple of its width.
        neuron: the LIF neuron, used everywhere.
        activation: `lif`, or `relu` for the non-spiking twin.
        channel_norm: normalisation in the channel block (`bn_token` is the released code's).
        token_norm: normalisation in the token block.
        skip: where the shortcut enters and leaves a block; `inner` needs an expansion of 1.
        patch_encoding: what is between stages: a `spiking` graph of convolutions; one `conv` of 2 x 2; or one
            of 3 x 3 (`conv3`), which is the graph without the maps between its nodes.
        token_mixing: `axial` (rows and columns), `full` (all positions), or `none`.
        head: `released` (BN, mean, linear) or `figure` (BN, mean, LIF, linear).

    Raises:
        InputError: a field is out of range, or two fields do not fit each other.

    Source: arXiv 2306.12465, section III; the released code for the sizes.

    >>> NetworkConfig(dim=12, depths=(1, 1), image_size=16).widths
    (12, 24)
    """

    dim: Annotated[int, whole(1, 100_000)] = 78
    depths: Depths = (2, 8, 14, 2)
    patch_size: Side = 4
    image_size: Side = 224
    in_channels: Channels = 3
    num_classes: Annotated[int, whole(1, 10_000_000)] = 1000
    time_steps: TimeSteps = 4
    expansion: Annotated[int, whole(1, 1_000)] = 3
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    activation: Activation = "lif"
    channel_norm: ChannelNorm = "bn"
    token_norm: TokenNorm = "bn"
    skip: Skip = "stage"
    patch_encoding: PatchEncoding = "spiking"
    token_mixing: TokenMixingName = "axial"
    head: HeadName = "released"

    def __post_init__(self) -> None:
        check_fields(self)
        owner = type(self).__name__
        coarsest = self.patch_size * 2 ** (len(self.depths) - 1)
        if self.image_size % coarsest:
            fitting = max(1, round(self.image_size / coarsest)) * coarsest
            raise InputError(
                f"{owner}.image_size is {self.image_size}; it must be divisible by"
                f" patch_size * 2**(stages - 1) = {coarsest}, so take {fitting}"
            )
        if self.patch_encoding == "spiking" and len(self.depths) > 1 and self.dim % 3:
            raise InputError(
                f"{owner}.dim is {self.dim}; spiking patch encoding splits the width into 3 equal parts,"
                f" so take {max(1, round(self.dim / 3)) * 3}, or patch_encoding='conv'"
            )
        if self.skip == "inner" and self.expansion != 1:
            raise InputError(
                f"{owner}.expansion is {self.expansion}; skip='inner' adds the current of the channel block's"
                " first map to that of its second, so both have one width: take expansion=1, or another skip"
            )
        if self._fewest_weights() > MOST_WEIGHTS:
            raise InputError(
                f"{owner}.dim is {self.dim}, and with depths {self.depths}, expansion {self.expansion},"
                f" num_classes {self.num_classes} and {self.grids[0][0]} tokens per side the network has more"
                f" than {MOST_WEIGHTS:,} weights, which no machine holds; take smaller ones"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.dim * 2**i for i in range(len(self.depths)))

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Tokens of each stage, `(H, W)`."""
        sides = [self.image_size // (self.patch_size * 2**i) for i in range(len(self.depths))]
        return tuple((side, side) for side in sides)

    def _fewest_weights(self) -> int:
        """Weights of stem, channel blocks, mixing of all positions, and head: nearly all of a network's."""
        blocks = sum(
            depth * (2 * self.expansion * width**2 + (side**4 if self.token_mixing == "full" else 0))
            for depth, width, (side, _) in zip(self.depths, self.widths, self.grids, strict=True)
        )
        stem = self.in_channels * self.patch_size**2 * self.dim
        return stem + blocks + self.widths[-1] * self.num_classes

    def replace(self, /, **overrides: Any) -> NetworkConfig:
        """This configuration with some fields changed; `neuron` may be a mapping of changed fields.

        >>> NetworkConfig().replace(neuron={"beta": 0.25}).neuron.beta
        0.25
        """
        require_known(type(self).__name__, overrides, [f.name for f in dataclasses.fields(self)])
        neuron = overrides.get("neuron")
        if isinstance(neuron, Mapping):
            overrides["neuron"] = from_mapping(NeuronConfig, {**dataclasses.asdict(self.neuron), **neuron})
        return dataclasses.replace(self, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written in a checkpoint's JSON."""
        return dataclasses.asdict(self) | {"depths": list(self.depths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """The configuration that `to_dict` wrote; an unknown field is an error that names it."""
        return from_mapping(cls, values)
