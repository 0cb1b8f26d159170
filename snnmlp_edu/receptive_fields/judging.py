"""Which fits are accepted, and how many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from ..errors import InputError
from .functions import FREE_1D, FREE_2D
from .gabors import GaborFits

MAX_UNEXPLAINED = 0.3
NYQUIST = 0.5  # periods per pixel: a finer wave looks like a coarser one
TWO_SIGNED = 0.25  # of the stronger sign's peak: what the weaker sign of a wave reaches
GOOD = "well fitted"


def judge(
    fits: GaborFits, silent: Tensor | None = None, max_unexplained: float = MAX_UNEXPLAINED
) -> list[str]:
    """Why each fit is rejected, or that it is not: `well fitted`.

    A fit is rejected, for the first of these reasons that holds, where the unit is *silent*; where the
    field is *flat*; where more than `max_unexplained` of the variance is left over (*unexplained*); where the
    *centre* lies outside the field; where an *envelope* is as wide as the field's shorter side; where the
    wave is finer than two pixels a period (*frequency*); where the envelope covers fewer pixels than the
    function has parameters (*resolution*): anything so small is fitted, and nothing can be said about its
    form; where the fitted function has one sign, so that it is a *blob* and no wave: its weaker sign reaches
    less than a quarter of the stronger.

    Args:
        fits: of the fields.
        silent: which units never fired, bool `[N]` (`Fields.silent`); None where that is not known.
        max_unexplained: largest part of the variance that may be left over.

    Raises:
        InputError: another number of units than of fits, or a limit outside (0, 1].

    >>> from snnmlp_edu.receptive_fields import fit_gabors
    >>> judge(fit_gabors(torch.zeros(1, 8, 8)))
    ['flat']
    """
    if not 0 < max_unexplained <= 1:
        raise InputError(f"max_unexplained is {max_unexplained}; it must be above 0 and at most 1")
    silent = torch.zeros(len(fits), dtype=torch.bool) if silent is None else silent
    if len(silent) != len(fits):
        raise InputError(f"there are {len(fits)} fits and {len(silent)} units; give as many of each")
    height, width = fits.shape
    line = height == 1
    size = width if line else min(height, width)
    inside = (fits.x >= -0.5) & (fits.x <= width - 0.5) & (fits.y >= -0.5) & (fits.y <= height - 0.5)
    # Pixels under an envelope of height 1: the integral of the Gaussian.
    covered = math.sqrt(2 * math.pi) * fits.sigma_x
    covered = covered if line else covered * math.sqrt(2 * math.pi) * fits.sigma_y
    narrow = (fits.sigma_x < size) & (fits.sigma_y.nan_to_num(0.0) < size)
    above = fits.predicted().flatten(1) - fits.offset.unsqueeze(1)
    high, low = above.amax(1).clamp_min(0), (-above).amax(1).clamp_min(0)
    # From the last reason to the first, so that the first has the last word.
    rules = (
        ("blob", torch.minimum(high, low) < TWO_SIGNED * torch.maximum(high, low)),
        ("resolution", covered < len(FREE_1D if line else FREE_2D)),
        ("frequency", fits.frequency > NYQUIST),
        ("envelope", ~narrow),
        ("centre", ~inside),
        ("unexplained", fits.unexplained > max_unexplained),
        ("flat", fits.unexplained.isnan()),
        ("silent", silent),
    )
    verdicts = [GOOD] * len(fits)
    for reason, holds in rules:
        for index in holds.nonzero().flatten().tolist():
            verdicts[index] = reason
    return verdicts


@dataclass(frozen=True)
class Proportion:
    """How many of some units have a property, with an interval for the underlying probability.

    The interval takes the units as independent. Units of one network share weights, so it is narrower than
    one over many networks would be.

    Args:
        count: units that have it.
        total: all units.
        low: lower end of the interval.
        high: upper end.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The fraction itself."""
        return self.count / self.total

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.count} of {self.total}, 95 % {self.low:.3f} to {self.high:.3f})"


def proportion(count: int, total: int) -> Proportion:
    """A fraction with its 95 % Wilson interval, which lies in [0, 1] and is never empty.

    Raises:
        InputError: there are no units, or more that have the property than there are.

    Source: Wilson 1927, doi 10.1080/01621459.1927.10502953.

    >>> print(proportion(8, 10))
    0.800 (8 of 10, 95 % 0.490 to 0.943)
    """
    if total < 1 or not 0 <= count <= total:
        raise InputError(f"{count} of {total} is not a fraction; give 0 <= count <= total, total above 0")
    z = NormalDist().inv_cdf(0.975)
    value = count / total
    middle = (value + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(value * (1 - value) / total + z * z / (4 * total * total))
    return Proportion(count, total, max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value)))


def well_fitted(verdicts: list[str]) -> Proportion:
    """The fraction of well-fitted units among all that were looked at."""
    return proportion(verdicts.count(GOOD), len(verdicts))
