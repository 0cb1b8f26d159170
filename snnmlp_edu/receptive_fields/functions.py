r"""The Gabor function and its derivatives, in the parameters that a fit works with.

With :math:`p = A \cos\psi` and :math:`q = -A \sin\psi` the function is linear in p, q and b:

.. math::
    G = \exp\Bigl(-\frac{x'^2}{2 \sigma_x^2} - \frac{y'^2}{2 \sigma_y^2}\Bigr)
        \bigl(p \cos(2 \pi f x') + q \sin(2 \pi f x')\bigr) + b
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

X, Y, THETA, LOG_SX, LOG_SY, F, COSINE, SINE, OFFSET = range(9)
FREE_2D = tuple(range(9))
FREE_1D = (X, LOG_SX, F, COSINE, SINE, OFFSET)


def evaluate(parameters: Tensor, shape: tuple[int, int], free: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Values `[N, H W]` for all nine parameters `[N, 9]`, and derivatives by the free ones `[N, P, H W]`."""
    rows, columns = torch.meshgrid(
        torch.arange(shape[0]).to(parameters), torch.arange(shape[1]).to(parameters), indexing="ij"
    )
    x0, y0, theta, log_sx, log_sy, f, cosine, sine, offset = parameters.unsqueeze(2).unbind(1)
    dx, dy = columns.flatten() - x0, rows.flatten() - y0
    along, across = dx * theta.cos() + dy * theta.sin(), dy * theta.cos() - dx * theta.sin()
    reach, breadth = (along * (-log_sx).exp()).square(), (across * (-log_sy).exp()).square()
    envelope = (-0.5 * (reach + breadth)).exp()
    wave = 2 * math.pi * f * along
    even, odd = envelope * wave.cos(), envelope * wave.sin()
    carried = cosine * even + sine * odd
    values = carried + offset
    if not free:
        return values, values.new_zeros(len(values), 0, values.shape[1])
    turned = sine * even - cosine * odd  # derivative of the wave by its argument
    by_along = 2 * math.pi * f * turned - carried * along * (-2 * log_sx).exp()
    by_across = -carried * across * (-2 * log_sy).exp()
    derivative = {
        X: lambda: by_across * theta.sin() - by_along * theta.cos(),
        Y: lambda: -by_along * theta.sin() - by_across * theta.cos(),
        THETA: lambda: by_along * across - by_across * along,
        LOG_SX: lambda: carried * reach,
        LOG_SY: lambda: carried * breadth,
        F: lambda: 2 * math.pi * along * turned,
        COSINE: lambda: even,
        SINE: lambda: odd,
        OFFSET: lambda: torch.ones_like(values),
    }
    return values, torch.stack([derivative[index]() for index in free], dim=1)
