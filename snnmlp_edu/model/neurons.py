r"""Leaky integrate-and-fire (LIF) neurons: one pure step, and a layer that runs all T steps at once.

.. math::
    u[t] = \beta\, v[t-1] + g\, x[t], \qquad s[t] = \operatorname{step}(u[t] - \theta), \qquad
    v[t] = \begin{cases} 0 \text{ where } s[t] = 1, \text{ else } u[t] & \text{hard reset} \\
                         u[t] - \theta\, s[t] & \text{soft reset} \end{cases}

with leak :math:`\beta`, input gain :math:`g`, threshold :math:`\theta`, input current :math:`x`, membrane
potential before the reset :math:`u` and after it :math:`v`. The reset is not differentiated.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, assert_never, get_args

import torch
from torch import Tensor, nn

from ..config import Backend, NetworkConfig, NeuronConfig
from ..errors import InputError
from .compiled import compiled_lif
from .scan import driven, scan_gradients, scan_steps
from .surrogates import last_derivative, spike, transformed


class LIFState(NamedTuple):
    """What a neuron carries from one step to the next: its membrane potential after the reset."""

    membrane: Tensor


# Whole numbers become fp32; 8-bit floats have no arithmetic.
_CURRENTS = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


def _check_current(current: Tensor) -> None:
    if not isinstance(current, Tensor) or current.layout != torch.strided or current.dtype not in _CURRENTS:
        kind = f"{current.layout} {current.dtype}" if isinstance(current, Tensor) else type(current).__name__
        raise InputError(f"the current is {kind}; LIF neurons take a dense tensor of real numbers")


def _check_steps(current: Tensor) -> None:
    _check_current(current)
    if current.ndim == 0 or current.shape[0] < 1:
        raise InputError(
            f"LIF got a current of shape {tuple(current.shape)}; the first axis must be time, T >= 1"
        )


def leaky_sum(membrane: Tensor, drive: Tensor, beta: float) -> Tensor:
    r"""The membrane potential :math:`\beta v + x`, without a product where beta is 0 or 1.

    >>> leaky_sum(torch.tensor([2.0]), torch.tensor([1.0]), 0.5)
    tensor([2.])
    """
    if beta == 0:
        return drive
    return (membrane if beta == 1 else beta * membrane) + drive


def _integrate(current: Tensor, state: LIFState | None, config: NeuronConfig) -> Tensor:
    drive = driven(current, config)
    return drive if state is None else leaky_sum(state.membrane, drive, config.beta)


def _fire(potential: Tensor, config: NeuronConfig) -> tuple[Tensor, LIFState]:
    spikes = spike(potential - config.threshold, config.surrogate, config.slope, config.inclusive)
    reset = torch.zeros_like(potential) if config.resets_to_zero else potential - config.threshold
    return spikes, LIFState(torch.where(spikes.detach().bool(), reset, potential))


def lif_step(current: Tensor, state: LIFState | None, config: NeuronConfig) -> tuple[Tensor, LIFState]:
    """One step of LIF neurons, as a pure function.

    Args:
        current: input current of any shape, one entry per neuron.
        state: the state that the last step returned; None at the start, where the membrane is 0.
        config: the neuron.

    Returns:
        The spikes, 0 or 1, in the shape and dtype of `current`, and the new state, whose membrane is in fp32
        at least.

    Raises:
        InputError: the current is no tensor of real numbers, or the state is none of its shape.

    Source: arXiv 2306.12465, section III-A; the equations are at the top of this file.

    >>> spikes, state = lif_step(torch.tensor([1.0, 3.0]), None, NeuronConfig())
    >>> spikes, state.membrane
    (tensor([0., 1.]), tensor([0.5000, 0.0000]))
    """
    _check_current(current)
    if state is not None and (not isinstance(state, LIFState) or state.membrane.shape != current.shape):
        kind = tuple(state.membrane.shape) if isinstance(state, LIFState) else type(state).__name__
        raise InputError(
            f"the state is {kind} and the current {tuple(current.shape)}; give the state that the last step"
            " returned, one membrane for each entry of the current, or None"
        )
    spikes, state = _fire(_integrate(current, state, config), config)
    return spikes.to(current.dtype), state


class LIFTrace(NamedTuple):
    """Spikes, and membrane potentials before the reset, in fp32 at least; each `[T, ...]`."""

    spikes: Tensor
    membrane: Tensor


def lif_trace(current: Tensor, config: NeuronConfig) -> LIFTrace:
    """All T steps with the membrane potential that each step compared with the threshold.

    Args:
        current: input current `[T, ...]`.
        config: the neuron.

    Raises:
        InputError: the current has no time axis, or is no tensor of real numbers.

    >>> lif_trace(torch.tensor([1.0, 1.0, 1.0]), NeuronConfig()).membrane
    tensor([0.5000, 0.7500, 0.8750])
    """
    _check_steps(current)
    spikes, potentials = zip(*_plain_steps(current, config), strict=True)
    return LIFTrace(torch.stack(spikes).to(current.dtype), torch.stack(potentials))


def _plain_steps(current: Tensor, config: NeuronConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Spikes and membrane potentials, step by step, in operations that every transform knows."""
    state = None
    for now in current:
        potential = _integrate(now, state, config)
        spikes, state = _fire(potential, config)
        yield spikes, potential


