r"""Normalise, add the shortcut and fire, in one pass over memory where that is possible.

.. math::
    s = \mathrm{LIF}(\mathrm{BN}(x) + h)

Batch norm (BN) is a scale and a shift for each feature once its statistics are known, so the neuron's
compiled scan can apply them on the way. The statistics and their gradients stay PyTorch's own. What the
scan cannot take, other norms, neurons and backends, runs step by step with the same result;
`can_fuse` decides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import NeuronConfig
from .compiled import (
    backward_scan,
    backward_scan_with_current,
    find_scan,
    forward_scan,
    forward_scan_with_current,
    run_scan,
)
from .layout import Axis, sizes_around
from .linear import AxisLinear, mixed_precision
from .neurons import LIF, compiles, for_scan
from .normalisation import BatchNorm


def fire(
    linear: Any,
    norm: Any,
    neuron: Any,
    spikes: tuple[Tensor, ...],
    shortcut: Tensor | None = None,
    keep_current: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Spikes, and the current they come from, of `neuron(norm(linear(*spikes)) + shortcut)`.

    Args:
        linear: any map.
        norm: any normalisation.
        neuron: any activation.
        spikes: what the map takes, `[T, B, H, W, C]`, from one place or from several.
        shortcut: another current, `[T, B, H, W, C']`.
        keep_current: whether the current is wanted; if not, it takes no memory, and None is in its place.

    >>> layers = AxisLinear("channel", 3, 6), BatchNorm("channel", 6), LIF()
    >>> fire(*layers, (torch.ones(4, 2, 8, 8, 3),))[0].shape
    torch.Size([4, 2, 8, 8, 6])
    """
    if not (can_fuse(linear, norm, neuron, spikes[0]) and _joins(shortcut, linear, spikes[0])):
        return fire_unfused(linear, norm, neuron, spikes, shortcut, keep_current)
    x, bias, axis, config = linear.weigh(*spikes), linear.bias, linear.axis, for_scan(neuron.config)
    if torch.is_grad_enabled():
        weight, shift = norm.batch_norm.weight, norm.batch_norm.bias
        return _NormaliseAndFire.apply(x, weight, shift, bias, shortcut, norm, axis, config, keep_current)
    return _normalise_and_scan(x, bias, shortcut, norm, axis, config, keep_current)[0]


def fire_unfused(
    linear: nn.Module,
    norm: nn.Module,
    neuron: nn.Module,
    spikes: tuple[Tensor, ...],
    shortcut: Tensor | None,
    keep_current: bool,
) -> tuple[Tensor, Tensor | None]:
    """The same one step after the other, with every hook."""
    current = norm(linear(*spikes))
    current = current if shortcut is None else current + shortcut
    return neuron(current), current if keep_current else None


def can_fuse(linear: Any, norm: Any, neuron: Any, spikes: Tensor) -> bool:
    """Whether one scan can take map's bias, norm, shortcut and neuron, and no hook looks in between."""
    if type(linear) is not AxisLinear or type(neuron) is not LIF or has_hooks(linear, norm, neuron):
        return False
    if spikes.dtype not in (torch.float32, torch.float64) or mixed_precision(spikes):
        return False
    shape = linear.shape_of_current(spikes)
    if not compiles(neuron.config, shape, spikes.device):
        return False
    before, features, after = sizes_around(linear.axis, shape)
    # A graph for sizes from 2 on is not one for a size of 1.
    if before == shape[0] or features == 1 or (after == 1 and linear.axis != "channel"):
        return False
    if type(norm) is nn.Identity:  # folded, and so for inference
        return not torch.is_grad_enabled()
    if type(norm) is not BatchNorm or norm.axis != linear.axis:
        return False
    batch_norm = norm.batch_norm
    if type(batch_norm) is not nn.BatchNorm1d or has_hooks(batch_norm):
        return False
    usual = batch_norm.affine and batch_norm.track_running_stats and batch_norm.momentum is not None
    return usual and spikes.dtype == batch_norm.weight.dtype


def _joins(shortcut: Tensor | None, linear: AxisLinear, spikes: Tensor) -> bool:
    """Whether a shortcut is added entry by entry, without a change of shape or precision."""
    if shortcut is None:
        return True
    return shortcut.dtype == spikes.dtype and shortcut.shape == linear.shape_of_current(spikes)


def has_hooks(*modules: nn.Module) -> bool:
    """Whether hooks want to see what passes through these modules, so that nothing may be left out."""
    return torch.nn.modules.module._has_any_global_hook() or any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )


