"""The configurations: every variant of the neuron and of the network is a field here.

Both classes are frozen and check themselves when made, so a configuration that exists is valid.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never, get_args

from .errors import InputError

Reset = Literal["hard", "soft"]
SurrogateName = Literal["sigmoid", "atan", "fast_sigmoid", "triangle", "dspike"]
Backend = Literal["auto", "compiled", "eager", "snntorch"]
Activation = Literal["lif", "relu"]
ChannelNorm = Literal["bn", "bn_token", "ln", "tdbn", "tebn", "none"]
TokenNorm = Literal["bn", "ln", "tdbn", "tebn", "none"]
Skip = Literal["stage", "membrane", "spike_bn", "spike", "none"]
PatchEncoding = Literal["spiking", "conv"]
TokenMixingName = Literal["axial", "full", "none"]
HeadName = Literal["released", "figure"]


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to a misspelt one, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, and finite; true and false are none.

    >>> [is_number(value) for value in (1, 0.5, True, "1", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max


def _check_choice(owner: str, name: str, value: Any, choices: Any) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        hint = nearest(str(value), allowed)
        raise InputError(f"{owner}.{name} is {value!r}; choose one of {', '.join(allowed)}{hint}")


def _check_count(owner: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{owner}.{name} is {value!r}; it must be a whole number of at least 1")


def _check_number(owner: str, name: str, value: Any, positive: bool) -> None:
    if not is_number(value) or (positive and value <= 0):
        kind = "a finite number above 0" if positive else "a finite number"
        raise InputError(f"{owner}.{name} is {value!r}; it must be {kind}")


def _known_fields(cls: type, values: Mapping[str, Any]) -> None:
    names = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in names:
            hint = nearest(name, names)
            raise InputError(f"{cls.__name__} has no field {name!r}{hint} (fields: {', '.join(names)})")


@dataclass(frozen=True)
class NeuronConfig:
    r"""The leaky integrate-and-fire (LIF) neuron, in discrete time.

    .. math::
        u[t] = \beta\, v[t-1] + g\, x[t], \qquad s[t] = H(u[t] - \theta)

    with hard reset :math:`v[t] = 0` where :math:`s[t] = 1`, else :math:`u[t]`; or soft reset
    :math:`v[t] = u[t] - \theta\, s[t]`. The defaults are the neuron of the paper's released code.

    Args:
        beta: leak factor of the membrane a step, in [0, 1]; a power of two is a bit shift.
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

    beta: float = 0.5
    threshold: float = 1.0
    input_gain: float = 0.5
    reset: Reset = "hard"
    surrogate: SurrogateName = "sigmoid"
    slope: float | None = None
    inclusive: bool = True
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        owner = "NeuronConfig"
        _check_number(owner, "beta", self.beta, positive=False)
        if not 0 <= self.beta <= 1:
            raise InputError(f"{owner}.beta is {self.beta}; the leak factor must lie in [0, 1]")
        _check_number(owner, "threshold", self.threshold, positive=True)
        _check_number(owner, "input_gain", self.input_gain, positive=True)
        if self.slope is not None:
            _check_number(owner, "slope", self.slope, positive=True)
        if not isinstance(self.inclusive, bool):
            raise InputError(f"{owner}.inclusive is {self.inclusive!r}; it must be true or false")
        _check_choice(owner, "reset", self.reset, Reset)
        _check_choice(owner, "surrogate", self.surrogate, SurrogateName)
        _check_choice(owner, "backend", self.backend, Backend)

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
        skip: where the shortcut enters and leaves a block.
        patch_encoding: what stands between stages: a `spiking` graph of convolutions, or one `conv`.
        token_mixing: `axial` (rows and columns), `full` (all positions), or `none`.
        head: `released` (BN, mean, linear) or `figure` (BN, mean, LIF, linear).

    Raises:
        InputError: a field is out of range, or two fields do not fit each other.

    Source: arXiv 2306.12465, section III; the released code for the sizes.

    >>> NetworkConfig(dim=12, depths=(1, 1), image_size=16).widths
    (12, 24)
    """

    dim: int = 78
    depths: tuple[int, ...] = (2, 8, 14, 2)
    patch_size: int = 4
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000
    time_steps: int = 4
    expansion: int = 3
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    activation: Activation = "lif"
    channel_norm: ChannelNorm = "bn"
    token_norm: TokenNorm = "bn"
    skip: Skip = "stage"
    patch_encoding: PatchEncoding = "spiking"
    token_mixing: TokenMixingName = "axial"
    head: HeadName = "released"

    def __post_init__(self) -> None:
        owner = "NetworkConfig"
        if isinstance(self.depths, list):
            object.__setattr__(self, "depths", tuple(self.depths))
        if not isinstance(self.depths, tuple) or not self.depths:
            raise InputError(f"{owner}.depths is {self.depths!r}; give one number of blocks for each stage")
        for depth in self.depths:
            _check_count(owner, "depths", depth)
        counts = ("dim", "patch_size", "image_size", "in_channels", "num_classes", "time_steps", "expansion")
        for name in counts:
            _check_count(owner, name, getattr(self, name))
        if not isinstance(self.neuron, NeuronConfig):
            raise InputError(
                f"{owner}.neuron is {self.neuron!r}; it must be a NeuronConfig,"
                " or fields of one as in neuron.beta=0.8"
            )
        choices = {
            "activation": Activation,
            "channel_norm": ChannelNorm,
            "token_norm": TokenNorm,
            "skip": Skip,
            "patch_encoding": PatchEncoding,
            "token_mixing": TokenMixingName,
            "head": HeadName,
        }
        for name, allowed in choices.items():
            _check_choice(owner, name, getattr(self, name), allowed)
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

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.dim * 2**i for i in range(len(self.depths)))

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Tokens of each stage, `(H, W)`."""
        sides = [self.image_size // (self.patch_size * 2**i) for i in range(len(self.depths))]
        return tuple((side, side) for side in sides)

    def replace(self, /, **overrides: Any) -> NetworkConfig:
        """This configuration with some fields changed; `neuron` may be a mapping of changed fields.

        >>> NetworkConfig().replace(neuron={"beta": 0.25}).neuron.beta
        0.25
        """
        _known_fields(NetworkConfig, overrides)
        neuron = overrides.get("neuron")
        if isinstance(neuron, Mapping):
            _known_fields(NeuronConfig, neuron)
            overrides["neuron"] = dataclasses.replace(self.neuron, **neuron)
        return dataclasses.replace(self, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a checkpoint's JSON."""
        return dataclasses.asdict(self) | {"depths": list(self.depths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """The configuration that `to_dict` wrote; an unknown field is an error that names it."""
        return cls().replace(**values)
