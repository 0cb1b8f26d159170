"""The records of a plan, from whichever file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .plans import Plan, load_plan
from .record import Record
from .store import latest, results_folder


def read_records(plan: Plan | str | Path, results: Path | None = None) -> list[Record]:
    """What is known of a plan: the latest record of each variant and seed, in the plan's order.

    A run that two plans have in common is recorded once, by the plan that trained it. Here it has this
    plan's names; `location` says which line it was read from.

    Args:
        plan: the plan, its name, or the path of a YAML file.
        results: folder of the records; by default the shipped ones.

    Returns:
        Variant by variant and seed by seed; empty if nothing was run yet.

    Raises:
        InputError: there is no such plan, or a line was changed by hand.
    """
    plan = load_plan(plan)
    known = latest(results_folder() if results is None else results)
    runs = [(variant, seed) for variant in plan.variants for seed in plan.seeds]
    found = [(variant, known.get(plan.key(variant, seed))) for variant, seed in runs]
    return [
        dataclasses.replace(record, plan=plan.name, variant=variant)
        for variant, record in found
        if record is not None
    ]


@dataclass(frozen=True)
class Progress:
    """How much of a plan was run.

    >>> str(Progress("skip", 13, 15))
    '13 of the 15 runs of the plan skip are in'
    """

    plan: str
    done: int
    total: int

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.done == self.total

    def __str__(self) -> str:
        if self.complete:
            return f"all {self.total} runs of the plan {self.plan} are in"
        return f"{self.done} of the {self.total} runs of the plan {self.plan} are in"


def progress(plan: Plan | str | Path, results: Path | None = None) -> Progress:
    """How much of a plan was run.

    Raises:
        InputError: as `read_records`.
    """
    plan = load_plan(plan)
    return Progress(plan.name, len(read_records(plan, results)), len(plan.runs))
