"""Where the fit of a Gabor function starts: guesses from a field's moments and spectrum.

A start is a row of x, y, orientation, log of both widths, and frequency; what is linear is solved for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORIENTATIONS = 4
DIRECTIONS = [math.pi * turn / ORIENTATIONS for turn in range(ORIENTATIONS)]


def starts_2d(data: Tensor) -> Tensor:
    """Starts `[N, S, 6]` for standardised fields `[N, H, W]`.

    Two centres (of gravity of the squared field, and its strongest place), three widths, and for each the
    two strongest waves of the spectrum around the centre and four orientations of a broad one.
    """
    height, width = data.shape[1:]
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    # The median is the background of a small field.
    energy = (data - data.flatten(1).median(1).values.view(-1, 1, 1)).square()
    energy = energy.square()  # what is weak and far away must not count
    energy = energy / energy.sum((1, 2), keepdim=True).clamp_min(1e-300)
    gravity = (energy.sum(1) @ columns, energy.sum(2) @ rows)
    peak = energy.flatten(1).argmax(1)
    peaked = ((peak % width).double(), (peak // width).double())
    spread = sum(
        (energy.sum(axis) * (places - middle.unsqueeze(1)).square()).sum(1)
        for axis, places, middle in ((1, columns, gravity[0]), (2, rows, gravity[1]))
    )
    sigma = (torch.as_tensor(spread)).sqrt().clamp(0.7, max(height, width) / 2)
    starts = []
    for x, y in (gravity, peaked):
        for factor in (0.6, 1.2, 2.4):
            size = factor * sigma
            waves = _waves(data, x, y, size, keep=2)
            waves += [(torch.full_like(x, angle), 0.2 / size) for angle in DIRECTIONS]
            for theta, frequency in waves:
                starts.append(torch.stack([x, y, theta, size.log(), size.log(), frequency], dim=1))
    return torch.stack(starts, dim=1)


def _waves(data: Tensor, x: Tensor, y: Tensor, sigma: Tensor, keep: int) -> list[tuple[Tensor, Tensor]]:
    """Orientation and frequency of the strongest waves within a Gaussian window, `[N]` each."""
    height, width = data.shape[1:]
    size = 2 * max(height, width)
    dx = torch.arange(width).double() - x.unsqueeze(1)
    dy = torch.arange(height).double() - y.unsqueeze(1)
    scale = (2 * (1.5 * sigma) ** 2).unsqueeze(1)
    window = torch.exp(-dy.square() / scale).unsqueeze(2) * torch.exp(-dx.square() / scale).unsqueeze(1)
    power = torch.fft.rfft2(data * window, s=(size, size)).abs()  # [N, size, size / 2 + 1]
    power[:, 0, 0] = 0
    strongest = power.flatten(1).topk(1 + 8 * (keep - 1), dim=1).indices[:, ::8]
    along_y, along_x = torch.fft.fftfreq(size).double(), torch.fft.rfftfreq(size).double()
    found = []
    for index in strongest.unbind(1):
        fy, fx = along_y[index // len(along_x)], along_x[index % len(along_x)]
        found.append((torch.atan2(fy, fx), torch.hypot(fx, fy).clamp(1 / size, 0.5)))
    return found


def starts_1d(data: Tensor) -> Tensor:
    """Starts `[N, S, 6]` for standardised lines `[N, 1, length]`: the same grid for all."""
    length = data.shape[2]
    x = torch.linspace(0, length - 1, 7).double()
    sigma = length * torch.tensor([0.06, 0.12, 0.24, 0.48]).double()
    frequency = torch.tensor([0.03, 0.08, 0.13, 0.19, 0.25, 0.32, 0.4, 0.47]).double()
    grid = torch.cartesian_prod(x, sigma.log(), frequency)
    zero = torch.zeros(len(grid)).double()
    rows = torch.stack([grid[:, 0], zero, zero, grid[:, 1], zero, grid[:, 2]], dim=1)
    return rows.expand(len(data), -1, -1)
