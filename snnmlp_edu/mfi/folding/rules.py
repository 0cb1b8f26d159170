r"""The rules of folding: where each normalisation goes, by the class of the layer that holds it.

In evaluation mode batch norm is :math:`a\,y + d` with constants a and d.

| batch norm | goes into |
|---|---|
| after a linear map or convolution, on the axis that the map writes | the map's weights and bias |
| the same, times one factor for each step (TEBN) | one set of weights for each step |
| on another axis, but all that a LIF neuron gets | the neuron: thresholds and bias currents |
| of spikes, on a shortcut | two constants, one with a spike and one without |
| before the head's means and linear map | the head's weights |

On another axis it would take a copy of the weights for each scale, and layer norm takes its statistics from
each input: neither folds. The rules hold for any network that is built from these layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...config import NetworkConfig
from ...errors import InputError
from ...model.linear import AxisLinear
from ...model.mixing import (
    ChannelMixing,
    InnerSkipBlock,
    MixerBlock,
    NormalisedSpikeSkipBlock,
    OuterSkipBlock,
    PositionMixing,
    wiring_of,
)
from ...model.network import Head, SpikingNetwork
from ...model.neurons import LIF
from ...model.normalisation import BatchNorm, LayerNorm, TemporalBatchNorm, ThresholdBatchNorm
from ...model.patches import ConvNorm
from ...model.synapses import Synapse
from ..known import FOLDED_HEADS, STATISTICS, WIRINGS, lets_only_spikes_through
from .layers import (
    AxisLIF,
    ChannelAffine,
    FoldedFigureHead,
    FoldedHead,
    SelectedAffine,
    SteppedLinear,
    axis_linear,
    constant,
    without_gain,
)

Replacements = dict[str, nn.Module]  # by module path

_STATIC = (BatchNorm, ThresholdBatchNorm)  # the same constants at every step


@dataclass(frozen=True)
class NotFolded:
    """A normalisation that stays.

    Args:
        path: module path of the layer that holds it.
        axis: the axis that keeps statistics of its own, or `unknown`.
        reason: why it cannot fold.
    """

    path: str
    axis: str
    reason: str

    def __str__(self) -> str:
        statistics = f"it keeps statistics on the {self.axis} axis, and " if self.axis != "unknown" else ""
        return f"{self.path} does not fold: {statistics}{self.reason}"


def outcomes(network: nn.Module) -> Iterator[Replacements | NotFolded]:
    """For each layer what takes its place, or why its normalisation stays; what comes later goes first.

    Raises:
        InputError: a variance gives no finite scale, or a head is in no network with a configuration.
    """
    paths = dict(network.named_modules(remove_duplicate=False))
    for path, module in paths.items():
        if type(module) is LIF and module.config.input_gain != 1:
            yield {path: _neuron_without_gain(module)}
    # A block that is not known may add to any current within it.
    others = [p for p, m in paths.items() if isinstance(m, MixerBlock) and type(m) not in WIRINGS]
    sole_currents = {
        _below(path, synapse)
        for path, module in paths.items()
        if not any(f"{path}.".startswith(f"{other}.") for other in others)
        for synapse in _sole_currents(type(module))
    }
    sole_currents -= {_below(p, "channel.up") for p, m in paths.items() if isinstance(m, InnerSkipBlock)}
    config = getattr(network, "config", None)
    steps = config.time_steps if isinstance(config, NetworkConfig) else None
    spikes_only = lets_only_spikes_through(network)
    for path, module in paths.items():
        match module:
            case SpikingNetwork() if type(module.head) not in FOLDED_HEADS | {Head}:
                yield _unknown(_below(path, "head"), module.head, module.head)
            case Synapse() | ConvNorm() if type(module) not in (Synapse, ConvNorm):
                norm = getattr(module, "norm", None)
                if isinstance(norm, nn.Module) and type(norm) is not nn.Identity:
                    yield _unknown(path, norm, module)
            case Synapse():
                yield _fold_synapse(path, module, path in sole_currents)
            case ConvNorm():
                yield _fold_convolution(path, module)
            case NormalisedSpikeSkipBlock() if type(module) is NormalisedSpikeSkipBlock:
                yield {
                    _below(path, name): _fold_shortcut(_below(path, name), norm, spikes_only)
                    for name, norm in module.named_children()
                    if type(norm) is BatchNorm
                }
            case OuterSkipBlock():
                for name in ("token_pre_norm", "channel_pre_norm"):
                    norm = module.get_submodule(name)
                    yield _unknown(_below(path, name), norm, norm)
            case Head() if type(module) is Head:
                yield _fold_head(path, module, steps, spikes_only)


def _sole_currents(kind: type[nn.Module]) -> tuple[str, ...]:
    """Synapses of a class whose current is all that their neuron gets."""
    if kind is PositionMixing:
        return ("synapse",)
    if kind is ChannelMixing:
        return ("up",)
    wiring = wiring_of(kind) if kind in WIRINGS else None
    if wiring is None:
        return ()
    currents = {"token.fuse": wiring.token_currents, "channel.down": wiring.channel_currents}
    return tuple(synapse for synapse, count in currents.items() if count == 1)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _neuron_without_gain(neuron: LIF) -> LIF:
    twin = copy.deepcopy(neuron)
    twin.config = without_gain(neuron.config)
    return twin


def _constants(path: str, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale a and shift d of a batch norm in evaluation mode, in fp64."""
    bn = norm.batch_norm
    if type(bn) not in STATISTICS:
        raise InputError(
            f"{path} holds a {type(bn).__name__}, which fold_batch_norm does not know; extend"
            " snnmlp_edu/mfi/known.py"
        )
    if bn.running_mean is None or bn.running_var is None or bn.weight is None:
        raise InputError(
            f"{path} keeps no statistics, or has no scale and shift, so there is nothing to fold; give it"
            " track_running_stats=True and affine=True"
        )
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    if not scale.isfinite().all():
        raise InputError(f"{path} has a variance plus eps that is not above 0; train it, or give it an eps")
    shift = bn.bias.double()
    if isinstance(norm, ThresholdBatchNorm):
        scale = norm.scale * scale
    return scale, shift - scale * bn.running_mean.double()


