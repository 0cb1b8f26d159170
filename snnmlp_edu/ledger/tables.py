"""Tables of the ledger: plain values, cells of text, and Markdown."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.files import write_atomically
from ..errors import InputError
from ..printing import markdown
from .claims import Claim
from .comparisons import Comparison, Family, Interval, Summary, spread
from .plans import Plan, list_plans, load_plan
from .reading import Progress, progress, read_records
from .record import Record
from .statistics import FREEDOM, TESTED, compare_pairs, compare_with, summarise

LEGEND = (
    "± standard deviation over the variant's seeds; differences in points\n"
    "separated: the 95 % interval over seeds and images leaves out zero; unpaired: older records do not say\n"
    "which test images were right, so that it takes the images of the two as independent, and is wider\n"
    "detectable: a difference of this size would have been found with a power of 80 %\n"
    f"too few seeds: the standard deviation has fewer than {FREEDOM} degrees of freedom; three runs have 2\n"
    "rate: spikes per neuron and step; MACs, additions, energy: of one image, folded"
)
START, END = "<!-- snnmlp ledger claims --markdown -->", "<!-- end -->"
Cells = list[tuple[str, ...]]
Part = tuple[tuple[str, ...], Cells]


@dataclass(frozen=True)
class Table:
    """A plan's variants side by side.

    Args:
        plan: what was asked.
        progress: how many of its runs are in.
        accuracies: test accuracy of each variant, in the plan's order.
        comparisons: of each variant with the base, or of all pairs where the plan has none; None before the
            base was run.
        records: of all runs that are in.
    """

    plan: Plan
    progress: Progress
    accuracies: Sequence[Summary]
    comparisons: Family | None
    records: Sequence[Record]

    def of(self, variant: str) -> list[Record]:
        """The records of one variant."""
        return [record for record in self.records if record.variant == variant]

    @property
    def method(self) -> str:
        """In words, how the intervals were made, or why there are none."""
        if self.comparisons is None:
            return f"cannot say more: no run of the base {self.plan.base} is in" if self.records else ""
        return self.comparisons.method

    @property
    def judged(self) -> bool:
        """Whether it says anything yet: all runs of the plan are in, or all those of one comparison."""
        return self.progress.complete or any(not each.doubt for each in self.comparisons or ())

    def accuracy(self) -> Part:
        """Headings, and a row of text per variant."""
        rows = [(s.variant, str(len(s.seeds)), spread(s.mean, s.std, s.measure)) for s in self.accuracies]
        return ("variant", "seeds", "test accuracy"), list(rows)

    def differences(self) -> Part:
        """Headings, and a row of text per comparison: both intervals, the verdict, and what it can show."""
        rows: Cells = []
        for each in self.comparisons or ():
            ends = (_ends(each.over_seeds), _ends(each.over_images, unpaired=not each.paired))
            size = "" if each.separated or math.isnan(each.detectable) else f"{100 * each.detectable:.2f}"
            rows.append((each.variant, each.base, f"{100 * each.difference:+.2f}", *ends, each.verdict, size))
        intervals = ("95 % over seeds", "95 % over seeds and images")
        return ("variant", "against", "difference", *intervals, "verdict", "detectable"), rows

    def cost(self) -> Part:
        """Headings, and a row of text per variant: what an image costs, and whether anything multiplies."""
        rows: Cells = []
        for each in self.accuracies:
            records = self.of(each.variant)
            additions = _mean(record.operations["accumulates"] for record in records)
            joules = _mean(record.energy_joules for record in records)
            free = all(record.multiplication_free for record in records)
            macs = _mean(record.operations["macs"] for record in records)
            operations = (f"{macs:,.0f}", f"{additions:,.0f}", f"{1e6 * joules:.2f} µJ")
            counts = (f"{records[0].parameters:,}", *operations)
            rows.append((each.variant, _rate(records), *counts, "no" if free else "yes"))
        columns = ("rate", "parameters", "MACs", "additions", "energy", "multiplies")
        return ("variant", *columns), rows

    def compact(self, *costs: str) -> Part:
        """Headings, and a row of text per variant: accuracy, its difference from the base, and some costs.

        Args:
            costs: which columns of `cost` are wanted.
        """
        names, priced = self.cost()
        wanted = [names.index(name) for name in costs]
        gaps = {each.variant: each for each in self.comparisons or ()}
        rows: Cells = []
        for summary, price in zip(self.accuracies, priced, strict=True):
            gap = gaps.get(summary.variant)
            difference = "" if gap is None else f"{100 * gap.difference:+.1f}"
            interval = "" if gap is None or math.isinf(gap.low) else _ends(gap.interval, digits=1)
            deviation = "" if math.isnan(summary.std) else f" ± {100 * summary.std:.1f}"
            numbers = (str(len(summary.seeds)), f"{100 * summary.mean:.1f}{deviation}", difference, interval)
            verdict = "" if gap is None else gap.verdict
            rows.append((summary.variant, *map(_unbroken, numbers), verdict, *(price[i] for i in wanted)))
        against = f"difference from {self.plan.base}" if self.plan.base else "difference"
        return ("variant", "seeds", "test accuracy (%)", against, "95 % interval", "verdict", *costs), rows

    def at_steps(self) -> Part:
        """Headings and rows: accuracy with other T than in training; empty if all were trained with one T."""
        trained = {r.config["time_steps"] for r in self.records if r.accuracy_at_steps}
        steps = list(dict.fromkeys(t for record in self.records for t in record.accuracy_at_steps))
        if len(trained) < 2:
            return (), []
        rows: Cells = []
        for summary in self.accuracies:
            if not all(r.accuracy_at_steps for r in self.of(summary.variant)):
                continue  # a network that is tied to its T, or has none
            values = [[r.accuracy_at_steps[t] for r in self.of(summary.variant)] for t in steps]
            rows.append((summary.variant, *(spread(*_mean_and_std(v), "test_accuracy") for v in values)))
        return ("trained with T", *(f"tested with {t}" for t in steps)), rows

    def to_dict(self) -> dict[str, Any]:
        """All of this as plain values, as JSON holds them."""
        rows = []
        for summary in self.accuracies:
            records = self.of(summary.variant)
            rows.append(
                {
                    "variant": summary.variant,
                    "seeds": list(summary.seeds),
                    "test_accuracy": _statistics(summary),
                    "firing_rates": _by_layer([r.firing_rates for r in records]),
                    "gradient_norms": {
                        when: _by_layer([r.gradient_norms[when] for r in records])
                        for when in ("start", "end")
                    },
                    "accuracy_at_steps": _by_layer([r.accuracy_at_steps for r in records]),
                    "parameters": records[0].parameters,
                    "operations": _by_layer([r.operations for r in records]),
                    "energy_joules": _mean(r.energy_joules for r in records),
                    "multiplication_free": all(r.multiplication_free for r in records),
                    "violations": list(dict.fromkeys(line for r in records for line in r.violations)),
                    "records": [record.location for record in records],
                }
            )
        return {
            "plan": self.plan.name,
            "question": self.plan.question,
            "recipe": self.plan.recipe.name,
            "base": self.plan.base,
            "runs": dataclasses.asdict(self.progress),
            "rows": rows,
            "method": self.method,
            "comparisons": [_plain(each) for each in self.comparisons or ()],
        }


def table(plan: Plan | str | Path, results: Path | None = None) -> Table:
    """What is known of a plan.

    Raises:
        InputError: as `read_records`.
    """
    plan = load_plan(plan)
    records = read_records(plan, results)
    accuracies = summarise(records, TESTED)
    found: Family | None = None
    if plan.base is None:
        found = compare_pairs(records)
    elif any(summary.variant == plan.base for summary in accuracies):
        found = compare_with(records, plan.base)
    if found is not None:
        judged = tuple(_whole(each, len(plan.seeds)) for each in found)
        found = dataclasses.replace(found, comparisons=judged)
    return Table(plan, progress(plan, results), accuracies, found, records)


def unfinished(*plans: Plan | str | Path, results: Path | None = None) -> str:
    """In one sentence, what is still missing of some plans; empty if nothing is.

    Raises:
        InputError: as `read_records`.
    """
    parts = []
    for plan in plans:
        found = table(plan, results)
        planned = len(found.plan.seeds)
        missing = {variant: planned - len(found.of(variant)) for variant in found.plan.variants}
        words = [
            variant if runs == planned else f"{runs} of {planned} seeds of {variant}"
            for variant, runs in missing.items()
            if runs
        ]
        if found.records and words:
            parts.append(f"{', '.join(words)} ({found.plan.name})")
        elif words:
            parts.append(found.plan.name)
    return f"Not yet run: {'; '.join(parts)}." if parts else ""


def plan_markdown(plan: Plan | str | Path, *costs: str, results: Path | None = None) -> str:
    """Which runs of a plan are in and, once one comparison can be judged, its variants side by side.

    Args:
        plan: the plan, its name, or the path of a YAML file.
        costs: which columns of `Table.cost` the table has.
        results: folder of the records; by default the shipped ones.

    Raises:
        InputError: as `read_records`.

    >>> print(plan_markdown("skip", "multiplies").splitlines()[0])
    All 15 runs of the plan skip are in.
    """
    found = table(plan, results)
    said = unfinished(plan, results=results) or f"{str(found.progress).capitalize()}."
    return f"{said}\n\n{markdown(*found.compact(*costs))}" if found.judged else said


def _whole(comparison: Comparison, planned: int) -> Comparison:
    """The same, without a verdict while runs are missing: who stops when it suits finds what is not there."""
    for variant, runs in zip((comparison.variant, comparison.base), comparison.seeds, strict=True):
        if runs < planned:
            return dataclasses.replace(comparison, doubt=f"{runs} of {planned} seeds of {variant} are in")
    return comparison


SEEDS = (3, 5, 8, 12, 20, 50)


def power(plan: Plan | str | Path, results: Path | None = None) -> tuple[Table, dict[str, Part]]:
    """Which differences the seeds of a plan can show, and more seeds would: with a power of 80 %, at 5 %.

    Returns:
        The plan's table; and for each kind of interval headings and a row of text per comparison, empty where
        no variant has two runs.

    Raises:
        InputError: as `read_records`.
    """
    found = table(plan, results)
    counts = sorted({*SEEDS, len(found.plan.seeds)} - {1})
    parts: dict[str, Part] = {}
    family = found.comparisons
    for images, name in ((False, "over seeds"), (True, "over seeds and images")):
        rows: Cells = []
        for each in family or ():
            sizes = [family.detectable(each, n, images=images) for n in counts] if family else []
            if not any(map(math.isnan, sizes)):
                rows.append((each.variant, each.base, *(f"{100 * size:.2f}" for size in sizes)))
        parts[name] = (("variant", "against", *(f"{n} seeds" for n in counts)), rows)
    return found, parts


HEADLINE = (
    *("question", "runs", "base", "test accuracy", "higher", "lower"),
    *("not separated (detectable)", "cannot say"),
)


def headline(results: Path | None = None, judged: bool = False) -> Cells:
    """One row under `HEADLINE` for each plan of which more than the base was run, if it has more.

    Args:
        results: folder of the records; by default the shipped ones.
        judged: leave out plans with too few runs for a first comparison.
    """
    rows: Cells = []
    for name in list_plans():
        found = table(name, results)
        if judged and not found.judged:
            continue
        base = next((s for s in found.accuracies if s.variant == found.plan.base), None)
        if found.comparisons is None or (not found.comparisons.comparisons and len(found.plan.variants) > 1):
            continue
        groups: dict[str, list[str]] = {name: [] for name in HEADLINE[4:]}
        for each in found.comparisons:
            against = "" if base else f" against `{each.base}`"
            words = f"`{each.variant}`{against} {100 * each.difference:+.2f}"
            if each.doubt:
                groups["cannot say"].append(words)
            elif each.separated:
                groups["higher" if each.difference > 0 else "lower"].append(words)
            else:
                groups["not separated (detectable)"].append(f"{words} ({100 * each.detectable:.1f})")
        runs = f"{found.progress.done} of {found.progress.total}"
        of_base = (f"`{base.variant}`", spread(base.mean, base.std, base.measure)) if base else ("", "")
        rows.append((found.plan.question, runs, *of_base, *map(", ".join, groups.values())))
    return rows


def headline_markdown(results: Path | None = None, judged: bool = False) -> str:
    """Every plan in a row, in Markdown; arguments as of `headline`."""
    rows = headline(results, judged)
    return markdown(HEADLINE, rows) if rows else "No run is in yet."


CLAIMS = ("what the paper says", "paper", "here", "verdict", "scale", "rests on")


def claims_markdown(found: Sequence[Claim]) -> str:
    """The README's table: the claims that were tested, and in a sentence those that were not."""
    rows = [
        (c.claim, c.value, c.here, f"**{c.verdict}**", c.scale, c.strength)
        for c in found
        if c.verdict != "not run"
    ]
    left = "; ".join(claim.claim for claim in found if claim.verdict == "not run")
    return markdown(CLAIMS, rows) + (f"\n\nNot run: {left}." if left else "")


