"""Which fits are accepted, how many, and whether that is more than in the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from ..errors import InputError
from .functions import FREE_1D, FREE_2D
from .gabors import GaborFits

MAX_UNEXPLAINED = 0.3
NYQUIST = 0.5  # periods per pixel: a finer wave looks like a coarser one
GOOD = "well fitted"


def judge(
    fits: GaborFits, silent: Tensor | None = None, max_unexplained: float = MAX_UNEXPLAINED
) -> list[str]:
    """Why each fit is rejected, or that it is not: `well fitted`.

    A fit is rejected, for the first of these reasons that holds, where the unit is *silent*; where the
    field is *flat*; where the *centre* lies outside the field; where an *envelope* is as wide as the
    field's shorter side, or covers fewer pixels than the function has parameters (*resolution*): anything so
    small is fitted; where the wave is finer than two pixels a period (*frequency*); where more than
    `max_unexplained` of the variance is left over (*unexplained*).

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
    # From the last reason to the first, so that the first has the last word.
    rules = (
        ("unexplained", fits.unexplained > max_unexplained),
        ("frequency", fits.frequency > NYQUIST),
        ("resolution", covered < len(FREE_1D if line else FREE_2D)),
        ("envelope", ~narrow),
        ("centre", ~inside),
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


@dataclass(frozen=True)
class Difference:
    """A difference of two fractions, or of two probabilities, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} (95 % {self.low:+.3f} to {self.high:+.3f})"


def difference(one: Proportion, other: Proportion) -> Difference:
    """The fraction `one` minus the fraction `other`, by Newcombe's interval from the two Wilson intervals.

    Source: Newcombe 1998, method 10.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Difference(value, value - below, value + above)


def fitted_better(one: GaborFits, other: GaborFits, draws: int = 2000) -> Difference:
    """By how much a random field of `one` is more likely to be fitted better than worse, from -1 to 1.

    This needs no threshold: it is the probability that less of its variance is left over than of a random
    field of `other`, minus the probability of the opposite. A field without a fit counts as left over whole.
    The 95 % interval is that of the bootstrap over units, with a fixed seed.

    Raises:
        InputError: one of the two has no fits.

    Source: Cliff 1993, doi 10.1037/0033-2909.114.3.494.
    """
    if not len(one) or not len(other):
        raise InputError(f"there are {len(one)} and {len(other)} fits to compare; give at least one of each")
    a, b = (fits.unexplained.nan_to_num(1.0) for fits in (one, other))
    order = (b.unsqueeze(0) - a.unsqueeze(1)).sign()  # [N, M]: 1 where the field of `one` is fitted better
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.stack(
            [
                torch.randint(count, (count,), generator=generator).bincount(minlength=count).double()
                for _ in range(draws)
            ]
        )
        for count in order.shape
    ]
    means = ((weights[0] @ order) * weights[1]).sum(1) / order.numel()
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(order.mean().item(), low, high)


@dataclass(frozen=True)
class Conclusion:
    """The conclusion about a fraction that the controls allow.

    Args:
        differences: control -> the fraction minus that of the control.
    """

    differences: Mapping[str, Difference]

    @property
    def supported(self) -> bool:
        """Whether the fraction is above that of every control, each by an interval above zero."""
        return all(each.low > 0 for each in self.differences.values())

    def __str__(self) -> str:
        groups: dict[str, list[str]] = {"above": [], "not told apart from": [], "below": []}
        for name, each in self.differences.items():
            groups["above" if each.low > 0 else "below" if each.high < 0 else "not told apart from"].append(
                name
            )
        found = "; ".join(f"{words} {', '.join(names)}" for words, names in groups.items() if names)
        return f"{'supported' if self.supported else 'not supported'}: {found}"


def conclude(measured: Proportion, controls: Mapping[str, Proportion]) -> Conclusion:
    """Compare a fraction with those of its controls.

    Raises:
        InputError: there are no controls, and without controls there is no conclusion.

    >>> print(conclude(proportion(90, 100), {"untrained": proportion(50, 100)}))
    supported: above untrained
    """
    if not controls:
        raise InputError("there are no controls; without one, a fraction supports nothing")
    return Conclusion({name: difference(measured, control) for name, control in controls.items()})
