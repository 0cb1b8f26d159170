r"""Intervals of differences, over seeds, and over seeds and test images: numbers in, numbers out.

Runs of several variants are pooled where Bartlett's test finds no difference between their variances. (The
test of Brown and Forsythe has next to no power with three values each, and what Bartlett's rejects wrongly is
only judged more cautiously.) A difference has an `Error`, the variance of its estimate with the degrees of
freedom of that variance. An interval reaches a critical value times its root to each side: Dunnett's where
several variants are compared with one base, Student's at the levels of Holm otherwise.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
POWER = 0.8
_NODES = 64


@dataclass(frozen=True)
class Pooled:
    """How far the runs of one variant lie apart, taken over all variants.

    Args:
        variance: of one run, pooled; NaN where no variant has two runs.
        freedom: degrees of freedom of that variance.
        p_equal: of Bartlett's test that all variants have one variance; NaN where there is nothing to test.
    """

    variance: float
    freedom: float
    p_equal: float

    @property
    def equal(self) -> bool:
        """Whether one variance may stand for all."""
        return not self.p_equal < ALPHA


def pool(groups: Sequence[Sequence[float]]) -> Pooled:
    """The pooled variance of several groups, each about its own mean; groups of one value count for nothing.

    Source: Bartlett 1937, doi 10.1098/rspa.1937.0109.

    >>> pool([[1.0, 3.0], [2.0, 2.5, 3.0], [9.0]]).variance  # (2 + 0.5) / (1 + 2)
    0.8333333333333334
    """
    from scipy import stats  # it takes seconds to import

    groups = [[float(value) for value in group] for group in groups if len(group) > 1]
    if not groups:
        return Pooled(math.nan, 0, math.nan)
    squares = [statistics.variance(group) * (len(group) - 1) for group in groups]
    freedom = sum(len(group) - 1 for group in groups)
    if len(groups) < 2 or not any(squares):
        p_equal = math.nan
    else:
        p_equal = float(stats.bartlett(*groups).pvalue) if all(squares) else 0.0
    return Pooled(sum(squares) / freedom, freedom, p_equal)


@dataclass(frozen=True)
class Error:
    """The variance of an estimate, and the degrees of freedom of that variance."""

    variance: float
    freedom: float

    @property
    def deviation(self) -> float:
        """The standard error."""
        return math.sqrt(self.variance)

    def __add__(self, other: Error) -> Error:
        """Both sources of error together, with the degrees of freedom of Satterthwaite.

        Source: Satterthwaite 1946, doi 10.2307/3002019.

        >>> Error(3.0, 6) + Error(1.0, 2)  # 4² / (9 / 6 + 1 / 2)
        Error(variance=4.0, freedom=8.0)
        """
        total = self.variance + other.variance
        parts = self.variance**2 / self.freedom + other.variance**2 / other.freedom
        return Error(total, total**2 / parts if parts else math.inf)


def seeds_error(variances: tuple[float, float], runs: tuple[int, int], pooled: Pooled | None) -> Error:
    """The error of a difference of two means over seeds.

    Args:
        variances: of one run of each of the two; not looked at where they are pooled.
        runs: of each.
        pooled: the variance that stands for both; None to take each variant's own, as Welch does.

    Source: Welch 1947, doi 10.1093/biomet/34.1-2.28.
    """
    if pooled is not None:
        return Error(pooled.variance * (1 / runs[0] + 1 / runs[1]), pooled.freedom)
    one, other = (Error(v / n, n - 1) for v, n in zip(variances, runs, strict=True))
    return one + other


def images_error(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Error:
    r"""What the choice of the test images adds to the error of a difference of two accuracies.

    The answers of a variant are crossed: every seed meets every image. With :math:`d_x` the difference of the
    two variants at image :math:`x`, averaged over their seeds, the variance of the mean of :math:`d_x` over
    :math:`M` images is :math:`s_d^2 / M`. It holds the chance of each seed at each image too, which the
    variance over the seeds holds already; that part, :math:`e^2 / (n M)` of each variant with the residual
    mean square :math:`e^2` of its table of seeds and images, is taken off. So the two errors add up to what a
    bootstrap over seeds and over images estimates, without that bootstrap's bias with few seeds.

    Args:
        one: whether each image was right, `[seeds, images]`, of one variant; two or more seeds.
        other: of the other, on the same images.

    Source: Owen 2007, doi 10.1214/07-AOAS122, on the bootstrap of crossed factors and its bias.
    """
    images = one.shape[-1]
    difference = one.mean(axis=0) - other.mean(axis=0)
    counted_twice = sum(_residual(table) / len(table) for table in (one, other))
    return Error(max(0.0, float(difference.var(ddof=1) - counted_twice)) / images, images - 1)


def _residual(table: NDArray[np.bool_]) -> float:
    """Residual mean square of a two-way table, what neither its rows nor its columns explain."""
    seeds, images = table.shape
    total = table.var() * table.size
    rows = table.mean(axis=1).var() * table.size
    columns = table.mean(axis=0).var() * table.size
    return float(total - rows - columns) / ((seeds - 1) * (images - 1))


def unpaired_images_error(one: float, other: float, images: int) -> Error:
    """The same where nobody knows which images were right: as if each variant had images of its own.

    Variants tend to err on the same images, so the true error is smaller.

    Args:
        one: accuracy of one variant.
        other: of the other.
        images: test images of each.

    >>> round(unpaired_images_error(0.5, 0.9, 1000).variance, 6)  # (0.25 + 0.09) / 1000
    0.00034
    """
    return Error((one * (1 - one) + other * (1 - other)) / images, images - 1)


@functools.lru_cache(maxsize=4096)
def dunnett_critical(shares: tuple[float, ...], freedom: float) -> float:
    r"""The value that the largest of several t statistics against one base exceeds with probability 5 %.

    Given the base's part :math:`z` of the error and the ratio :math:`s` of the estimated to the true standard
    deviation, the statistics are independent, so that with the shares :math:`\lambda_i^2`

    .. math::

        P(\max_i |t_i| \le c) = \int\!\!\int \prod_i \left[
        \Phi\!\left(\tfrac{c s + \lambda_i z}{\sqrt{1 - \lambda_i^2}}\right) -
        \Phi\!\left(\tfrac{-c s + \lambda_i z}{\sqrt{1 - \lambda_i^2}}\right) \right]
        \varphi(z)\, f_\nu(s)\; dz\, ds

    Args:
        shares: the base's part of each difference's variance, :math:`\lambda_i^2`; 0.5 for equally many runs.
        freedom: degrees of freedom of the variance.

    Source: Dunnett 1955, doi 10.1080/01621459.1955.10501294.

    >>> round(dunnett_critical((0.5, 0.5), 10), 2), round(dunnett_critical((0.5,), 10), 2)  # 2nd: Student's
    (2.57, 2.23)
    """
    from scipy import optimize, special

    ratios, weights = _deviation_ratios(freedom)
    base, base_weights = np.polynomial.hermite_e.hermegauss(_NODES)
    share = np.array(shares)[:, None, None]
    common, own = np.sqrt(share) * base[:, None], np.sqrt(1 - share)

    def excess(critical: float) -> float:
        reach = critical * ratios
        inside = special.ndtr((reach + common) / own) - special.ndtr((common - reach) / own)
        return float(base_weights @ inside.prod(axis=0) @ weights) / math.sqrt(2 * math.pi) - (1 - ALPHA)

    alone, every = (student_critical(comparisons, freedom) for comparisons in (1, len(shares)))
    return alone if len(shares) == 1 else float(optimize.brentq(excess, alone, every + 1e-9, xtol=1e-7))


def holm_criticals(differences: Sequence[float], errors: Sequence[Error]) -> list[float]:
    """Critical values of Student's t, each at the level at which Holm's procedure judges that difference.

    The smallest p of m meets 5 % / m, the next 5 % / (m - 1), and so on; from the first that is not below its
    level on, all have that level. An interval leaves out zero exactly where the procedure rejects.

    Source: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    from scipy import special

    p = [
        2 * float(special.stdtr(e.freedom, -abs(d) / e.deviation)) if e.variance else float(d == 0)
        for d, e in zip(differences, errors, strict=True)
    ]
    criticals, left, stopped = [math.nan] * len(p), len(p), False
    for index in sorted(range(len(p)), key=p.__getitem__):
        criticals[index] = student_critical(left, errors[index].freedom)
        stopped |= p[index] >= ALPHA / left
        left -= not stopped
    return criticals