def write_into(file: Path, text: str) -> None:
    """Replace what a file has between the marks of the table of claims.

    Raises:
        InputError: the file has no such marks.
    """
    content = file.read_text(encoding="utf-8")
    before, start, rest = content.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise InputError(f"{file} has no place for the table; write the lines '{START}' and '{END}' into it")
    write_atomically(file, f"{before}{START}\n\n{text}\n\n{END}{after}".encode())


def _ends(interval: Interval | None, unpaired: bool = False, digits: int = 2) -> str:
    if interval is None:
        return ""
    low, high = (f"{100 * end:+.{digits}f}" for end in (interval.low, interval.high))
    return f"{low} to {high}{', unpaired' if unpaired else ''}"


def _unbroken(text: str) -> str:
    """The same with spaces at which no line breaks."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _rate(records: Sequence[Record]) -> str:
    """Spikes per neuron and step; a network without spikes has none."""
    spiking = all(record.config["activation"] == "lif" for record in records)
    rates = [record.mean_firing_rate for record in records]
    return f"{_mean(rates):.3f}" if spiking and not any(map(math.isnan, rates)) else ""


def _statistics(summary: Summary) -> dict[str, Any]:
    return {"mean": summary.mean, "std": _finite(summary.std), "values": list(summary.values)}


def _plain(each: Comparison) -> dict[str, Any]:
    values = dataclasses.asdict(each) | {"separated": each.separated}
    return values | {
        "variances": [_finite(value) for value in each.variances],
        "detectable": _finite(each.detectable),
    }


def _by_layer(mappings: Sequence[Any]) -> dict[str, float]:
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return {name: _mean(m[name] for m in mappings if m.get(name) is not None) for name in names}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return _mean(values), statistics.stdev(values) if len(values) > 1 else math.nan
