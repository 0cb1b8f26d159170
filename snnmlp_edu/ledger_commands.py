"""The commands `snnmlp ledger ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import parse_overrides
from .errors import Preempted

ledger_app = typer.Typer(help="Plans of runs, their records, and what they say of the paper's claims.")

PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="Name of a plan, or path of a .yaml file.")]
Results = Annotated[
    Path | None, typer.Option(help="Folder of the records; by default the package's data/results.")
]


@ledger_app.command(epilog="Example: snnmlp ledger run fashion_mnist_full data_dir=fashion")
def run(
    plan: PlanName,
    results: Results = None,
    output: Annotated[Path, typer.Option(help="Folder in which each run gets its own folder.")] = Path(
        "runs/ledger"
    ),
    progress: Annotated[bool, typer.Option("--progress", help="Show each epoch.")] = False,
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="data_dir, data_md5 or save_every of the recipe."),
    ] = None,
) -> None:
    """Train what is missing of a plan, and add a record after each run; a run that was cut goes on."""
    from .ledger.running import run_plan  # it needs the extra [train], and seconds to import

    given = parse_overrides(places or [])
    try:
        new = sum(1 for _ in run_plan(plan, results=results, output=output, progress=progress, **given))
    except Preempted:
        print(f"stopped, and the state of the run is saved; go on with: snnmlp ledger run {plan}")
        return
    print(f"{new} new records")
