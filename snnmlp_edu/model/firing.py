r"""Normalise, add the shortcut and fire, in one pass over memory where that is possible.

.. math::
    s = \mathrm{LIF}(\mathrm{BN}(x) + h)

Batch norm (BN) is a scale and a shift for each feature once its statistics are known, so the neuron's
compiled scan can apply them on the way. The statistics and their gradients stay PyTorch's own. What the
scan cannot take, other norms, neurons and backends, goes one step after the other with the same result.
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
from .layout import Axis, spread_along, view_along
from .neurons import LIF, compiles, for_scan
from .normalisation import BatchNorm


def fire(
    neuron: nn.Module,
    norm: nn.Module,
    axis: Axis,
    x: Tensor,
    bias: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> Tensor:
    """Spikes of `neuron(norm(x + bias) + shortcut)`.

    Args:
        neuron: any activation.
        norm: any normalisation.
        axis: the axis that the map before wrote.
        x: current `[T, B, H, W, C]`.
        bias: one value for each feature along that axis.
        shortcut: another current `[T, B, H, W, C]`.

    >>> fire(LIF(), BatchNorm("channel", 3), "channel", torch.randn(4, 2, 8, 8, 3)).shape
    torch.Size([4, 2, 8, 8, 3])
    """
    return _fire(neuron, norm, axis, x, bias, shortcut, keep_current=False)[0]


def fire_and_keep(
    neuron: nn.Module, norm: nn.Module, axis: Axis, x: Tensor, bias: Tensor | None, shortcut: Tensor
) -> tuple[Tensor, Tensor]:
    """Spikes, and the current `norm(x + bias) + shortcut` that they come from."""
    return _fire(neuron, norm, axis, x, bias, shortcut, keep_current=True)


def fire_behind(
    module: nn.Module, neuron: nn.Module, spikes: tuple[Tensor, ...], shortcut: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Spikes and current of `neuron(module(*spikes) + shortcut)`, step by step, with every hook."""
    current = module(*spikes)
    current = current if shortcut is None else current + shortcut
    return neuron(current), current


def watched(*modules: nn.Module) -> bool:
    """Whether hooks want to see what passes through these modules, so that nothing may be left out."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_all = torch.nn.modules.module._has_any_global_hook()
    return of_all or any(getattr(module, kind) for module in modules for kind in kinds)


def mixed_precision(x: Tensor) -> bool:
    """Whether autocast is on for the device of x; the meta device has none."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def joins(neuron: nn.Module, norm: nn.Module, axis: Axis, x: Tensor) -> bool:
    """Whether the scan of this neuron can take this norm for such an x, and nobody looks in between."""
    precise = x.dtype in (torch.float32, torch.float64) and not mixed_precision(x)
    if type(neuron) is not LIF or not precise or not compiles(x, neuron.config) or watched(neuron, norm):
        return False
    if type(norm) is nn.Identity:  # folded, and so for inference
        return not torch.is_grad_enabled()
    if type(norm) is not BatchNorm or type(norm.batch_norm) is not nn.BatchNorm1d or norm.axis != axis:
        return False
    batch_norm = norm.batch_norm
    usual = batch_norm.affine and batch_norm.track_running_stats and batch_norm.momentum is not None
    return usual and x.dtype == batch_norm.weight.dtype and not watched(batch_norm)


def _fire(
    neuron: nn.Module,
    norm: nn.Module,
    axis: Axis,
    x: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    keep_current: bool,
) -> tuple[Tensor, Tensor]:
    # torch.compile would make one more graph for a size of 1.
    if joins(neuron, norm, axis, x) and 1 not in _places(x, axis).shape[1:]:
        config = for_scan(neuron.config)  # type: ignore[arg-type]  # joins: it is a LIF
        if not isinstance(norm, BatchNorm):
            return _scan(x, axis, [] if bias is None else [bias], shortcut, config, keep_current)[0]
        if not torch.is_grad_enabled():  # autograd's own work shows where layers are small
            return _normalise_and_scan(x, norm, bias, shortcut, config, keep_current)[0]
        weight, shift = norm.batch_norm.weight, norm.batch_norm.bias
        return _NormaliseAndFire.apply(x, weight, shift, bias, shortcut, norm, config, keep_current)
    if bias is not None:
        x = x + spread_along(bias, axis, x)
    current = norm(x) if shortcut is None else norm(x) + shortcut
    return neuron(current), current


def _places(x: Tensor, axis: Axis) -> Tensor:
    """View `[T, B, H, W, C]` as `[T, before, features, after]`, or `[T, before, features]` along channels."""
    flat = view_along(x, axis)
    seen = flat.view(x.shape[0], -1, *flat.shape[1:])
    return seen.squeeze(3) if axis == "channel" else seen


def _bare(tensor: Tensor) -> Tensor:
    return tensor.contiguous().data  # no view of anything: torch.compile specialises on what views are of


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
        config: NeuronConfig,
        keep_current: bool,
    ) -> tuple[Tensor, Tensor | None]:
        results, saved = _normalise_and_scan(x, norm, bias, shortcut, config, keep_current)
        ctx.save_for_backward(weight, *saved)
        ctx.norm, ctx.config, ctx.shape, ctx.training = norm, config, x.shape, norm.batch_norm.training
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, mean, inverse_deviation, *inputs = ctx.saved_tensors
        norm, eps = ctx.norm, ctx.norm.batch_norm.eps
        to_spikes, to_kept = (None if g is None else _bare(_places(g, norm.axis)) for g in gradients)
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
        found = (to_x.view(ctx.shape), to_weight, to_shift, to_bias, to_current, None, None, None)
        return tuple(g if needed else None for g, needed in zip(found, ctx.needs_input_grad, strict=True))


def _normalise_and_scan(
    x: Tensor,
    norm: BatchNorm,
    bias: Tensor | None,
    shortcut: Tensor | None,
    config: NeuronConfig,
    keep_current: bool,
) -> tuple[tuple[Tensor, Any], list[Tensor]]:
    """Spikes and current, and what backward needs: mean, inverse standard deviation, inputs of the scan."""
    batch_norm, rank = norm.batch_norm, 3 if norm.axis == "channel" else 4
    ranks = (rank, 1, 1) if shortcut is None else (rank, 1, 1, rank)
    scan = forward_scan_with_current if keep_current else forward_scan
    find_scan(scan, config, x.shape[0], ranks, x.dtype, x.device)  # before the statistics learn
    mean, inverse_deviation = _statistics(norm, x, bias)
    scale = batch_norm.weight * inverse_deviation
    shift = torch.addcmul(batch_norm.bias, mean, scale, value=-1)
    results, inputs = _scan(x, norm.axis, [scale, shift], shortcut, config, keep_current)
    return results, [mean, inverse_deviation, *inputs]


def _scan(
    x: Tensor,
    axis: Axis,
    constants: list[Tensor],
    shortcut: Tensor | None,
    config: NeuronConfig,
    keep_current: bool,
) -> tuple[tuple[Tensor, Any], list[Tensor]]:
    """Spikes and current of `x a + b + h`, with the scale a, the shift b, and the inputs of the scan."""
    # Bare also because torch.compile makes a graph for each parameter that it is given as one.
    inputs = [_bare(_places(x, axis)), *map(_bare, constants)]
    if shortcut is not None:
        inputs.append(_bare(_places(shortcut, axis)))
    if keep_current:
        spikes, current = run_scan(forward_scan_with_current, config, *inputs)
        return (spikes.view(x.shape), current.view(x.shape)), inputs
    return (run_scan(forward_scan, config, *inputs).view(x.shape), None), inputs


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
