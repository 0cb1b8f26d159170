r"""Gabor functions and their fits, in two dimensions and in one.

.. math::
    G(x, y) = A \exp\Bigl(-\frac{x'^2}{2 \sigma_x^2} - \frac{y'^2}{2 \sigma_y^2}\Bigr)
        \cos(2 \pi f x' + \psi) + b

where :math:`x'` runs along the wave and :math:`y'` across it, from the centre: the pixel's distance from the
centre, turned by the orientation. x counts columns, y rows downwards, from the middle of the first pixel. In
one dimension y, the orientation and :math:`\sigma_y` are absent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import InputError
from .functions import COSINE, FREE_1D, FREE_2D, OFFSET, SINE, evaluate
from .least_squares import levenberg_marquardt
from .starts import starts_1d, starts_2d

SHORTEST_LINE, SMALLEST_SIDE = 16, 8
HIGHEST_FREQUENCY = 0.75  # a little beyond what the diagonal of a pixel grid can carry
CHUNK = 2**16  # values of a model computed together: they stay in the processor's cache
SHORT, LONG = 8, 60  # steps from every start, and from the best of them


@dataclass(frozen=True)
class GaborFits:
    """The best Gabor function for each of N fields; every entry is fp64 `[N]`.

    Args:
        x: column of the centre.
        y: row of the centre; 0 for lines.
        orientation: direction of the wave, in [0, pi), 0 along the columns' axis; 0 for lines.
        sigma_x: width of the envelope along the wave, in pixels.
        sigma_y: width across it; NaN for lines.
        frequency: of the wave, in periods per pixel.
        phase: at the centre, in (-pi, pi]; 0 is even, +-pi/2 is odd symmetric.
        amplitude: A, not negative.
        offset: b.
        unexplained: the part of the field's variance that is left over, 0 to 1; NaN where there is none.
        shape: `(H, W)` of the fields; `(1, length)` for lines.
    """

    x: Tensor
    y: Tensor
    orientation: Tensor
    sigma_x: Tensor
    sigma_y: Tensor
    frequency: Tensor
    phase: Tensor
    amplitude: Tensor
    offset: Tensor
    unexplained: Tensor
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: Tensor) -> GaborFits:
        """Some of the fits: by a boolean mask, or by indices."""
        chosen = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "shape"}
        return GaborFits(**chosen, shape=self.shape)

    @property
    def nx(self) -> Tensor:
        """Periods of the wave within one width of the envelope along it, `sigma_x * frequency`."""
        return self.sigma_x * self.frequency

    @property
    def ny(self) -> Tensor:
        """Length across the wave in periods, `sigma_y * frequency`."""
        return self.sigma_y * self.frequency

    def predicted(self) -> Tensor:
        """The fitted functions on the pixel grid, `[N, H, W]`."""
        values = gabor(
            self.x,
            self.y,
            self.orientation,
            self.sigma_x,
            self.sigma_y.nan_to_num(1.0),
            self.frequency,
            self.phase,
            self.amplitude,
            self.offset,
            shape=self.shape,
        )
        return values


def gabor(
    x: Tensor,
    y: Tensor,
    orientation: Tensor,
    sigma_x: Tensor,
    sigma_y: Tensor,
    frequency: Tensor,
    phase: Tensor,
    amplitude: Tensor,
    offset: Tensor,
    *,
    shape: tuple[int, int],
) -> Tensor:
    """Gabor functions on a grid of pixels, `[N, H, W]`; arguments as in `GaborFits`, `[N]` each."""
    columns = [x, y, orientation, sigma_x.log(), sigma_y.log(), frequency]
    columns += [amplitude * phase.cos(), -amplitude * phase.sin(), offset]
    values, _ = evaluate(torch.stack([column.double() for column in columns], dim=1), shape, ())
    return values.unflatten(1, shape)


def fit_gabors(maps: Tensor) -> GaborFits:
    """Fit a Gabor function to each of many two-dimensional fields.

    Starts are drawn from each field's own moments and spectrum, and the best of them is followed to the
    end. Compare `unexplained` with that of controls: nine parameters fit much.

    Args:
        maps: `[N, H, W]`, at least 8 x 8, floating point and finite.

    Raises:
        InputError: another shape, fields that are too small, or values that are not finite.

    >>> one = torch.tensor([1.0])
    >>> field = gabor(7 * one, 8 * one, one, 2 * one, 3 * one, 0.2 * one, one, one, 0 * one, shape=(16, 16))
    >>> fits = fit_gabors(field)
    >>> round(fits.frequency.item(), 4), round(fits.ny.item(), 4)
    (0.2, 0.6)
    """
    if maps.ndim != 3:
        raise InputError(f"fields have shape {tuple(maps.shape)}; give [N, H, W], one channel at a time")
    if min(maps.shape[1:]) < SMALLEST_SIDE:
        raise InputError(
            f"fields are {maps.shape[1]} x {maps.shape[2]}; a fit of nine parameters needs at least"
            f" {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels"
        )
    return _fit(maps, FREE_2D)


def fit_gabor_lines(lines: Tensor) -> GaborFits:
    """Fit a one-dimensional Gabor function to each of many lines, such as rows of an axial map.

    Args:
        lines: `[N, length]`, at least 16 long, floating point and finite.

    Raises:
        InputError: another shape, lines that are too short, or values that are not finite.
    """
    if lines.ndim != 2:
        raise InputError(f"lines have shape {tuple(lines.shape)}; give [N, length]")
    if lines.shape[1] < SHORTEST_LINE:
        raise InputError(
            f"lines have {lines.shape[1]} positions; a fit of six parameters needs at least {SHORTEST_LINE}"
        )
    return _fit(lines.unsqueeze(1), FREE_1D)


def _fit(maps: Tensor, free: tuple[int, ...]) -> GaborFits:
    bad = ~torch.isfinite(maps).flatten(1).all(1)
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(maps)} fields have NaN or infinite values, the first is field"
            f" {int(bad.nonzero()[0])}; measure them again"
        )
    height, width = maps.shape[1:]
    data = maps.detach().cpu().double()
    mean = data.mean((1, 2), keepdim=True)
    scale = (data - mean).square().mean((1, 2), keepdim=True).sqrt()
    flat = (scale <= 1e-12 * data.abs().amax((1, 2), keepdim=True)).flatten()
    data = (data - mean) / torch.where(flat.view(-1, 1, 1), 1.0, scale)
    chunks = data.split(max(1, CHUNK // (height * width))) if len(data) else ()
    found = [_fit_chunk(chunk, free) for chunk in chunks]
    empty = torch.zeros(0, 9).double(), torch.zeros(0).double()
    parameters, cost = (torch.cat(parts) for parts in zip(empty, *found, strict=True))
    return _as_fits(
        parameters, cost / (height * width), mean.flatten(), scale.flatten(), flat, (height, width)
    )


def _fit_chunk(data: Tensor, free: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """All nine parameters `[N, 9]` and the sum of squares `[N]` for standardised fields `[N, H, W]`."""
    shape = (data.shape[1], data.shape[2])
    one_dimensional = free == FREE_1D
    # Single precision is enough to find out where to go.
    begun = (starts_1d if one_dimensional else starts_2d)(data).float()  # [N, S, 6]: all but what is linear
    begun = _best_starts(begun, data.float(), keep=4)
    count, starts = begun.shape[:2]
    copies = data.float().flatten(1).repeat_interleave(starts, 0)
    fitted, cost = _descend(begun.flatten(0, 1), copies, shape, free, SHORT)
    chosen = cost.view(count, starts).argmin(1) + starts * torch.arange(count)
    return _descend(fitted[chosen].double(), data.flatten(1), shape, free, LONG)


def _best_starts(shapes: Tensor, data: Tensor, keep: int) -> Tensor:
    """The starts `[N, keep, 9]` that fit best when the three linear parameters are solved for."""
    count, starts = shapes.shape[:2]
    full = torch.cat([shapes, shapes.new_zeros(count, starts, 3)], dim=2).flatten(0, 1)
    flat = data.flatten(1)
    _, basis = evaluate(full, (data.shape[1], data.shape[2]), (COSINE, SINE, OFFSET))  # [N S, 3, M]
    basis = basis.unflatten(0, (count, starts))
    gram = basis @ basis.mT  # [N, S, 3, 3]
    right = basis @ flat.view(count, 1, -1, 1)  # [N, S, 3, 1]
    ridge = 1e-9 * gram.diagonal(dim1=2, dim2=3).amax(2).view(count, starts, 1, 1) + 1e-12
    solved, _ = torch.linalg.solve_ex(gram + ridge * torch.eye(3).to(gram), right)
    explained = (solved * right).sum((2, 3)).nan_to_num(-1.0)  # of the sum of squares
    best = explained.topk(min(keep, starts), dim=1).indices.unsqueeze(2)
    linear = solved.squeeze(3)
    return torch.cat([shapes.gather(1, best.expand(-1, -1, 6)), linear.gather(1, best.expand(-1, -1, 3))], 2)


def _descend(
    start: Tensor, data: Tensor, shape: tuple[int, int], free: tuple[int, ...], steps: int
) -> tuple[Tensor, Tensor]:
    size = float(max(shape))
    wide = math.inf
    low = torch.tensor([-size, -size, -wide, math.log(0.1), math.log(0.1), 0.0, -1e4, -1e4, -1e4])
    high = torch.tensor(
        [2 * size, 2 * size, wide, math.log(8 * size), math.log(8 * size), HIGHEST_FREQUENCY, 1e4, 1e4, 1e4]
    )
    low, high = low.to(start), high.to(start)
    chosen = list(free)
    fixed = start[:1].clone()  # lines: what is not free is the same for all

    def model(parameters: Tensor) -> tuple[Tensor, Tensor]:
        everything = fixed.repeat(len(parameters), 1)
        everything[:, chosen] = parameters
        return evaluate(everything, shape, free)

    best, cost = levenberg_marquardt(model, start[:, chosen], data, low[chosen], high[chosen], steps)
    fitted = start.clone()
    fitted[:, chosen] = best
    return fitted, cost


def _as_fits(
    parameters: Tensor,
    unexplained: Tensor,
    mean: Tensor,
    scale: Tensor,
    flat: Tensor,
    shape: tuple[int, int],
) -> GaborFits:
    """Parameters in their usual form, with the symmetries of the function settled."""
    x, y, direction, log_sx, log_sy, f, cosine, sine, offset = parameters.unbind(1)
    # Half a turn of the wave's direction is the same function with the opposite phase.
    turns = torch.floor(direction / math.pi)
    sine = torch.where(turns.remainder(2) == 1, -sine, sine)
    nan = torch.full_like(x, math.nan)
    line = shape[0] == 1
    return GaborFits(
        x=x,
        y=y,
        orientation=direction - turns * math.pi,
        sigma_x=log_sx.exp(),
        sigma_y=nan if line else log_sy.exp(),
        frequency=f,
        phase=torch.atan2(-sine, cosine),
        amplitude=torch.where(flat, 0.0, torch.hypot(cosine, sine) * scale),
        offset=mean + torch.where(flat, 0.0, offset * scale),
        unexplained=torch.where(flat, nan, unexplained),
        shape=shape,
    )