def student_critical(comparisons: int, freedom: float) -> float:
    """Two-sided critical value of Student's t at 5 % over the number of comparisons."""
    from scipy import special

    return float(special.stdtrit(freedom, 1 - ALPHA / (2 * comparisons)))


def detectable(error: Error, critical: float) -> float:
    r"""The smallest difference that leaves zero out of its interval in 80 % of such experiments.

    That is the :math:`\delta` with :math:`P(|t'| > c) = 0.8`, where :math:`t'` follows the noncentral t
    distribution with noncentrality :math:`\delta` over the standard error.

    Args:
        error: of the difference, taken as known.
        critical: the value that :math:`|t'|` has to exceed.

    >>> round(detectable(Error(1.09**2 * 2 / 20, 38), student_critical(1, 38)), 2)  # 20 seeds each
    0.99
    """
    from scipy import optimize, special

    ratios, weights = _deviation_ratios(error.freedom)

    def excess(noncentrality: float) -> float:
        reach = critical * ratios
        found = special.ndtr(noncentrality - reach) + special.ndtr(-noncentrality - reach)
        return float(found @ weights) - POWER

    # At ten critical values the power is close to 1, however few the degrees of freedom.
    return error.deviation * float(optimize.brentq(excess, 0.0, 10 * critical, xtol=1e-7))


@functools.lru_cache(maxsize=4096)
def _deviation_ratios(freedom: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for an expectation over the ratio of an estimated to the true standard deviation."""
    from scipy import special

    points, weights = np.polynomial.legendre.leggauss(_NODES)
    if freedom >= 1e6:  # the estimate is exact
        return np.ones(_NODES), weights / 2
    # The root of a chi-squared quantile over its degrees of freedom.
    return np.sqrt(special.gammaincinv(freedom / 2, (points + 1) / 2) * 2 / freedom), weights / 2