def _merge(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `[out, ...]` and bias `[out]`, in fp64, of a map and the affine map of its output."""
    by_output = scale.view(-1, *(1 for _ in weight.shape[1:]))
    return by_output * weight.double(), shift if bias is None else scale * bias.double() + shift


def _unknown(path: str, norm: nn.Module, culprit: nn.Module) -> NotFolded:
    reason = (
        f"fold_batch_norm does not know {type(culprit).__name__} here; extend snnmlp_edu/mfi/folding/rules.py"
    )
    if isinstance(culprit, LayerNorm):
        reason = "layer norm takes them from each input, so no constant weight can replace it"
    return NotFolded(path, getattr(norm, "axis", "unknown"), reason)


def _off_axis(path: str, norm: BatchNorm) -> NotFolded:
    return NotFolded(
        path,
        norm.axis,
        f"its map shares its weights along that axis, so each of the {norm.batch_norm.num_features} scales"
        " would need a copy of them (no LIF neuron gets this current alone, to take them as thresholds)",
    )


def _fold_synapse(path: str, synapse: Synapse, sole_current: bool) -> Replacements | NotFolded:
    linear, norm, neuron = synapse.linear, synapse.norm, synapse.neuron
    without_norm: Replacements = {_below(path, "norm"): nn.Identity()}
    if type(norm) is nn.Identity:
        return {}
    if not isinstance(norm, BatchNorm) or type(norm) not in (*_STATIC, TemporalBatchNorm):
        return _unknown(path, norm, norm)
    if type(linear) is not AxisLinear:
        return _unknown(path, norm, linear)
    scale, shift = _constants(path, norm)
    dtype = linear.weight.dtype
    if norm.axis == linear.axis:
        weight, bias = _merge(linear.weight, linear.bias, scale, shift)
        folded: nn.Module = axis_linear(linear.axis, weight.to(dtype), bias.to(dtype))
        if isinstance(norm, TemporalBatchNorm):
            factors = norm.step_scale.double()
            weights, biases = factors.view(-1, 1, 1) * weight, factors.view(-1, 1) * bias
            folded = SteppedLinear(linear.axis, weights.to(dtype), biases.to(dtype))
        return {_below(path, "linear"): folded} | without_norm
    if sole_current and type(neuron) is LIF and type(norm) in _STATIC:
        absorbing = AxisLIF(neuron.config, norm.axis, scale.to(dtype), shift.to(dtype))
        return {_below(path, "neuron"): absorbing} | without_norm
    return _off_axis(path, norm)


def _fold_convolution(path: str, layer: ConvNorm) -> Replacements | NotFolded:
    conv, norm = layer.conv, layer.norm
    if type(norm) is nn.Identity:
        return {}
    if not isinstance(norm, BatchNorm) or type(norm) not in _STATIC:
        return _unknown(path, norm, norm)
    if type(conv) is not nn.Conv2d:
        return _unknown(path, norm, conv)
    if norm.axis != "channel":
        return _off_axis(path, norm)
    weight, bias = _merge(conv.weight, conv.bias, *_constants(path, norm))
    folded = copy.deepcopy(conv)
    folded.weight = constant(weight.to(conv.weight.dtype))
    folded.bias = constant(bias.to(conv.weight.dtype))
    return {_below(path, "conv"): folded, _below(path, "norm"): nn.Identity()}


def _affine(scale: Tensor, shift: Tensor, spikes_only: bool) -> nn.Module:
    return SelectedAffine(scale, shift) if spikes_only else ChannelAffine(scale, shift)


def _fold_shortcut(path: str, norm: BatchNorm, spikes_only: bool) -> nn.Module:
    scale, shift = _constants(path, norm)
    dtype = norm.batch_norm.weight.dtype
    return _affine(scale.to(dtype), shift.to(dtype), spikes_only)


def _fold_head(path: str, head: Head, steps: int | None, spikes_only: bool) -> Replacements | NotFolded:
    norm, neuron, last, (height, width) = head.norm, head.neuron, head.linear, head.grid
    weight, bias, dtype = last.weight.double(), last.bias.double(), last.weight.dtype
    if type(norm) is nn.Identity:
        scale, shift = torch.ones_like(weight[0]), torch.zeros_like(weight[0])
    elif isinstance(norm, BatchNorm) and type(norm) in _STATIC:
        scale, shift = _constants(path, norm)
    else:
        return _unknown(path, norm, norm)
    if steps is None or not path:
        raise InputError(
            "a head folds only within its network, whose config says over how many time steps it takes the"
            " mean; fold the whole network"
        )
    places = (steps, height, width)
    share = scale / (height * width)  # of one spike in the mean over the grid
    if type(neuron) is nn.Identity:
        per_spike, per_step = weight * share / steps, (weight @ shift + bias) / steps
        return {path: FoldedHead(per_spike.to(dtype), per_step.to(dtype), places)}
    affine = _affine(share.to(dtype), torch.zeros_like(share, dtype=dtype), spikes_only)
    folded = _neuron_without_gain(neuron) if type(neuron) is LIF else neuron
    constants = (shift.to(dtype), folded, (weight / steps).to(dtype), (bias / steps).to(dtype))
    return {path: FoldedFigureHead(affine, *constants, places)}
