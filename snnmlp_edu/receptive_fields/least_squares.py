"""Thousands of small least-squares problems at once: Levenberg-Marquardt, batched, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (parameters [N, P], which problems [N]) -> values [N, M] and their derivatives [N, P, M]
Model = Callable[[Tensor], tuple[Tensor, Tensor]]

EASIEST, HARDEST = 1e-9, 1e9  # limits of the damping
TINY = 1e-12  # added to the curvature, so that a parameter without effect can be solved for


def levenberg_marquardt(
    model: Model, start: Tensor, data: Tensor, low: Tensor, high: Tensor, steps: int, tolerance: float = 1e-7
) -> tuple[Tensor, Tensor]:
    """Minimise the sum of squares of `model(parameters) - data`, for each of N problems separately.

    A step solves the normal equations with a damped diagonal. A step that lowers the sum is taken and
    damping falls; else it grows. A problem is left alone once a step gains next to nothing, once nothing is
    left to gain, or once no step gains.

    Args:
        model: gives values `[N, M]` and derivatives `[N, P, M]` for parameters `[N, P]`.
        start: parameters to start from, `[N, P]`.
        data: what is to be fitted, `[N, M]`.
        low: smallest value of each parameter, `[P]` or `[N, P]`.
        high: largest value, likewise.
        steps: largest number of steps.
        tolerance: gain of a step, as a part of the sum, below which a problem is finished; and its square,
            as a part of the data's sum of squares, what counts as nothing left.

    Returns:
        Parameters `[N, P]` and sums of squares `[N]`, which are never above those of the start.

    Source: Marquardt 1963, doi 10.1137/0111030.
    """
    best = start.clamp(low, high)
    cost, curvature, slope = _normal_equations(model, best, data)
    nothing = tolerance**2 * data.square().sum(1)
    damping = torch.full_like(cost, 1e-2)
    active = torch.arange(len(best))
    for _ in range(steps):
        if len(active) == 0:
            break
        now, before = best[active], cost[active]
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        floor = TINY * diagonal.amax(1, keepdim=True).clamp_min(TINY)
        damped = curvature + torch.diag_embed(damping[active].unsqueeze(1) * diagonal + floor)
        step, failed = torch.linalg.solve_ex(damped, slope)
        step = torch.where((failed == 0).view(-1, 1), step.squeeze(2), 0.0)
        tried = (now - step).clamp(low, high)
        new_cost, new_curvature, new_slope = _normal_equations(model, tried, data)
        better = new_cost < before  # False for NaN too
        gain = torch.where(better, before - new_cost, 0.0)
        small = (gain <= tolerance * before) | (new_cost <= nothing)
        best[active] = torch.where(better.unsqueeze(1), tried, now)
        cost[active] = torch.where(better, new_cost, before)
        damping[active] = torch.where(better, damping[active] / 5, damping[active] * 4).clamp_min(EASIEST)
        choose = better.view(-1, 1, 1)
        curvature = torch.where(choose, new_curvature, curvature)
        slope = torch.where(choose, new_slope, slope)
        done = (better & small) | (damping[active] > HARDEST)
        if done.any():
            left = ~done
            active, data, nothing = active[left], data[left], nothing[left]
            curvature, slope = curvature[left], slope[left]
    return best, cost


def _normal_equations(model: Model, parameters: Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of squares `[N]`, and both sides of the normal equations, `[N, P, P]` and `[N, P, 1]`."""
    values, derivatives = model(parameters)
    residual = values - data
    return residual.square().sum(1), derivatives @ derivatives.mT, derivatives @ residual.unsqueeze(2)
