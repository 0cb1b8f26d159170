r"""The LIF neuron's loop over time, and its backward pass: all T steps of a layer.

.. math::
    u[t] = \beta\, v[t-1] + g\, x[t], \qquad q[t] = u[t] - \theta, \qquad s[t] = \operatorname{step}(q[t])

where :math:`v[t]` is 0 (hard reset) or :math:`q[t]` (soft) where a spike is, and :math:`u[t]` elsewhere.
Backward, with :math:`\bar s` the gradient that reaches the spikes and :math:`\varphi` the slope of the
surrogate,

.. math::
    \bar u[t] = \varphi(q[t])\, \bar s[t] + \kappa[t]\, \beta\, \bar u[t+1], \qquad
    \bar x[t] = g\, \bar u[t]

where :math:`\kappa[t]` is 1 without a spike, and with one 0 (hard reset) or 1 (soft). Both are plain
functions in PyTorch's operations. They run as they are, and `compiled` makes one loop of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..config import NeuronConfig
from .surrogates import surrogate_derivative


def driven(current: Tensor, config: NeuronConfig) -> Tensor:
    """What reaches the membrane, `g x`: in fp64 where the current is, in fp32 of any other."""
    current = current if current.dtype in (torch.float32, torch.float64) else current.float()
    # A folded neuron has its gain in the threshold: then nothing is left to multiply.
    return current if config.input_gain == 1 else config.input_gain * current


def _fires(distance: Tensor, config: NeuronConfig) -> Tensor:
    return distance >= 0 if config.inclusive else distance > 0


def scan_steps(current: Tensor, config: NeuronConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Step by step, the distances from the threshold before the reset, and which neurons fire.

    Args:
        current: input currents x, `[T, ...]`.
        config: the neuron.

    >>> [fires.tolist() for _, fires in scan_steps(torch.tensor([[1.0], [1.5]]), NeuronConfig())]
    [[False], [True]]
    """
    membrane: Tensor | None = None
    for now in driven(current, config).unbind():
        potential = now
        if membrane is not None:  # it may change in place: nobody else has seen it
            potential = (membrane if config.beta == 1 else membrane.mul_(config.beta)).add_(now)
        distance = potential - config.threshold
        fires = _fires(distance, config)
        yield distance, fires
        if config.beta != 0:
            membrane = torch.where(fires, 0.0 if config.resets_to_zero else distance, potential)


def scan_gradients(to_spikes: Tensor, distances: Sequence[Tensor], config: NeuronConfig) -> list[Tensor]:
    """Gradients at the membrane potentials, for each step; times the gain they are those at the currents.

    Args:
        to_spikes: gradient at the spikes, `[T, ...]`.
        distances: from the threshold, as `scan_steps` gives them.
        config: the neuron.

    >>> distances = [distance for distance, _ in scan_steps(torch.tensor([[1.0], [1.5]]), NeuronConfig())]
    >>> scan_gradients(torch.tensor([[0.0], [1.0]]), distances, NeuronConfig())
    [tensor([0.5000]), tensor([1.])]
    """
    to_potentials: list[Tensor] = []
    steps = to_spikes.to(distances[0].dtype).unbind()
    for to_spike, distance in zip(reversed(steps), reversed(distances), strict=True):
        to_potential = to_spike * surrogate_derivative(distance, config.surrogate, config.slope)
        if to_potentials and config.beta:
            later = to_potentials[-1]
            to_membrane = later if config.beta == 1 else config.beta * later
            if config.resets_to_zero:
                to_membrane = to_membrane.masked_fill(_fires(distance, config), 0)
            to_potential += to_membrane
        to_potentials.append(to_potential)
    return to_potentials[::-1]
