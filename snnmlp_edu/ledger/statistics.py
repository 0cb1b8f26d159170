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

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from ..errors import InputError
from ..fields import nearest
from . import intervals
from .answers import answers_by_variant, images_error
from .comparisons import Comparison, Family, Interval, Summary
from .intervals import Error
from .record import Record

FREEDOM = 4  # degrees of freedom that the standard deviation of a verdict needs
TESTED = "test_accuracy"  # the measure whose images are the same in every run
_ACCURACIES = (TESTED, "validation_accuracy", "test_loss")  # equal values in all runs of these are no proof


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


def _family(
    records: Sequence[Record], pairs: Sequence[tuple[str, str]], measure: str, *, one_base: bool
) -> Family:
    values = {summary.variant: summary.values for summary in summarise(records, measure)}
    pooled = intervals.pool(list(values.values()))
    shared = pooled if pooled.equal else None
    variances = {name: statistics.variance(each) for name, each in values.items() if len(each) > 1}
    answers = answers_by_variant(records) if measure == TESTED else {}
    judged = [pair for pair in pairs if all(name in variances for name in pair)]
    runs = [(len(values[one]), len(values[other])) for one, other in judged]
    gaps = [statistics.fmean(values[one]) - statistics.fmean(values[other]) for one, other in judged]
    own = [(variances[one], variances[other]) for one, other in judged]
    seeds = [intervals.seeds_error(each, count, shared) for each, count in zip(own, runs, strict=True)]

    def of_images(pair: tuple[str, str]) -> tuple[Error | None, bool]:
        if not answers:
            return None, False
        one, other = (answers[name] for name in pair)
        return images_error(one, other, same=pair in judged and not _other_images(records, pair))

    images = [of_images(pair) for pair in judged]
    both = [error if more is None else error + more for error, (more, _) in zip(seeds, images, strict=True)]
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
            over_images=None if images[i][0] is None else _interval(gaps[i], max(reach[i], wider[i])),
            paired=images[i][1],
            image_error=images[i][0],
            freedom=seeds[i].freedom,
            detectable=max(
                intervals.detectable(seeds[i], of_seeds[i]), intervals.detectable(both[i], of_both[i])
            ),
            doubt=_other_images(records, pair) or _doubt(measure, seeds[i]),
        )
        for i, pair in enumerate(judged)
    }
    comparisons = tuple(
        known.get(pair) or _of_a_single_run(values, pair, measure, of_images(pair)[0]) for pair in pairs
    )
    return Family(measure, pooled, len(variances), comparisons, dunnett)


def _interval(gap: float, reach: float) -> Interval:
    return Interval(gap - reach, gap + reach)


def _of_a_single_run(
    values: Mapping[str, Sequence[float]],
    pair: tuple[str, str],
    measure: str,
    image_error: Error | None,
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
        image_error=image_error,
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


def _require(names: Sequence[str], variant: str) -> None:
    if variant not in names:
        raise InputError(
            f"there is no record of a variant {variant!r}{nearest(variant, names)} (there are:"
            f" {', '.join(names) or 'none'})"
        )


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
