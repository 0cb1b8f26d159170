"""The report, `REPRODUCTION.md`: the words of `data/reproduction.md` with the numbers of the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..data.files import path, write_atomically
from ..printing import markdown
from . import tables
from .claims import Claim, claims, count_verdicts, rivals
from .plans import list_plans, load_plan
from .reading import progress, read_records
from .record import Record

TEMPLATE = "reproduction.md"


def report(results: Path | None = None) -> str:
    """The report in Markdown.

    Raises:
        InputError: a record was changed by hand.
    """
    found = claims(results=results)
    records = _distinct(record for name in list_plans() for record in read_records(name, results))
    counts = count_verdicts(found)
    words = (path() / TEMPLATE).read_text(encoding="utf-8")
    return words.format(
        counts="; ".join(f"{count} {verdict}" for verdict, count in counts.items()).capitalize(),
        claims=tables.claims_markdown(found),
        runs=len(records),
        on_cifar=sum(record.dataset == "cifar10" for record in records),
        exact=sum(record.test_right is not None for record in records),
        hours=sum(record.seconds for record in records) / 3600,
        results=_results(found),
        headline=tables.headline_markdown(results, judged=True),
        missing=_missing(found, results),
        rivals=markdown(
            ("network", "parameters", "T", "ImageNet", "source"),
            [(r.network, r.parameters, r.time_steps, r.value, r.source) for r in rivals()],
        ),
    )


def write_report(file: Path, results: Path | None = None) -> None:
    """Write the report into a file, all of it or nothing."""
    write_atomically(file, report(results).encode())


def _distinct(records: Iterable[Record]) -> list[Record]:
    """Each run once: plans share their base."""
    return list({record.location: record for record in records}.values())


def _results(found: list[Claim]) -> str:
    lines = []
    for claim in found:
        if claim.verdict == "not run":
            continue
        said = claim.grounds or claim.how
        note = f" {claim.note}" if claim.note else ""
        lines.append(f"- **{claim.claim}:** {claim.verdict}. {_sentence(said)}{note}")
    return "\n".join(lines)


def _missing(found: list[Claim], results: Path | None) -> str:
    plans = [load_plan(name) for name in list_plans()]
    states = [(plan, progress(plan, results)) for plan in plans]
    runs = [
        (f"`{plan.name}`", f"{state.done} of the {state.total} runs are in", plan.question)
        for plan, state in states
        if not state.complete
    ]
    decides = [(claim.claim, claim.verdict, claim.decides) for claim in found if claim.decides]
    parts = [markdown(("claim", "verdict", "what would decide it"), decides)]
    if runs:
        parts.append(markdown(("plan", "runs", "question"), runs))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    """With a capital letter and a full stop; names of variants at its beginning stay as they are."""
    first = (
        text
        if re.match(r"[a-z]+_|\w+ has a |\w+ and \w+ are not ", text)
        else f"{text[:1].upper()}{text[1:]}"
    )
    return f"{first.rstrip('.')}."
