r"""Means over seeds, and whether variants differ.

Each comparison has two 95 % intervals. The first is over *seeds*: how far other weights, splits and orders
would move the difference, for these very test images. The second is over *seeds and images*: with other test
images, too; it is never the narrower. Two variants are *separated* where it leaves out zero. What is no
accuracy on test images, such as a number of additions, has the first alone, and that decides.

The intervals of a plan belong together: 95 % is the chance that all of those against one base hold (Dunnett),
or that no comparison is called separated wrongly (Holm, where variances differ or there is no base). There is
no verdict on a difference whose standard deviation is known from three runs alone: with these two degrees of
freedom, the true one may be six times as large.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..fields import nearest
from . import intervals
from .intervals import Error, Pooled
from .record import Record

FREEDOM = 4  # degrees of freedom that the standard deviation of a verdict needs
TESTED = "test_accuracy"  # the measure whose images are the same in every run
_ACCURACIES = (TESTED, "validation_accuracy", "test_loss")  # equal values in all runs of these are no proof

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


def summarise(records: Iterable[Record], measure: str) -> list[Summary]:
    """One measure over the seeds of each variant, in the order of the records.

    Args:
        records: of one plan, as `read_records` gives them.
        measure: a number of `Record`, such as `test_accuracy`, or `operations.accumulates`.

    Raises:
        InputError: a record has no such number.
    """
    found: dict[str, dict[int, float]] = {}
    for record in records:
        found.setdefault(record.variant, {})[record.seed] = _value(record, measure)
    return [
        Summary(variant, measure, tuple(sorted(values)), tuple(values[seed] for seed in sorted(values)))
        for variant, values in found.items()
    ]


def compare_with(records: Iterable[Record], base: str, measure: str = TESTED) -> Family:
    """Every variant of the records against one of them.

    Args:
        records: of one plan, as `read_records` gives them.
        base: the variant that the others are compared with.
        measure: as in `summarise`.

    Raises:
        InputError: there is no record of the base, or a record does not hold what it should.
    """
    records = list(records)
    names = list(dict.fromkeys(record.variant for record in records))
    _require(names, base)
    return _family(records, [(name, base) for name in names if name != base], measure, one_base=True)


def compare_pairs(records: Iterable[Record], measure: str = TESTED) -> Family:
    """Every variant of the records against every one before it.

    Args:
        records: of one plan, as `read_records` gives them.
        measure: as in `summarise`.

    Raises:
        InputError: a record does not hold what it should.
    """
    records = list(records)
    names = dict.fromkeys(record.variant for record in records)
    pairs = [(later, earlier) for earlier, later in itertools.combinations(names, 2)]
    return _family(records, pairs, measure, one_base=False)


def compare(records: Iterable[Record], variant: str, base: str, measure: str = TESTED) -> Comparison:
    """Two variants of a plan, judged together with every other variant against that base.

    Raises:
        InputError: there is no record of one of them, or a record does not hold what it should.
    """
    records = list(records)
    names = list(dict.fromkeys(record.variant for record in records))
    for name in (variant, base):
        _require(names, name)
    found = compare_with(records, base, measure).of(variant)
    if found is None:
        raise InputError(f"{variant} cannot be compared with itself; name two variants")
    return found


def right_images(record: Record) -> NDArray[np.bool_] | None:
    """Which test images a run classified correctly, in the order of the data set; None of an older record.

    Raises:
        InputError: what the record holds does not fit its number of correct test images.
    """
    if record.test_right is None:
        return None
    try:
        packed = np.frombuffer(base64.b64decode(record.test_right, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        packed = np.zeros(0, np.uint8)
    right = np.unpackbits(packed).astype(bool)
    if len(packed) != -(-record.test_total // 8) or right.sum() != record.test_correct:
        raise InputError(
            f"{record.location or 'a record'}: test_right does not name {record.test_correct} of"
            f" {record.test_total} test images; delete the line and run the plan again"
        )
    return right[: record.test_total]


def _family(
    records: Sequence[Record], pairs: Sequence[tuple[str, str]], measure: str, *, one_base: bool
) -> Family:
    values = {summary.variant: summary.values for summary in summarise(records, measure)}
    pooled = intervals.pool(list(values.values()))
    shared = pooled if pooled.equal else None
    variances = {name: statistics.variance(each) for name, each in values.items() if len(each) > 1}
    answers = _answers(records) if measure == TESTED else {}
    judged = [pair for pair in pairs if all(name in variances for name in pair)]
    runs = [(len(values[one]), len(values[other])) for one, other in judged]
    gaps = [statistics.fmean(values[one]) - statistics.fmean(values[other]) for one, other in judged]
    own = [(variances[one], variances[other]) for one, other in judged]
    seeds = [intervals.seeds_error(each, count, shared) for each, count in zip(own, runs, strict=True)]
    tables = [None if _other_images(records, pair) else _answers_of_both(answers, *pair) for pair in judged]
    images = [_images_error(answers, pair, known) for pair, known in zip(judged, tables, strict=True)]
    both = [error if more is None else error + more for error, more in zip(seeds, images, strict=True)]
    dunnett = one_base and pooled.equal

    def criticals(errors: Sequence[Error]) -> list[float]:
        if dunnett:
            shares = tuple(count / (count + others) for count, others in runs)
            return [intervals.dunnett_critical(shares, error.freedom) for error in errors]
        return intervals.holm_criticals(gaps, errors)

    of_seeds, of_both = criticals(seeds), criticals(both)
    reach = [critical * error.deviation for critical, error in zip(of_seeds, seeds, strict=True)]
    wider = [critical * error.deviation for critical, error in zip(of_both, both, strict=True)]
    known = {
        pair: Comparison(
            *pair,
            measure,
            seeds=runs[i],
            difference=gaps[i],
            variances=own[i] if shared is None else (shared.variance, shared.variance),
            over_seeds=_interval(gaps[i], reach[i]),
            over_images=None if images[i] is None else _interval(gaps[i], max(reach[i], wider[i])),
            paired=tables[i] is not None,
            image_error=images[i],
            freedom=seeds[i].freedom,
            detectable=max(
                intervals.detectable(seeds[i], of_seeds[i]), intervals.detectable(both[i], of_both[i])
            ),
            doubt=_other_images(records, pair) or _doubt(measure, seeds[i]),
        )
        for i, pair in enumerate(judged)
    }
    comparisons = tuple(known.get(pair) or _of_a_single_run(values, pair, measure, answers) for pair in pairs)
    return Family(measure, pooled, len(variances), comparisons, dunnett)


def _interval(gap: float, reach: float) -> Interval:
    return Interval(gap - reach, gap + reach)


def _of_a_single_run(
    values: Mapping[str, Sequence[float]],
    pair: tuple[str, str],
    measure: str,
    answers: Mapping[str, _Answers],
) -> Comparison:
    runs = (len(values[pair[0]]), len(values[pair[1]]))
    single = next(name for name, count in zip(pair, runs, strict=True) if count < 2)
    return Comparison(
        *pair,
        measure,
        seeds=runs,
        difference=statistics.fmean(values[pair[0]]) - statistics.fmean(values[pair[1]]),
        variances=(math.nan, math.nan),
        over_seeds=None,
        over_images=None,
        paired=False,
        image_error=_images_error(answers, pair, None),
        freedom=0,
        detectable=math.nan,
        doubt=f"one seed of {single}",
    )


def _doubt(measure: str, seeds: Error) -> str:
    """Why the spread over the seeds supports no verdict; empty where it does."""
    if seeds.variance == 0:  # of a count this is what it should be
        return "equal values in all runs" if measure in _ACCURACIES else ""
    if seeds.freedom < FREEDOM - 1e-9:  # three and three runs of one variance have 4 but for rounding
        return "too few seeds"
    return ""


def _other_images(records: Sequence[Record], pair: tuple[str, str]) -> str:
    data = {record.dataset_sha256 for record in records if record.variant in pair}
    return "runs on different images" if len(data) > 1 else ""


@dataclass(frozen=True)
class _Answers:
    """The answers of one variant: accuracy, test images, and which were right, `[seeds, images]`."""

    accuracy: float
    images: int
    right: NDArray[np.bool_] | None


def _answers(records: Sequence[Record]) -> dict[str, _Answers]:
    found = {}
    for variant in dict.fromkeys(record.variant for record in records):
        runs = [record for record in records if record.variant == variant]
        tables = [right_images(run) for run in runs]
        right = [table for table in tables if table is not None]
        whole = len(right) == len(runs) and len({len(table) for table in right}) == 1
        images = min(run.test_total for run in runs)
        accuracy = statistics.fmean(run.test_accuracy for run in runs)
        found[variant] = _Answers(accuracy, images, np.stack(right) if whole else None)
    return found


_Tables = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def _answers_of_both(answers: Mapping[str, _Answers], variant: str, base: str) -> _Tables | None:
    """The answers of both, if the records hold them, and to equally many images."""
    one, other = (answers[name].right if answers else None for name in (variant, base))
    if one is None or other is None or one.shape[1] != other.shape[1]:
        return None
    return one, other


def _images_error(
    answers: Mapping[str, _Answers], pair: tuple[str, str], tables: _Tables | None
) -> Error | None:
    if tables is not None:
        return intervals.images_error(*tables)
    if not answers:
        return None
    one, other = (answers[name] for name in pair)
    return intervals.unpaired_images_error(one.accuracy, other.accuracy, min(one.images, other.images))


def _require(names: Sequence[str], variant: str) -> None:
    if variant not in names:
        raise InputError(
            f"there is no record of a variant {variant!r}{nearest(variant, names)} (there are:"
            f" {', '.join(names) or 'none'})"
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


def _value(record: Record, measure: str) -> float:
    name, _, part = measure.partition(".")
    value = getattr(record, name, None)
    value = value.get(part) if part and isinstance(value, Mapping) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"a record has no number {measure!r}; take one such as test_accuracy or operations.accumulates"
        )
    if not math.isfinite(value):
        raise InputError(f"{record.variant} has no {measure}; compare variants that have one")
    return float(value)
