"""What a comparison of variants found, in numbers and in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InputError
from . import intervals
from .intervals import Error, Pooled

# Measure -> its name, the factor in which it is shown, and the unit of a difference.
_SHOWN = {
    "test_accuracy": ("test accuracy", 100.0, " points"),
    "validation_accuracy": ("validation accuracy", 100.0, " points"),
    "mean_firing_rate": ("mean firing rate", 100.0, " points"),
    "parameters": ("number of parameters", 1.0, ""),
    "operations.accumulates": ("number of additions", 1.0, ""),
    "energy_joules": ("energy", 1e6, " µJ"),
}


@dataclass(frozen=True)
class Summary:
    """One measure of one variant, over its seeds.

    Args:
        variant: its name.
        measure: name of the measure.
        seeds: in ascending order.
        values: one for each seed.
    """

    variant: str
    measure: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; NaN of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def __str__(self) -> str:
        return f"{self.variant}: {spread(self.mean, self.std, self.measure)}, {_seeds(self.seeds)}"


@dataclass(frozen=True)
class Interval:
    """The two ends of a 95 % interval."""

    low: float
    high: float

    @property
    def leaves_out_zero(self) -> bool:
        """Whether both ends have one sign."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two variants.

    Args:
        variant: the one.
        base: the other.
        measure: what is compared.
        seeds: how many runs of each.
        difference: mean of the variant less mean of the base.
        variances: of one run of each; the pooled one for both where the plan's variances are equal.
        over_seeds: interval for these very test images; None of a single run.
        over_images: interval over seeds and test images; None of what is not an accuracy on test images.
        paired: whether the records say which test images were right. Otherwise the second interval takes the
            images of the two as independent, which makes it wider.
        image_error: what the choice of the test images adds to the error; None of what is no such accuracy.
        freedom: degrees of freedom of the variance over seeds.
        detectable: difference that would have been found with a power of 80 %; NaN of a single run.
        doubt: why there is no verdict; empty where there is one.
    """

    variant: str
    base: str
    measure: str
    seeds: tuple[int, int]
    difference: float
    variances: tuple[float, float]
    over_seeds: Interval | None
    over_images: Interval | None
    paired: bool
    image_error: Error | None
    freedom: float
    detectable: float
    doubt: str = ""

    @property
    def interval(self) -> Interval:
        """The one that decides; without ends of a single run."""
        return self.over_images or self.over_seeds or Interval(-math.inf, math.inf)

    @property
    def low(self) -> float:
        """Lower end of the interval that decides."""
        return self.interval.low

    @property
    def high(self) -> float:
        """Upper end of the interval that decides."""
        return self.interval.high

    @property
    def separated(self) -> bool:
        """Whether there is a verdict, and the interval that decides leaves out zero."""
        return not self.doubt and self.interval.leaves_out_zero

    @property
    def verdict(self) -> str:
        """In words: `separated`, `not separated`, or why neither can be said."""
        if self.doubt:
            return f"cannot say: {self.doubt}"
        return "separated" if self.separated else "not separated"

    def in_short(self, first: str) -> str:
        """How far `first` lies above the other, as in `a minus b: +1.20 points [+0.70, +1.70]`.

        Args:
            first: one of the two variants.
        """
        name, size, unit = _shown(self.measure)
        second, sign = (self.base, size) if first == self.variant else (self.variant, -size)
        ends = sorted((sign * self.low, sign * self.high))
        interval = f" [{', '.join(_number(end, '+') for end in ends)}]"
        if ends[0] == ends[1]:
            interval = " in every run"
        elif self.over_seeds is None:
            interval = ""
        unit = unit if self.measure == "test_accuracy" else f"{unit} {name.removeprefix('number of ')}"
        doubt = f" ({self.doubt})" if self.doubt else ""
        return f"{first} minus {second}: {_number(sign * self.difference, '+')}{unit}{interval}{doubt}"

    def __str__(self) -> str:
        name, size, unit = _shown(self.measure)
        gap = size * self.difference
        runs = f"{self.seeds[0]} and {self.seeds[1]} seeds"
        if self.over_seeds is None:
            interval = runs
        elif self.over_seeds.low == self.over_seeds.high:
            interval = f"in every run, {runs}"
        else:
            low, high = (_number(size * end, "+") for end in (self.low, self.high))
            of = "seeds" if self.over_images is None else "seeds and images"
            unpaired = "" if self.over_images is None or self.paired else ", unpaired"
            interval = f"95 % interval {low} to {high} over {of}{unpaired}, {runs}"
        if self.doubt:
            return (
                f"cannot say whether {self.variant} differs from {self.base} ({self.doubt}):"
                f" {name} differs by {_number(gap, '+')}{unit} ({interval})"
            )
        if not self.separated:
            return (
                f"{self.variant} and {self.base} are not separated: {name} differs by"
                f" {_number(gap, '+')}{unit} ({interval}; a difference of"
                f" {_number(size * self.detectable)}{unit} would have been found with a power of 80 %)"
            )
        word = "higher" if gap > 0 else "lower"
        return f"{self.variant} has a {name} {_number(abs(gap))}{unit} {word} than {self.base} ({interval})"


@dataclass(frozen=True)
class Family:
    """Comparisons that are judged together.

    Args:
        measure: what is compared.
        pooled: how far the runs of one variant lie apart.
        variants: with two runs or more, whose variances were pooled.
        comparisons: in the order of the records.
        against_base: whether all are against one base, and their variances equal: Dunnett's intervals.
    """

    measure: str
    pooled: Pooled
    variants: int
    comparisons: tuple[Comparison, ...]
    against_base: bool

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.comparisons)

    def of(self, variant: str) -> Comparison | None:
        """The first comparison of this variant; None if there is none."""
        return next((each for each in self if each.variant == variant), None)

    @property
    def method(self) -> str:
        """In words, how the intervals were made; empty where no variant has two runs."""
        if not self.pooled.freedom:
            return ""
        p = self.pooled.p_equal
        test = "" if math.isnan(p) else f", Bartlett's p = {p:.2g}"
        name = "Dunnett's intervals" if self.against_base else "intervals at the levels of Holm"
        if not self.pooled.equal:
            return f"the variances of the variants differ{test}: Welch's {name}"
        _, size, unit = _shown(self.measure)
        deviation = f"{_number(size * math.sqrt(self.pooled.variance))}{unit}"
        return (
            f"standard deviation of one run {deviation}, pooled over {self.variants} variants"
            f" ({self.pooled.freedom:.0f} degrees of freedom{test}): {name}"
        )

    def detectable(self, comparison: Comparison, seeds: int, *, images: bool = True) -> float:
        """The difference that so many seeds of each variant would find with a power of 80 %.

        Args:
            comparison: one of these; its variances and the part of the images are taken as known.
            seeds: of each variant, two or more.
            images: whether the interval over seeds and images has to leave out zero.

        Returns:
            In the unit of the measure; NaN where a variance is not known.

        Raises:
            InputError: fewer than two seeds.
        """
        if seeds < 2:
            raise InputError(f"{seeds} seed has no spread; ask for two or more")
        pooled = None
        if self.pooled.equal and self.pooled.freedom:
            pooled = Pooled(self.pooled.variance, self.variants * (seeds - 1), math.nan)
        alone = intervals.seeds_error(comparison.variances, (seeds, seeds), pooled)
        if math.isnan(alone.variance):
            return math.nan
        errors = [alone]
        if images and comparison.image_error is not None:
            errors.append(alone + comparison.image_error)
        many = len(self.comparisons)
        return max(
            intervals.detectable(
                error,
                intervals.dunnett_critical((0.5,) * many, error.freedom)
                if self.against_base
                else intervals.student_critical(many, error.freedom),
            )
            for error in errors
        )


def spread(mean: float, std: float, measure: str) -> str:
    """Mean and standard deviation in words.

    >>> spread(0.8431, 0.0062, "test_accuracy"), spread(0.5, math.nan, "test_loss")
    ('84.31 ± 0.62 %', '0.50')
    """
    _, size, unit = _shown(measure)
    deviation = "" if math.isnan(std) else f" ± {_number(size * std)}"
    return f"{_number(size * mean)}{deviation}{' %' if unit == ' points' else unit}"


def _shown(measure: str) -> tuple[str, float, str]:
    return _SHOWN.get(measure, (measure.replace("_", " "), 1.0, ""))


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if abs(value) >= 100 and math.isfinite(value) else f"{value:{sign}.2f}"


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