def _places(x: Tensor, axis: Axis) -> Tensor:
    """`[T, B, H, W, C]` as `[T, before, features, after]`, or `[T, before, features]` along channels."""
    steps = x.shape[0]
    before, features, after = sizes_around(axis, x.shape)
    places = (steps, before // steps, features)
    return x.reshape(places if axis == "channel" else (*places, after)).contiguous()


class _NormaliseAndFire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        shift: Tensor,
        bias: Tensor | None,
        shortcut: Tensor | None,
        norm: BatchNorm,
        axis: Axis,
        config: NeuronConfig,
        keep_current: bool,
    ) -> tuple[Tensor, Tensor | None]:
        results, statistics, inputs = _normalise_and_scan(x, bias, shortcut, norm, axis, config, keep_current)
        ctx.save_for_backward(weight, *statistics, *inputs)
        ctx.norm, ctx.config, ctx.shape, ctx.training = norm, config, x.shape, norm.batch_norm.training
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, mean, inverse_deviation, *inputs = ctx.saved_tensors
        norm, eps = ctx.norm, ctx.norm.batch_norm.eps
        to_spikes, to_kept = (None if g is None else _places(g, norm.axis) for g in gradients)
        if to_spikes is None:
            to_spikes = torch.zeros_like(inputs[0])
        if to_kept is None:
            to_current = run_scan(backward_scan, ctx.config, to_spikes, *inputs)
        else:
            to_current = run_scan(backward_scan_with_current, ctx.config, to_spikes, to_kept, *inputs)
        to_current, x = to_current.view(ctx.shape), inputs[0].view(ctx.shape)
        statistics = (None, None, mean, inverse_deviation)
        if not ctx.training:
            statistics = (mean, inverse_deviation.pow(-2) - eps, None, None)
        to_x, to_weight, to_shift = torch.ops.aten.native_batch_norm_backward(
            norm.flat(to_current), norm.flat(x), weight, *statistics, ctx.training, eps, [True] * 3
        )
        # The mean of the batch takes a constant away again, whatever it is.
        to_bias = torch.zeros_like(to_shift) if ctx.training else to_shift * weight * inverse_deviation
        found = (to_x.view(ctx.shape), to_weight, to_shift, to_bias, to_current, None, None, None, None)
        return tuple(g if needed else None for g, needed in zip(found, ctx.needs_input_grad, strict=True))


def _normalise_and_scan(
    x: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    norm: Any,
    axis: Axis,
    config: NeuronConfig,
    keep_current: bool,
) -> tuple[tuple[Tensor, Tensor | None], list[Tensor], list[Tensor]]:
    """Spikes and current of `norm(x + bias) + shortcut`, and what backward needs.

    That are the mean and the inverse standard deviation, and the inputs of the scan.
    """
    normalises = isinstance(norm, BatchNorm)
    vectors = 2 if normalises else int(bias is not None)
    rank = 3 if axis == "channel" else 4
    ranks = (rank, *[1] * vectors, *[rank] * (shortcut is not None))
    kind = forward_scan_with_current if keep_current else forward_scan
    scan = find_scan(kind, config, x, ranks)  # before the statistics learn
    statistics: list[Tensor] = []
    constants = [] if bias is None else [bias]
    if normalises:
        statistics = [*_statistics(norm, x, bias)]
        scale = norm.batch_norm.weight * statistics[1]
        constants = [scale, torch.addcmul(norm.batch_norm.bias, statistics[0], scale, value=-1)]
    inputs = [_places(x, axis), *constants]
    if shortcut is not None:
        inputs.append(_places(shortcut, axis))
    found = scan(*inputs)
    spikes, current = found if keep_current else (found, None)
    kept = None if current is None else current.view(x.shape)
    return (spikes.view(x.shape), kept), statistics, inputs


def _statistics(norm: BatchNorm, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean to take off x, and inverse standard deviation; the running statistics learn from `x + bias`."""
    batch_norm: Any = norm.batch_norm
    running_mean, running_var = batch_norm.running_mean, batch_norm.running_var
    if batch_norm.training:
        momentum = batch_norm.momentum
        mean, variance = torch.batch_norm_update_stats(norm.flat(x), running_mean, running_var, momentum)
        batch_norm.num_batches_tracked.add_(1)
        if bias is not None:
            running_mean.add_(bias, alpha=momentum)
    else:
        mean, variance = running_mean if bias is None else running_mean - bias, running_var
    return mean, torch.rsqrt(variance + batch_norm.eps)
