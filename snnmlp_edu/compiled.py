r"""The LIF neuron's scan over time, compiled: one pass forward, one pass backward.

Both passes are plain functions over a flat current `[T, N]`, turned into one C++ loop (CPU) or one Triton
kernel (CUDA) by `torch.compile`. Backward keeps only the input current and computes the membrane again:
with :math:`\bar s` the gradient that reaches the spikes and :math:`\phi` the surrogate derivative,

.. math::
    \bar u[t] = \phi(u[t] - \theta)\, \bar s[t] + \bar v[t]\, \frac{\partial v[t]}{\partial u[t]}, \qquad
    \bar x[t] = g\, \bar u[t], \qquad \bar v[t-1] = \beta\, \bar u[t]

where :math:`\partial v / \partial u` is 0 or 1 under the hard reset and 1 under the soft one.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .config import NeuronConfig
from .surrogates import surrogate_derivative


def _membranes(current: Tensor, config: NeuronConfig) -> tuple[list[Tensor], list[Tensor]]:
    """Distance from threshold before the reset, and whether the neuron fires, for each step."""
    distances, fired = [], []
    wide = torch.float64 if current.dtype == torch.float64 else torch.float32
    membrane = torch.zeros_like(current[0], dtype=wide)
    for now in current.to(wide).unbind():
        # A folded neuron has its gain in the threshold: then only the leak is left.
        driven = now if config.input_gain == 1 else config.input_gain * now
        potential = config.beta * membrane + driven
        distance = potential - config.threshold
        fires = distance >= 0 if config.inclusive else distance > 0
        membrane = torch.where(fires, 0.0 if config.reset == "hard" else distance, potential)
        distances.append(distance)
        fired.append(fires)
    return distances, fired


def _forward_scan(current: Tensor, config: NeuronConfig) -> Tensor:
    _, fired = _membranes(current, config)
    # Cast before stacking: a stack of booleans compiles to a loop that is some 20 times slower.
    return torch.stack([spikes.to(current.dtype) for spikes in fired])


def _backward_scan(current: Tensor, to_spikes: Tensor, config: NeuronConfig) -> Tensor:
    distances, fired = _membranes(current, config)
    to_membrane = torch.zeros_like(distances[0])
    to_current = []
    for t in reversed(range(len(distances))):
        if config.reset == "hard":
            to_membrane = torch.where(fired[t], 0.0, to_membrane)
        slope = surrogate_derivative(distances[t], config.surrogate, config.slope)
        to_potential = slope * to_spikes[t] + to_membrane
        to_current.append(config.input_gain * to_potential)
        to_membrane = config.beta * to_potential
    return torch.stack(to_current[::-1]).to(current.dtype)


class CompilerMissing(Exception):
    """torch.compile does not work here; the message says why."""


@functools.cache
def _compile(
    scan: Callable[..., Tensor], steps: int, config: NeuronConfig, dtype: torch.dtype, device: torch.device
) -> Callable[..., Tensor] | CompilerMissing:
    """One graph for these steps, this neuron and dtype; what failed once is not tried again."""

    def bound(*tensors: Tensor) -> Tensor:
        return scan(*tensors, config)

    # torch.compile counts recompilations by code object: with one of its own, no graph uses up another's.
    code = bound.__code__.replace(co_name=f"{scan.__name__.strip('_')}_{steps}_steps")
    own = types.FunctionType(code, globals(), code.co_name, None, bound.__closure__)
    compiled = torch.compile(own, dynamic=True, fullgraph=True)
    inputs = 2 if scan is _backward_scan else 1
    try:
        _run(compiled, *(torch.zeros(steps, 64, dtype=dtype, device=device) for _ in range(inputs)))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if "error" in line.lower()), lines[0])
        return CompilerMissing(f"torch.compile fails on this machine ({reason})")
    return compiled


def _run(compiled: Callable[..., Tensor], *flat: Tensor) -> Tensor:
    # torch.compile specialises on gradient, inference and autocast modes: one mode, one graph.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(flat[0].device.type, enabled=False):
        return compiled(*(torch.from_dlpack(x) if x.is_inference() else x for x in flat))


def _flatten(tensor: Tensor) -> Tensor:
    """The same values as contiguous `[T, N]`, N at least 2, and no view of anything."""
    flat = tensor.reshape(tensor.shape[0], -1)
    # torch.compile specialises on a size of 1 (two neurons stand in for one) and on what a view is a view
    # of (`.data` is the same memory and no view).
    return (flat.repeat(1, 2) if flat.shape[1] == 1 else flat).contiguous().data


def _scan(scan: Callable[..., Tensor], config: NeuronConfig, *tensors: Tensor) -> Tensor:
    """Run a compiled scan on tensors `[T, ...]` of one shape."""
    shape = tensors[0].shape
    if shape.numel() == 0:
        return torch.empty_like(tensors[0])
    flat = [_flatten(tensor) for tensor in tensors]
    if torch._dynamo.config.disable:
        raise CompilerMissing("torch.compile is disabled by the environment")
    compiled = _compile(scan, shape[0], config, flat[0].dtype, flat[0].device)
    if isinstance(compiled, CompilerMissing):
        raise compiled
    return _run(compiled, *flat)[:, : shape[1:].numel()].reshape(shape)


class _CompiledLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, config: NeuronConfig) -> Tensor:
        ctx.save_for_backward(current)
        ctx.config = config
        return _scan(_forward_scan, config, current)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (current,) = ctx.saved_tensors
        return _scan(_backward_scan, ctx.config, current, gradients[0].to(current.dtype)), None


def compiled_lif(current: Tensor, config: NeuronConfig) -> Tensor:
    """Spikes `[T, ...]` for currents `[T, ...]`, by compiled scans.

    Raises:
        CompilerMissing: torch.compile does not work on this machine, or is disabled.
    """
    return _CompiledLIF.apply(current, config)