def _eager(current: Tensor, config: NeuronConfig) -> Tensor:
    if current.is_floating_point() and not _looked_into():
        if torch.is_grad_enabled() and current.requires_grad:
            return _Scan.apply(current, config)
        return torch.stack([fires for _, fires in scan_steps(current, config)]).to(current.dtype)
    return torch.stack([spikes for spikes, _ in _plain_steps(current, config)]).to(current.dtype)


class _Scan(torch.autograd.Function):
    """The loop over time with its backward pass written out: autograd would follow every operation of it."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, config: NeuronConfig) -> Tensor:
        distances, fired = zip(*scan_steps(current, config), strict=True)
        ctx.save_for_backward(*distances)
        ctx.config = config
        return torch.stack(fired).to(current.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        with torch.no_grad():
            found = torch.stack(scan_gradients(gradients[0], ctx.saved_tensors, ctx.config))
            if ctx.config.input_gain != 1:
                found *= ctx.config.input_gain
        return last_derivative(found.to(gradients[0].dtype), gradients[0]), None


def _snntorch(current: Tensor, config: NeuronConfig) -> Tensor:
    import snntorch

    neuron = snntorch.Leaky(
        beta=config.beta,
        threshold=config.threshold,
        spike_grad=lambda x: spike(x, config.surrogate, config.slope, inclusive=False),
        # snnTorch's soft reset subtracts after the leak, which is another model: ours is explicit below.
        reset_mechanism="zero" if config.resets_to_zero else "none",
    ).to(current.device)
    # snnTorch keeps every neuron ever made in a class list, and so its last state.
    snntorch.SpikingNeuron.instances.remove(neuron)
    steps = driven(current, config)
    membrane = torch.zeros_like(steps[0])
    spikes = []
    for now in steps:
        fired, membrane = neuron(now, membrane)
        if not config.resets_to_zero:
            membrane = membrane - config.threshold * fired.detach()
        spikes.append(fired)
    return torch.stack(spikes).to(current.dtype)


# A smaller layer takes less time than the compiler would; more steps, unrolled, keep it busy for minutes.
COMPILE_FROM = 2**15
COMPILE_STEPS = 32


def _repays(shape: Sequence[int], device: torch.device) -> bool:
    large = math.prod(shape) >= COMPILE_FROM and shape[0] <= COMPILE_STEPS
    return large and device.type != "meta"


def compiles(config: NeuronConfig, shape: Sequence[int], device: torch.device) -> bool:
    """Whether a layer would run such a current `[T, ...]` by its compiled scan, if a compiler works here."""
    name = backend_name(config)
    return name == "compiled" or (name == "auto" and _repays(shape, device))


_only_plain_steps: ContextVar[bool] = ContextVar("only_plain_steps", default=False)


@contextmanager
def plain_steps() -> Iterator[None]:
    """Inside, neurons run step by step in PyTorch's own operations, which every transform knows."""
    token = _only_plain_steps.set(True)
    try:
        yield
    finally:
        _only_plain_steps.reset(token)


