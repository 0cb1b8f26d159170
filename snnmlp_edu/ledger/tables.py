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
from .plans import Plan, list_plans, load_plan
from .reading import Progress, progress, read_records
from .record import Record
from .statistics import Comparison, Summary, compare, spread, summarise

LEGEND = (
    "± standard deviation over the seeds; * the 95 % interval leaves out zero\n"
    "rate: spikes per neuron and step; MACs, additions, energy: of one image, folded"
)
START, END = "<!-- snnmlp ledger table --markdown -->", "<!-- end -->"
Cells = list[tuple[str, ...]]
Part = tuple[tuple[str, ...], Cells]


@dataclass(frozen=True)
class Table:
    """A plan's variants side by side.

    Args:
        plan: what was asked.
        progress: how many of its runs are in.
        accuracies: test accuracy of each variant, in the plan's order.
        comparisons: variant -> how it compares with the base, where both were run.
        records: of all runs that are in.
    """

    plan: Plan
    progress: Progress
    accuracies: Sequence[Summary]
    comparisons: dict[str, Comparison]
    records: Sequence[Record]

    def of(self, variant: str) -> list[Record]:
        """The records of one variant."""
        return [record for record in self.records if record.variant == variant]

    def accuracy(self) -> Part:
        """Headings, and a row of text per variant: its accuracy, and how it compares with the base."""
        rows: Cells = []
        for each in self.accuracies:
            against = self.comparisons.get(each.variant)
            gap = "" if against is None else _gap(against)
            rows.append((each.variant, str(len(each.seeds)), spread(each.mean, each.std, each.measure), gap))
        return ("variant", "seeds", "test accuracy", f"against {self.plan.base}, points"), rows

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
            records, against = self.of(summary.variant), self.comparisons.get(summary.variant)
            rows.append(
                {
                    "variant": summary.variant,
                    "seeds": list(summary.seeds),
                    "test_accuracy": _statistics(summary),
                    "against_base": None if against is None else _differences(against),
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
        }


def table(plan: Plan | str | Path, results: Path | None = None) -> Table:
    """What is known of a plan.

    Raises:
        InputError: as `read_records`.
    """
    plan = plan if isinstance(plan, Plan) else load_plan(plan)
    records = read_records(plan, results)
    accuracies = summarise(records, "test_accuracy")
    comparisons = {}
    for summary in accuracies:
        if summary.variant != plan.base:
            try:
                comparisons[summary.variant] = compare(records, summary.variant, plan.base)
            except InputError:
                continue  # the base has no seed in common with it yet
    return Table(plan, progress(plan, results), accuracies, comparisons, records)


HEADLINE = ("question", "runs", "base", "test accuracy", "higher", "lower", "not separated")


def headline(results: Path | None = None) -> Cells:
    """One row under `HEADLINE` for each plan of which more than the base was run, if it has more."""
    rows: Cells = []
    for name in list_plans():
        found = table(name, results)
        base = next((s for s in found.accuracies if s.variant == found.plan.base), None)
        if base is None or (not found.comparisons and len(found.plan.variants) > 1):
            continue
        groups: dict[str, list[str]] = {"higher": [], "lower": [], "not separated": []}
        for variant, against in found.comparisons.items():
            word = "not separated" if not against.differs else "higher" if against.difference > 0 else "lower"
            remark = " (one seed)" if math.isinf(against.low) else ""
            groups[word].append(f"`{variant}` {100 * against.difference:+.2f}{remark}")
        runs = f"{found.progress.done} of {found.progress.total}"
        accuracy = spread(base.mean, base.std, base.measure)
        words = map(", ".join, groups.values())
        rows.append((found.plan.question, runs, f"`{base.variant}`", accuracy, *words))
    return rows


def markdown(columns: Sequence[str], rows: Cells) -> str:
    """A table in Markdown.

    >>> print(markdown(("a", "b"), [("x", "1")]))
    | a | b |
    |---|---|
    | x | 1 |
    """
    lines = [f"| {' | '.join(line)} |" for line in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def headline_markdown(results: Path | None = None) -> str:
    """The README's table."""
    rows = headline(results)
    return markdown(HEADLINE, rows) if rows else "No run is in yet."


def write_into(file: Path, text: str) -> None:
    """Replace what a file has between the marks of the ledger's table.

    Raises:
        InputError: the file has no such marks.
    """
    content = file.read_text(encoding="utf-8")
    before, start, rest = content.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise InputError(f"{file} has no place for the table; write the lines '{START}' and '{END}' into it")
    write_atomically(file, f"{before}{START}\n\n{text}\n\n{END}{after}".encode())


def _gap(against: Comparison) -> str:
    gap = f"{100 * against.difference:+.2f}"
    if math.isinf(against.low):
        return f"{gap} (one seed)"
    separated = " *" if against.differs else ""
    return f"{gap} ({100 * against.low:+.2f} to {100 * against.high:+.2f}){separated}"


def _rate(records: Sequence[Record]) -> str:
    """Spikes per neuron and step; a network without spikes has none."""
    spiking = all(record.config["activation"] == "lif" for record in records)
    rates = [record.mean_firing_rate for record in records]
    return f"{_mean(rates):.3f}" if spiking and not any(map(math.isnan, rates)) else ""


def _statistics(summary: Summary) -> dict[str, Any]:
    return {"mean": summary.mean, "std": _finite(summary.std), "values": list(summary.values)}


def _differences(against: Comparison) -> dict[str, Any]:
    low, high = _finite(against.low), _finite(against.high)
    return {"difference": against.difference, "low": low, "high": high, "differs": against.differs}


def _by_layer(mappings: Sequence[Any]) -> dict[str, float]:
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return {name: _mean(m[name] for m in mappings if m.get(name) is not None) for name in names}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return _mean(values), statistics.stdev(values) if len(values) > 1 else math.nan
