r"""Means over seeds, and whether two variants differ.

Two variants are compared seed by seed, since a seed draws the same split, order and augmentation for both.
With differences :math:`d_1 \dots d_n`, mean :math:`\bar d` and sample standard deviation :math:`s`, the 95 %
interval is :math:`\bar d \pm t_{0.975,\,n-1}\, s / \sqrt n`. They *differ* where it leaves out zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..fields import nearest
from .record import Record

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
class Comparison:
    """Two variants, seed by seed.

    Args:
        variant: the one.
        base: the other.
        measure: what is compared.
        seeds: those that both were run with.
        differences: variant less base, for each seed.
    """

    variant: str
    base: str
    measure: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Mean of the differences."""
        return statistics.fmean(self.differences)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; minus infinity of a single seed."""
        return self.difference - self._half_width

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval; infinity of a single seed."""
        return self.difference + self._half_width

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def _half_width(self) -> float:
        count = len(self.differences)
        if count < 2:
            return math.inf
        from scipy import stats  # it takes seconds to import

        quantile = float(stats.t.ppf(0.975, count - 1))
        return quantile * statistics.stdev(self.differences) / math.sqrt(count)

    def __str__(self) -> str:
        name, size, unit = _shown(self.measure)
        gap = size * self.difference
        if len(self.seeds) < 2:
            return (
                f"{self.variant} against {self.base}: {_number(gap, '+')}{unit} {name} with one seed, which"
                " says nothing"
            )
        low, high = (_number(size * end, "+") for end in (self.low, self.high))
        interval = f"95 % interval {low} to {high}, {_seeds(self.seeds)}"
        if not self.differs:
            return (
                f"the seeds do not separate {self.variant} from {self.base}: {name} differs by"
                f" {_number(gap, '+')}{unit} ({interval})"
            )
        word = "higher" if gap > 0 else "lower"
        return f"{self.variant} has a {name} {_number(abs(gap))}{unit} {word} than {self.base} ({interval})"


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


def compare(records: Iterable[Record], variant: str, base: str, measure: str = "test_accuracy") -> Comparison:
    """Two variants of a plan, by the seeds that both were run with.

    Raises:
        InputError: there is no record of one of them, or no seed in common.
    """
    records = list(records)
    values: dict[str, dict[int, float]] = {}
    for name in (variant, base):
        values[name] = {r.seed: _value(r, measure) for r in records if r.variant == name}
        if not values[name]:
            known = list(dict.fromkeys(record.variant for record in records))
            raise InputError(
                f"there is no record of a variant {name!r}{nearest(name, known)} (there are:"
                f" {', '.join(known) or 'none'})"
            )
    seeds = sorted(values[variant].keys() & values[base].keys())
    if not seeds:
        raise InputError(f"{variant} and {base} were run with no seed in common; run the plan to its end")
    differences = tuple(values[variant][seed] - values[base][seed] for seed in seeds)
    return Comparison(variant, base, measure, tuple(seeds), differences)


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
    return float(value)