def backend_name(config: NeuronConfig) -> str:
    """The backend in force here: the neuron's own, or what surrounds it asks for.

    Raises:
        InputError: the environment names a backend that does not exist.
    """
    if torch.compiler.is_compiling() or _only_plain_steps.get():
        return "eager"  # a larger compiled function takes the plain steps in
    name: str = config.backend
    if name == "auto":
        name = os.environ.get("SNNMLP_LIF_BACKEND", "auto")
        if name not in get_args(Backend):
            choices = ", ".join(get_args(Backend))
            raise InputError(f"SNNMLP_LIF_BACKEND is {name!r}; set it to one of {choices}, or unset it")
    return "eager" if name in ("auto", "compiled") and (transformed() or _watched()) else name


def _watched() -> bool:
    return torch._C._len_torch_dispatch_stack() > 0  # by a mode, which cannot see into a compiled loop


def for_scan(config: NeuronConfig) -> NeuronConfig:
    """The neuron as its compiled scan takes it: naming `compiled` where the environment does."""
    named = backend_name(config) == "compiled" != config.backend
    return dataclasses.replace(config, backend="compiled") if named else config


def _looked_into() -> bool:
    """Whether a compiler, a transform or a mode that watches wants the operations of the plain loop."""
    plain = torch.compiler.is_compiling() or _only_plain_steps.get() or transformed()
    return plain or _watched()


class LIF(nn.Module):
    """A layer of LIF neurons that runs all T steps and keeps nothing afterwards.

    Args:
        config: the neuron; the default is the one of the paper's released code.

    `forward(current)` takes input currents `[T, ...]` and returns spikes in the same shape and dtype,
    each 0 or 1. The membrane starts at 0 in every call and stays in fp32 when currents are half
    precision. There are no parameters and there is no state to reset.

    The backend `compiled` runs the scan over time as one compiled loop, `eager` as a Python loop, and
    `snntorch` as a loop over `snntorch.Leaky`, whose threshold is strict. They agree spike for spike but
    for currents that meet the threshold exactly. `auto` compiles layers that are large enough to repay it
    where a compiler works; the environment variable SNNMLP_LIF_BACKEND says otherwise.

    Raises:
        InputError: the current has no time axis or is no tensor of real numbers, or the backend asked for is
            not available.

    >>> LIF()(torch.ones(4, 1) * 1.5).flatten()
    tensor([0., 1., 0., 1.])
    """

    def __init__(self, config: NeuronConfig | None = None) -> None:
        super().__init__()
        self.config = NeuronConfig() if config is None else config
        if not isinstance(self.config, NeuronConfig):
            raise InputError(f"LIF got {config!r} as its config; give a NeuronConfig, or nothing")

    def forward(self, current: Tensor) -> Tensor:
        """Spikes `[T, ...]` for input currents `[T, ...]`."""
        _check_steps(current)
        match backend_name(self.config):
            case "snntorch":
                return _snntorch(current, self.config)
            case "compiled":
                return compiled_lif(current, for_scan(self.config))
            case "auto" if _repays(current.shape, current.device):
                return compiled_lif(current, self.config)
            case _:
                return _eager(current, self.config)

    def trace(self, current: Tensor) -> LIFTrace:
        """Spikes, and the membrane potentials `[T, ...]` that each step compared with the threshold."""
        return lif_trace(current, self.config)

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        c = self.config
        return f"beta={c.beta}, threshold={c.threshold}, input_gain={c.input_gain}, reset={c.reset}"


def make_activation(config: NetworkConfig) -> nn.Module:
    """The network's nonlinearity: `LIF`, or `ReLU` for the non-spiking twin."""
    match config.activation:
        case "lif":
            return LIF(config.neuron)
        case "relu":
            return nn.ReLU()
        case _:
            assert_never(config.activation)
