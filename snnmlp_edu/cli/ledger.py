"""The commands `snnmlp ledger ...`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Column
from rich.table import Table as Shown

from .. import ledger
from ..errors import InputError, Preempted
from ..ledger import reproduction, tables, verification
from ..ledger.claims import count_verdicts
from ..ledger.store import OUTPUT
from ..printing import markdown, plain_console, print_json, printable
from .arguments import Json, parse_overrides, refuse_options

ledger_app = typer.Typer(help="Plans of runs, their records, and what they say about the paper's claims.")

PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="Name of a plan, or path of a .yaml file.")]
Results = Annotated[
    Path | None, typer.Option(help="Folder of the records; by default the package's data/results.")
]


@ledger_app.command(epilog="Example: snnmlp ledger run fashion_mnist_full data_dir=fashion")
def run(
    plan: PlanName,
    variant: Annotated[str | None, typer.Option(help="Run only this variant.")] = None,
    seed: Annotated[int | None, typer.Option(help="Run only this seed.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat one recorded run and compare; exit 1 if it differs.")
    ] = False,
    results: Results = None,
    output: Annotated[Path, typer.Option(help="Where to create each run's folder.")] = OUTPUT,
    progress: Annotated[bool, typer.Option("--progress", help="Show each epoch.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Where the data are, such as data_dir=PATH."),
    ] = None,
) -> None:
    """Train the missing runs of a plan, with a record after each; an interrupted run is resumed."""
    from ..ledger.repeating import run_again  # these need the extra [train], and seconds to import
    from ..ledger.running import run_plan

    given = parse_overrides(overrides or [])
    refuse_options(given, run_plan)
    if again:
        if variant is None or seed is None:
            raise InputError("--again takes one run; name it by --variant and --seed")
        found = run_again(plan, variant, seed, results=results, progress=progress, **given)
        print(found)
        raise typer.Exit(0 if found.agrees else 1)
    where: dict[str, Any] = {"results": results, "output": output, "progress": progress}
    try:
        new = sum(1 for _ in run_plan(plan, variant=variant, seed=seed, **where, **given))
    except Preempted as stop:
        options = {"--variant": variant, "--seed": seed, "--results": results}
        options |= {"--output": output if output != OUTPUT else None}
        words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        words += ["--progress"] if progress else []
        command = shlex.join(["snnmlp", "ledger", "run", plan, *words, *(overrides or [])])
        print(printable(f"stopped, and what was recorded is kept; resume with: {command}"))
        raise typer.Exit(stop.exit_code) from stop
    print(f"{new} new records")


@ledger_app.command(epilog="Example: snnmlp ledger table skip")
def table(
    plan: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="Name or .yaml file of one plan; by default all.")
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown: the plan's table, or a row for each plan.")
    ] = False,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Print accuracy, cost and verdict of every variant, with the spread over the seeds."""
    if as_markdown and plan is None:
        print(tables.headline_markdown(results))
        return
    found = [tables.table(name, results) for name in ([plan] if plan else ledger.list_plans())]
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    for each in found:
        title = f"{each.plan.name}: {each.plan.question} {str(each.progress).capitalize()}."
        parts = [each.accuracy(), each.differences(), each.cost(), each.at_steps()]
        parts = [part for part in parts if part[1]]
        legend = "\n".join(line for line in (each.method, tables.LEGEND) if line)
        if as_markdown:
            print("\n\n".join([title, *(markdown(*part) for part in parts), legend]))
            continue
        print(title)
        for part in parts:
            _show(*part)
        print(f"{legend}\n" if parts else "")


@ledger_app.command(epilog="Example: snnmlp ledger power skip")
def power(plan: PlanName, results: Results = None, as_json: Json = False) -> None:
    """Print which differences the seeds of a plan can show, and more seeds would, with a power of 80 %."""
    found, parts = tables.power(plan, results)
    if as_json:
        parts_as_rows = {
            name: [dict(zip(columns, row, strict=True)) for row in rows]
            for name, (columns, rows) in parts.items()
        }
        print_json({"plan": found.plan.name, "method": found.method, **parts_as_rows})
        return
    print(f"{found.plan.name}: {found.plan.question} {str(found.progress).capitalize()}.")
    if not any(rows for _, rows in parts.values()):
        print("Cannot say what more seeds would show: two runs of a variant are needed to see their spread.")
        return
    print(
        f"{found.method}\npoints that a difference must have to be found with a power of 80 %, at 5 % in all:"
    )
    for name, (columns, rows) in parts.items():
        print(f"\n{name}")
        _show(columns, rows)


@ledger_app.command(epilog="Example: snnmlp ledger claims --json")
def claims(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
    into: Annotated[Path | None, typer.Option(help="Put the README's table into this file.")] = None,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Print every claim of the paper, what was measured here, the verdict, and what that rests on."""
    if into is not None:
        if as_json:
            raise InputError("--into takes the README's table; leave out --json")
        tables.write_into(into, tables.claims_markdown(ledger.claims(results=results)))
        print(printable(f"{into}: the table matches the records"))
        return
    if as_markdown:
        print(tables.claims_markdown(ledger.claims(results=results)))
        return
    found, others = ledger.claims(results=results), ledger.rivals()
    if as_json:
        print_json(
            {"claims": [each.to_dict() for each in found], "rivals": [asdict(each) for each in others]}
        )
        return
    rows = [(c.claim, c.value, _measured(c), c.verdict, f"{c.scale}, {c.strength}") for c in found]
    _show(("claim", "paper", "here", "verdict", "scale, strength"), rows, leading=1)
    counts = count_verdicts(found)
    print(", ".join(f"{verdict}: {count}" for verdict, count in counts.items()))
    print("\nNetworks that the paper compares with; their numbers are cited, none was run here.")
    _show(("network", "parameters", "T", "ImageNet", "source", "here"), [_rival(each) for each in others])


def _measured(claim: ledger.Claim) -> str:
    return claim.why or "; ".join(part for part in (claim.here, *claim.missing) if part)


def _rival(each: ledger.Rival) -> tuple[str, ...]:
    return each.network, each.parameters, each.time_steps, each.value, each.source, each.here


@ledger_app.command(epilog="Example: snnmlp ledger report --into REPRODUCTION.md")
def report(
    into: Annotated[Path | None, typer.Option(help="Write it into this file.")] = None,
    results: Results = None,
) -> None:
    """Print the report of the reproduction: scope, claims, method, results, what was hard."""
    if into is None:
        print(reproduction.report(results), end="")
        return
    reproduction.write_report(into, results)
    print(printable(f"{into}: the report matches the records"))


@ledger_app.command(epilog="Example: snnmlp ledger verify --data-dir fashion")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Shipped networks; all of them by default."),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the full test set is, for networks that were trained on it.")
    ] = None,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Test every shipped network again and compare with its record, exactly; exit 1 if one differs."""
    found = verification.verify(results, data_dir, names)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        for each in found:
            print(f"{'agrees ' if each.agrees else 'DIFFERS'} {each.name}: {each.remark}")
    if not all(each.agrees for each in found):
        raise typer.Exit(1)


_WORDS = ("paper", "against", "scale, strength", "verdict", "source", "here")


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]], leading: int = 0) -> None:
    first, *others = columns
    numbers = (Column(name, justify="left" if name in _WORDS else "right") for name in others)
    shown = Shown(first, *numbers, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), leading=leading)
    for row in rows:
        shown.add_row(*row)
    plain_console().print(shown)
