"""The command `snnmlp compile`, and what `--engine` stands for in others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from ..checkpoints import Checkpoint
from ..data.settings import cores
from ..printing import print_json, printable
from .arguments import Json, Overrides, Source, parse_overrides

Engine = Annotated[
    bool, typer.Option("--engine", help="Run it as a program that only adds; a C compiler is needed.")
]


def compile_program(
    source: Source,
    output: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    target: Annotated[
        str, typer.Option(help="c: source to be built anywhere; native: the same, and built at once.")
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


def compiled(checkpoint: Checkpoint) -> Callable[[Tensor], Tensor]:
    """From stored images, uint8 `[B, C, h, w]`, to logits, by the engine on all cores.

    Raises:
        InputError: as `compile_network`, or the network does not fold.
    """
    from ..engine import compile_network
    from ..mfi import fold_batch_norm

    program = compile_network(fold_batch_norm(checkpoint.model), checkpoint.preprocessing)
    return lambda images: program(images, threads=cores()) * program.scale
