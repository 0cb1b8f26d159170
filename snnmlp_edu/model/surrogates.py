r"""Surrogate gradients: what replaces the derivative of the spike's step function.

The spike :math:`s = \operatorname{step}(u - \theta)` has derivative zero almost everywhere, so training
through it replaces that derivative, in the backward pass only, by a bump :math:`\varphi` at the threshold.
With the distance :math:`q = u - \theta` and the parameter :math:`k` (`slope`):

| name | :math:`\varphi(q)` | default :math:`k` |
|---|---|---|
| `sigmoid` | :math:`(k/4)\,\mathrm{sech}^2(kq/2)`, the derivative of :math:`1 / (1 + e^{-kq})` | 4 |
| `atan` | :math:`(k/2) / (1 + (\pi k q / 2)^2)` | 2 |
| `fast_sigmoid` | :math:`1 / (1 + k|q|)^2` | 10 |
| `triangle` | :math:`\max(0, k - |q|) / k^2`, which ends at a distance k | 1 |
| `dspike` | :math:`k / (2\tanh(k/2))\,\mathrm{sech}^2(kq)` for :math:`|q| \le 1/2`, else 0 | 3 |

Sources: sigmoid and atan as in arXiv 2007.05785; fast sigmoid, doi 10.1162/neco_a_01086; triangle,
arXiv 1803.09574; Dspike, Li et al., NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import InputError


def transformed() -> bool:
    """Whether vmap, grad, jvp and their like, or forward-mode derivatives, are at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _sigmoid(x: Tensor, slope: float) -> Tensor:
    s = torch.sigmoid(slope * x)
    return slope * s * (1 - s)


def _atan(x: Tensor, slope: float) -> Tensor:
    return (slope / 2) / (1 + (math.pi / 2 * slope * x) ** 2)


def _fast_sigmoid(x: Tensor, slope: float) -> Tensor:
    return 1 / (1 + slope * x.abs()) ** 2


def _triangle(x: Tensor, slope: float) -> Tensor:
    return (slope - x.abs()).clamp(min=0) / slope**2


def _dspike(x: Tensor, slope: float) -> Tensor:
    # 1 - tanh^2 is sech^2 without the overflow of cosh.
    height = slope / (2 * math.tanh(slope / 2))
    return torch.where(x.abs() <= 0.5, height * (1 - torch.tanh(slope * x) ** 2), 0.0)


class Surrogate(NamedTuple):
    """A surrogate derivative `derivative(x, slope)` and the slope used when none is given."""

    derivative: Callable[[Tensor, float], Tensor]
    default_slope: float


SURROGATES: dict[str, Surrogate] = {
    "sigmoid": Surrogate(_sigmoid, 4.0),
    "atan": Surrogate(_atan, 2.0),
    "fast_sigmoid": Surrogate(_fast_sigmoid, 10.0),
    "triangle": Surrogate(_triangle, 1.0),
    "dspike": Surrogate(_dspike, 3.0),
}


def surrogate_derivative(x: Tensor, surrogate: str = "sigmoid", slope: float | None = None) -> Tensor:
    """Surrogate derivative at the distance from threshold `x = u - theta`, of any shape.

    >>> surrogate_derivative(torch.tensor([0.0]), "sigmoid")
    tensor([1.])
    """
    derivative, default_slope = SURROGATES[surrogate]
    return derivative(x, default_slope if slope is None else slope)


def _refuse(ctx: Any, *gradients: Tensor) -> Any:
    raise InputError("a spike has no second derivative; take first derivatives of spikes alone")


class _Slope(torch.autograd.Function):
    """The surrogate derivative where it may not be differentiated itself, in whatever mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, derivative: Callable[[Tensor, float], Tensor], slope: float) -> Tensor:
        return derivative(x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    backward = jvp = staticmethod(_refuse)


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, gradient: Tensor) -> Tensor:
        return found.clone()

    backward = staticmethod(_refuse)


def last_derivative(found: Tensor, gradient: Tensor) -> Tensor:
    """What a backward pass found for a gradient; who asks for a derivative of it learns that there is none.

    Raises:
        InputError: later, when the second derivative is asked for.
    """
    return _Last.apply(found, gradient) if torch.is_grad_enabled() else found


def _step(x: Tensor, inclusive: bool) -> Tensor:
    return (x >= 0 if inclusive else x > 0).to(x.dtype)


class _Spike(torch.autograd.Function):
    """The step and its derivatives for every transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, derivative: Callable[[Tensor, float], Tensor], slope: float, inclusive: bool
    ) -> Tensor:
        return _step(x, inclusive)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.derivative, ctx.slope, _ = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * _Slope.apply(x, ctx.derivative, ctx.slope), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangents[0] * _Slope.apply(x, ctx.derivative, ctx.slope)


class _PlainSpike(torch.autograd.Function):
    """The same where nothing transforms it.

    PyTorch takes apart the signature of a function with a `setup_context` whenever it is called, which would
    take a small layer a quarter of its time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, derivative: Callable[[Tensor, float], Tensor], slope: float, inclusive: bool
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative, ctx.slope = derivative, slope
        return _step(x, inclusive)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        # Gradients are on here only for who asks for a second derivative.
        slopes = _Slope.apply if torch.is_grad_enabled() else _Slope.forward
        return gradients[0] * slopes(x, ctx.derivative, ctx.slope), None, None, None


class _TracedSpike(torch.autograd.Function):
    """The same as torch.compile takes it: without forward-mode derivatives and functions in functions.

    It is given the derivative's values, because in a traced backward pass no number may be looked up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor, inclusive: bool) -> Tensor:
        ctx.save_for_backward(slopes)
        return _step(x, inclusive)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradients[0] * slopes, None, None


def spike(
    x: Tensor, surrogate: str = "sigmoid", slope: float | None = None, inclusive: bool = True
) -> Tensor:
    r"""Fire where the membrane reaches the threshold: :math:`\operatorname{step}(x)`, :math:`x = u - \theta`.

    Forward is the exact step, `>=` or, with `inclusive=False`, `>`. Backward multiplies by the
    surrogate derivative, and so do forward-mode derivatives.

    Raises:
        InputError: a second derivative is asked for, which does not exist.

    >>> spike(torch.tensor([-0.1, 0.0, 0.1]))
    tensor([0., 1., 1.])
    """
    derivative, default_slope = SURROGATES[surrogate]
    # As a float of its own: torch.compile(dynamic=True) cannot hand the same looked-up number to two spikes.
    slope = float(default_slope if slope is None else slope)
    if torch.compiler.is_compiling():
        return _TracedSpike.apply(x, derivative(x.detach(), slope), inclusive)
    if transformed():
        return _Spike.apply(x, derivative, slope, inclusive)
    if torch.is_grad_enabled() and x.requires_grad:
        return _PlainSpike.apply(x, derivative, slope, inclusive)
    return _step(x, inclusive)
