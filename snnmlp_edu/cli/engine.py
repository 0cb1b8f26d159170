"""The command `snnmlp compile`, and what `--engine` stands for in others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from torch import Tensor

from ..checkpoints import Checkpoint
from ..data.settings import cores
from ..printing import plain_console, print_json, printable
from .arguments import Json, Overrides, Source, parse_overrides

Engine = Annotated[
    bool, typer.Option("--engine", help="Run it as a program that only adds; a C compiler is needed.")
]


def compile_program(
    source: Source,
    output: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    target: Annotated[
        str,
        typer.Option(
            help="c: source to be built anywhere; native: the same, and built at once; rv32i: for RISC-V"
            " without a multiplier; wasm: a module of WebAssembly."
        ),
    ] = "c",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Fold a network and write it as a C program that only adds, with a Makefile, in a folder of its own.

    The folder needs neither Python nor this package: the program there reads
    PGM and PPM pictures, or raw pixels, and prints their classes and logits.
    make check runs it on an example.
    """
    from ..engine.standalone import write_program
    from ..mfi import fold_batch_norm, load_or_calibrate

    loaded = load_or_calibrate(source, **parse_overrides(overrides or []))
    folded = fold_batch_norm(loaded.model)
    files = write_program(folded, output, target, loaded.class_names, loaded.origin)
    size = sum(file.stat().st_size for file in files)
    if as_json:
        names = [file.name for file in files]
        print_json(
            {"origin": loaded.origin, "target": target, "path": str(output), "files": names, "bytes": size}
        )
        return
    print(printable(f"{output}: {len(files)} files, {size:,} bytes, for {target}"))
    print(printable(f"from {loaded.origin}"))
    print(printable(f"test it with: make -C {output} check"))


def audit_engine(source: str, changes: dict[str, Any], target: str, as_json: bool) -> None:
    """Compile a network, and list what its instructions do; exit 1 if one multiplies."""
    from ..engine.exporting import write_network
    from ..engine.instructions import audit_instructions
    from ..engine.targets import build
    from ..mfi import event_driven, fold_batch_norm, load_or_calibrate

    loaded = load_or_calibrate(source, **changes)
    network, _ = write_network(event_driven(fold_batch_norm(loaded.model), weights="int8"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        program = Path(folder) / target
        build(target, network, program)
        found = audit_instructions(program)
    if as_json:
        print_json({"origin": loaded.origin, "target": target, **found.to_dict()})
    else:
        print(printable(loaded.origin))
        console = plain_console()
        shown = Table("kind", Column("instructions", justify="right"), Column("mnemonics", ratio=1), box=None)
        for kind, mnemonics in found.counts.items():
            each = ", ".join(f"{name} {count}" for name, count in mnemonics.items())
            shown.add_row(kind, f"{sum(mnemonics.values()):,}", each)
        console.print(shown)
        print("\n".join(map(printable, [*found.notes(), found.verdict()])))
    if not found.multiplication_free:
        raise typer.Exit(1)


def compiled(checkpoint: Checkpoint) -> Callable[[Tensor], Tensor]:
    """From stored images, uint8 `[B, C, h, w]`, to logits, by the engine on all cores.

    Raises:
        InputError: as `compile_network`, or the network does not fold.
    """
    from ..engine import compile_network
    from ..mfi import fold_batch_norm

    program = compile_network(fold_batch_norm(checkpoint.model), checkpoint.preprocessing)
    return lambda images: program(images, threads=cores()) * program.scale
