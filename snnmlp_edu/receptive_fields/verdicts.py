"""One rule, one verdict a layer: fields of two halves, their fits, and a comparison network by network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import special
from torch import Tensor

from ..errors import InputError
from .controls import phase_randomised
from .fields import Fields
from .gabors import GaborFits, fit_gabors
from .judging import Proportion, judge, well_fitted

FEWEST_NETWORKS = 5
AGREEMENT = 0.8  # of two halves: noise is then at most a ninth of their mean
TOO_SMALL = 0.5  # part of the units whose fields may be too small to tell
MARGIN = 0.1  # a difference of fractions that would matter

Word = Literal["supported", "not supported", "inconclusive"]


@dataclass(frozen=True)
class Examined:
    """A layer of one network: its fields, how sure they are, and what became of their fits.

    Args:
        maps: the fields, means of two halves and of the image's channels, fp64 `[U, H, W]`.
        agreement: cosine of the two halves' fields, `[U]`; 0 for a unit that was silent in one.
        fits: of the maps.
        reasons: what `judge` says of each.
    """

    maps: Tensor
    agreement: Tensor
    fits: GaborFits
    reasons: list[str]

    @property
    def well_fitted(self) -> Proportion:
        """The fraction of well-fitted units."""
        return well_fitted(self.reasons)

    @property
    def too_small(self) -> float:
        """The part of the units whose fit explains the field, but on too few pixels to tell its form."""
        return sum(reason in ("resolution", "frequency") for reason in self.reasons) / len(self.reasons)

    def with_random_phases(self, seed: int = 0) -> Examined:
        """The same fields with random phases, fitted and judged likewise."""
        maps = phase_randomised(self.maps, seed)
        fits = fit_gabors(maps)
        silent = torch.tensor([reason == "silent" for reason in self.reasons])
        return Examined(maps, self.agreement, fits, judge(fits, silent))


def examine(one: Fields, other: Fields) -> Examined:
    """Fit and judge the fields of a layer that was measured twice, with one half of the stimuli each.

    Raises:
        InputError: the two are of different layers or units.
    """
    if one.path != other.path or not torch.equal(one.units, other.units):
        raise InputError(
            f"the two halves are of {one.path} and {other.path}, or of other units;"
            " measure the same units twice"
        )
    silent = one.silent | other.silent
    first, second = one.maps.mean(1), other.maps.mean(1)
    agreement = torch.nn.functional.cosine_similarity(first.flatten(1), second.flatten(1))
    maps = (first + second) / 2
    fits = fit_gabors(maps)
    return Examined(maps, torch.where(silent, 0.0, agreement), fits, judge(fits, silent))


@dataclass(frozen=True)
class Difference:
    """A mean difference over networks, with a 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} (95 % {self.low:+.2f} to {self.high:+.2f})"


def paired_difference(pairs: Sequence[tuple[Proportion, Proportion]]) -> Difference:
    """The mean over networks of a fraction minus that of the network's control.

    The interval is Student's, over networks. It is never narrower than the finite number of units in each
    would make it, so networks that all agree have an interval too.

    Raises:
        InputError: fewer than two networks have no interval.

    >>> from snnmlp_edu.receptive_fields import proportion
    >>> print(paired_difference([(proportion(90, 100), proportion(10, 100))] * 5))
    +0.80 (95 % +0.75 to +0.85)
    """
    if len(pairs) < 2:
        raise InputError(f"there are {len(pairs)} networks; an interval over networks needs two or more")
    gaps = torch.tensor([one.value - other.value for one, other in pairs], dtype=torch.float64)
    by_units = sum(_variance(one) + _variance(other) for one, other in pairs) / len(pairs)
    error = (max(gaps.var().item(), by_units) / len(pairs)) ** 0.5
    half = float(special.stdtrit(len(pairs) - 1, 0.975)) * error
    middle = gaps.mean().item()
    return Difference(middle, max(-1.0, middle - half), min(1.0, middle + half))


def _variance(fraction: Proportion) -> float:
    """Of a fraction of units, with one more of each kind than were seen, so that it is never 0."""
    p = (fraction.count + 1) / (fraction.total + 2)
    return p * (1 - p) / fraction.total


@dataclass(frozen=True)
class Verdict:
    """What is known of a layer.

    Args:
        word: `supported`, `not supported` or `inconclusive`.
        why: the reasons, in words.
        networks: how many there were.
        agreement: of two halves, the median over units and then over networks.
        too_small: part of the units whose fields are too small to tell, the mean over networks.
        differences: control -> well-fitted fraction minus that of the control; empty for a single network.
    """

    word: Word
    why: str
    networks: int
    agreement: float
    too_small: float
    differences: Mapping[str, Difference]

    def __str__(self) -> str:
        return f"{self.word}: {self.why}"


def verdict(networks: Sequence[tuple[Examined, Mapping[str, Examined]]]) -> Verdict:
    """The verdict on a layer, from several networks, each with its own controls.

    *Inconclusive* where there are fewer than five networks, where the two halves of the stimuli agree to less
    than 0.8, or where the fields of more than half of the units are too small to tell. Otherwise *supported*
    where the fraction of well-fitted units lies above that of every control, by an interval over networks
    that is above zero; *not supported* where for some control the interval leaves no room for a
    difference of 0.1; and inconclusive in between.

    Args:
        networks: for each, the layer as trained, and control -> the same layer of the control.

    Raises:
        InputError: there are no networks, no controls, or not the same controls for each.
    """
    if not networks:
        raise InputError("there are no networks to judge; give at least one")
    names = list(networks[0][1])
    if not names or any(list(controls) != names for _, controls in networks):
        raise InputError(
            "each network needs the same controls, and at least one; without it nothing is supported"
        )
    agreement = torch.stack([trained.agreement.median() for trained, _ in networks]).median().item()
    too_small = sum(trained.too_small for trained, _ in networks) / len(networks)
    differences = {}
    if len(networks) > 1:
        for name in names:
            pairs = [(trained.well_fitted, controls[name].well_fitted) for trained, controls in networks]
            differences[name] = paired_difference(pairs)
    doubts = list(_doubts(len(networks), agreement, too_small))
    if doubts:
        return Verdict("inconclusive", "; ".join(doubts), len(networks), agreement, too_small, differences)
    word, why = _compare(differences)
    return Verdict(word, why, len(networks), agreement, too_small, differences)


def _doubts(networks: int, agreement: float, too_small: float) -> Iterator[str]:
    if networks < FEWEST_NETWORKS:
        yield f"{networks} network{'s' if networks > 1 else ''} where {FEWEST_NETWORKS} are needed"
    if not agreement >= AGREEMENT:  # also where it is no number
        yield f"two halves agree to {agreement:.2f} only"
    if too_small > TOO_SMALL:
        yield f"{too_small:.0%} of the fields are too small to tell"


def _compare(differences: Mapping[str, Difference]) -> tuple[Word, str]:
    excluded = [name for name, each in differences.items() if each.high < MARGIN]
    open_ones = [name for name, each in differences.items() if each.low <= 0]
    if excluded:
        return "not supported", f"not above {', '.join(excluded)} by {MARGIN} or more"
    if open_ones:
        return "inconclusive", f"not told apart from {', '.join(open_ones)}"
    return "supported", f"above {', '.join(differences)}"
