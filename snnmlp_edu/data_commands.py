"""The commands `snnmlp data ...`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from .arguments import Json
from .data.inspection import Inspection, inspect
from .prepare_commands import prepare_app

data_app = typer.Typer(help="Bring data sets into place, and look at them before training on them.")
data_app.add_typer(prepare_app, name="prepare")

Place = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Folder of class folders, of shards, of idx files; CIFAR archive; or: embedded, digits.",
    ),
]
Checksum = Annotated[str | None, typer.Option(help="MD5 of a CIFAR archive; else the published one.")]


@data_app.command(epilog="Example: snnmlp data describe embedded")
def describe(place: Place, md5: Checksum = None, as_json: Json = False) -> None:
    """Say what a data set holds; files of an image folder are counted, not opened."""
    found = inspect(place, md5, decode=False)
    if as_json:
        print(json.dumps(asdict(found) | {"images": found.images}, indent=2))
    else:
        _print_table(found)
        print("\n".join(found.problems), end="\n" if found.problems else "")
    if found.problems:
        raise typer.Exit(1)


@data_app.command(epilog="Example: snnmlp data verify photos/")
def verify(place: Place, md5: Checksum = None, as_json: Json = False) -> None:
    """Read all of a data set and list everything that is wrong with it; exit 1 if anything is."""
    found = inspect(place, md5)
    if as_json:
        facts = {"place": place, "kind": found.kind, "images": found.images, "problems": found.problems}
        print(json.dumps(facts, indent=2))
    elif found.problems:
        print("\n".join(found.problems))
        print(f"{place} ({found.kind}): {len(found.problems)} problems, {found.images:,} images counted")
    else:
        print(f"{place} ({found.kind}): {found.images:,} images, all can be read")
    if found.problems:
        raise typer.Exit(1)


def _print_table(found: Inspection) -> None:
    right = (Column(name, justify="right") for name in ("images", "classes", "images a class"))
    table = Table("part", *right, "image", title=f"{found.place} ({found.kind})", title_justify="left")
    for part, classes in found.counts.items():
        fewest, most = min(classes.values(), default=0), max(classes.values(), default=0)
        spread = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        shape = " x ".join(map(str, found.shapes.get(part, ()))) or "any size"
        table.add_row(part, f"{sum(classes.values()):,}", str(len(classes)), spread, shape)
    Console().print(table)
