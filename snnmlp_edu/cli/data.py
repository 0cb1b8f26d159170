"""The commands `snnmlp data ...`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Column, Table

from ..data.inspection import Inspection, inspect
from ..data.sources import SHIPPED
from ..printing import plain_console, print_json, printable
from .arguments import Json
from .prepare import prepare_app

data_app = typer.Typer(help="Prepare data sets, and inspect them before training.")
data_app.add_typer(prepare_app, name="prepare")

DataPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help=f"Folder of class folders, of idx or CIFAR files; CIFAR archive; or: {', '.join(SHIPPED)}.",
    ),
]
Checksum = Annotated[str | None, typer.Option(help="MD5 of a CIFAR archive; by default the published one.")]


@data_app.command(epilog="Example: snnmlp data describe embedded")
def describe(path: DataPath, md5: Checksum = None, as_json: Json = False) -> None:
    """Say what a data set holds; files of an image folder are counted, not opened."""
    found = inspect(path, md5, decode=False)
    if as_json:
        print_json(asdict(found) | {"images": found.images})
    else:
        _print_table(found)
        _print_problems(found)
    if found.problems:
        raise typer.Exit(1)


@data_app.command(epilog="Example: snnmlp data verify photos/")
def verify(path: DataPath, md5: Checksum = None, as_json: Json = False) -> None:
    """Read a whole data set and list every problem; exit 1 if there is one."""
    found = inspect(path, md5)
    title = _title(found)
    if as_json:
        facts = {"path": path, "kind": found.kind, "images": found.images, "problems": found.problems}
        print_json(facts)
    elif found.problems:
        _print_problems(found)
        print(f"{title}: {len(found.problems)} problems, {found.images:,} images counted")
    else:
        print(f"{title}: {found.images:,} images, all can be read")
    if found.problems:
        raise typer.Exit(1)


def _title(found: Inspection) -> str:
    return f"{printable(found.path)} ({found.kind})"


def _print_problems(found: Inspection) -> None:
    for problem in found.problems:
        print(printable(problem))


def _print_table(found: Inspection) -> None:
    right = (Column(name, justify="right") for name in ("images", "classes", "images per class"))
    table = Table("part", *right, "image", title=_title(found), title_justify="left")
    for part, classes in found.counts.items():
        fewest, most = min(classes.values(), default=0), max(classes.values(), default=0)
        spread = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        shape = " x ".join(map(str, found.shapes.get(part, ()))) or "any size"
        table.add_row(part, f"{sum(classes.values()):,}", str(len(classes)), spread, shape)
    plain_console().print(table)
