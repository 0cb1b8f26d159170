"""The command `snnmlp train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Preempted
from ..printing import printable
from .arguments import parse_overrides, refuse_options


def train(
    recipe: Annotated[str | None, typer.Option(help="Name of a recipe, or path of a .yaml file.")] = None,
    preset: Annotated[str | None, typer.Option(help="Network to train; by default the recipe's.")] = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Start from its weights; by default as the recipe says."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where to create the run's folder.")] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Resume the run in this folder exactly where it stopped."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(help="GPUs per machine, or processes on its CPU; by default one."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines; start the command on each.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out unreadable image files, and list them.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields of the recipe or of NetworkConfig."),
    ] = None,
) -> None:
    """Train a preset by a recipe, keep the epoch that validates best, and test it once.

    Any field of the recipe can be changed, as in learning_rate=0.01, and any
    of the network, as in time_steps=2; a dot reaches inside, as in
    neuron.beta=0.8. The run's folder keeps the recipe as it was used:
    --recipe RUN/recipe.yaml trains it again.

    Batches are split: with --devices 8 a batch of 512 is 64 images per
    GPU, and nothing else changes. Under torchrun and SLURM, which start the
    processes, leave --devices and --nodes out.
    """
    changes = parse_overrides(overrides or []) | ({} if init_from is None else {"init_from": init_from})
    changes |= {"skip_corrupt": True} if skip_corrupt else {}
    from ..training import fit, processes  # they need the extra [train], and seconds to import

    refuse_options(changes, fit)
    placement: Any = {"devices": devices, "nodes": nodes, "accelerator": accelerator}
    try:
        result = fit(preset, recipe, output=output, resume=resume, **placement, **changes)
    except processes.ReportedByFirst:
        return
    except Preempted as stop:
        if processes.is_first_process():
            print(printable(stop))
            raise typer.Exit(stop.exit_code) from stop
        return  # the first process speaks for all, and a copy that fails would take the others with it
    if processes.is_first_process():
        print(result)
        print(f"validation accuracy {100 * result.validation_accuracy:.2f} % (epoch {result.best_epoch})")
        print(printable(f"checkpoint {result.checkpoint} ({result.seconds:.0f} s)"))
