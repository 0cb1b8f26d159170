"""The command line `snnmlp`: parse and call, nothing else.

Exit code 0 means success, 1 a negative verdict, 2 that the call was wrong; then one line on standard
error says how to fix it.
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Column, Table

from .. import prediction
from ..checkpoints import load_checkpoint
from ..data.settings import Loading
from ..errors import InputError
from ..printing import plain_console, print_json, printable
from ..registry import create_model, get_config, list_models
from ..training import describe_accuracy, evaluate_source, own_source
from .arguments import (
    Json,
    OneLineErrors,
    Overrides,
    Source,
    TrainedNetwork,
    parse_overrides,
)
from .data import data_app
from .engine import Engine, audit_engine, compile_program, compiled
from .ledger import ledger_app
from .train import train

app = typer.Typer(
    cls=OneLineErrors,
    help="Spiking MLPs with multiplication-free inference: train them, and check what they do.",
    epilog="Example: snnmlp models",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


app.command(epilog="Example: snnmlp train --recipe fashion_smoke epochs=2 neuron.beta=0.8")(train)
app.command("compile", epilog="Example: snnmlp compile mlp_spe_nano --output nano && make -C nano check")(
    compile_program
)
app.add_typer(data_app, name="data")
app.add_typer(ledger_app, name="ledger")


def main() -> None:
    """Entry point of the command `snnmlp`."""
    warnings.showwarning = _show_warning
    app(prog_name="snnmlp")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A line of its own, without the line of code that gave it."""
    print(printable(f"warning: {message}"), file=sys.stderr)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"snnmlp-edu {importlib.metadata.version('snnmlp-edu')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: snnmlp models --json")
def models(as_json: Json = False) -> None:
    """List the presets with their size and the images they take."""
    rows = []
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        fields = ("in_channels", "image_size", "num_classes", "time_steps")
        row = {"preset": name, "parameters": sum(p.numel() for p in model.parameters())}
        rows.append(row | {field: getattr(get_config(name), field) for field in fields})
    if as_json:
        print_json(rows)
        return
    table = Table(
        "preset",
        *(Column(name, justify="right") for name in ("parameters", "input", "classes", "time steps")),
    )
    for row in rows:
        table.add_row(
            str(row["preset"]),
            f"{row['parameters']:,}",
            f"{row['in_channels']} x {row['image_size']} x {row['image_size']}",
            str(row["num_classes"]),
            str(row["time_steps"]),
        )
    plain_console().print(table)


@app.command(epilog="Example: snnmlp evaluate mlp_spe_nano")
def evaluate(
    checkpoint: TrainedNetwork,
    dataset: Annotated[str | None, typer.Option(help="Other data to test on, with the same classes.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where the files of the data set are now.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read image files; by default chosen for the machine.")
    ] = None,
    engine: Engine = False,
    as_json: Json = False,
) -> None:
    """Test a trained network on the test images of the data that it was trained on."""
    trained = load_checkpoint(checkpoint)
    source = own_source(trained, dataset, data_dir)
    correct, total = evaluate_source(trained, source, Loading(workers), compiled(trained) if engine else None)
    if as_json:
        verdict = {"checkpoint": checkpoint, "correct": correct, "total": total, "accuracy": correct / total}
        print_json(verdict)
    else:
        print(f"test accuracy {describe_accuracy(correct, total)}")


@app.command(epilog="Example: snnmlp predict mlp_spe_nano boot.png --top 2")
def predict(
    checkpoint: TrainedNetwork,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)
    ],
    top: Annotated[int, typer.Option(help="Classes to name for each image.")] = 3,
    invert: Annotated[bool, typer.Option("--invert", help="Exchange black and white first.")] = False,
    engine: Engine = False,
    as_json: Json = False,
) -> None:
    """Say what images show: any format, size and colours, fitted to what the network was trained on.

    Nothing is inverted unless you say so. The shipped network learned from garments that are white on
    black, as in Fashion-MNIST: for a dark garment on a light ground, give --invert. Transparent parts
    count as black.
    """
    trained = load_checkpoint(checkpoint)
    found = prediction.predict(trained, images, top, invert, compiled(trained) if engine else None)
    if as_json:
        rows = [
            {
                "image": each.path,
                "classes": [{"name": name, "probability": value} for name, value in each.classes],
            }
            for each in found
        ]
        print_json({"checkpoint": checkpoint, "predictions": rows})
        return
    for each in found:
        classes = ", ".join(f"{name} {100 * value:.1f} %" for name, value in each.classes)
        print(printable(f"{each.path}: {classes}"))


@app.command(epilog="Example: snnmlp bench --quick")
def bench(
    quick: Annotated[bool, typer.Option(help="Leave out sweeps and starts, which take minutes.")] = False,
    large: Annotated[
        bool, typer.Option(help="Include mlp_spe_t at 224 px and compiled blocks, which takes minutes more.")
    ] = False,
    engine: Annotated[
        bool, typer.Option("--engine", help="Only race the engine, also against ONNX Runtime.")
    ] = False,
    profile: Annotated[bool, typer.Option(help="Only profile a training step.")] = False,
    stored: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Show what an earlier run printed with --json; with --engine also a folder of such files.",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the sweeps into this .png or .svg file.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
    as_json: Json = False,
) -> None:
    """Time neurons and networks against their ReLU twins and peers, as multiples of ours."""
    if plot is not None and (plot.suffix not in (".png", ".svg") or not plot.parent.is_dir()):
        raise InputError(f"--plot is {plot}; give a .png or .svg file in a folder that exists")
    if engine and profile:
        raise InputError(
            "--profile is of a training step, which the engine does not make; leave out --engine"
        )
    from ..benchmark import engine_report
    from ..benchmark import report as training_report

    report: Any = engine_report if engine else training_report
    if stored is not None and not profile:
        measured = report.load_report(stored)
    elif engine:
        from ..benchmark import engine as engine_races

        measured = engine_report.engine_report(engine_races.run(quick, large))
    else:
        from ..benchmark import races as benchmark  # they compile, and look for the peers

        if profile:
            print(benchmark.profile_step())
            return
        memory = benchmark.peak_memory("mlp_spe_micro", batch=64)
        measured = training_report.report(*benchmark.run(quick, large), memory)
    if as_json:
        print_json(measured)
    elif as_markdown:
        print(report.markdown(measured))
    else:
        task, contestant, *numbers = report.COLUMNS
        table = Table(task, contestant, *(Column(name, justify="right") for name in numbers))
        for row in report.rows(measured):
            table.add_row(*row)
        plain_console().print(table)
        print("\n".join(report.remarks(measured)))
    if plot is not None:  # last: should it fail, the minutes of measuring are not lost
        from ..plots import plot_sweeps

        plot_sweeps(measured["sweeps"]).savefig(plot)


@app.command(epilog="Example: snnmlp export-nir mlp_spe_nano toy.nir dim=6 image_size=8 depths=[1,1]")
def export_nir(
    source: Source,
    path: Annotated[Path, typer.Argument(help="The file to write, or to replace.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Fold a small network and write it as a graph of NIR, for other simulators and for hardware."""
    from ..mfi import export_nir, fold_batch_norm, load_or_calibrate

    loaded = load_or_calibrate(source, **parse_overrides(overrides or []))
    graph = export_nir(fold_batch_norm(loaded.model), path)
    facts = {
        "path": str(path),
        "origin": loaded.origin,
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "bytes": path.stat().st_size,
        "metadata": graph.metadata,
    }
    if as_json:
        print_json(facts)
        return
    print(printable(f"{path}: {facts['nodes']} nodes, {facts['edges']} edges, {facts['bytes']:,} bytes"))
    print(printable(f"from {loaded.origin}"))
    for name, note in graph.metadata.items():
        print(f"{name}: {note}")


@app.command(epilog="Example: snnmlp audit mlp_spe_t image_size=32")
def audit(
    source: Source,
    overrides: Overrides = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Read the instructions of the compiled network instead.")
    ] = False,
    target: Annotated[
        str | None, typer.Option(help="With --engine, what it is compiled for: native, rv32i or wasm.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fold what folds, then prove that no multiplication is left; exit 1 and say where if one is."""
    if target is not None and not engine:
        raise InputError(f"--target is {target}, which only the engine has; add --engine")
    if engine:
        audit_engine(source, parse_overrides(overrides or []), target or "native", as_json)
        return
    from ..mfi import audit, fold_batch_norm, load_or_calibrate
    from ..mfi.auditing import report

    loaded = load_or_calibrate(source, **parse_overrides(overrides or []))
    folded: Any = fold_batch_norm(loaded.model, strict=False)
    found = audit(folded, loaded.images)
    if as_json:
        not_folded = [str(layer) for layer in folded.not_folded]
        print_json({"origin": loaded.origin, "not_folded": not_folded, **found.to_dict()})
    else:
        print(printable(loaded.origin))
        console = plain_console()
        widths = found.widths(console.width - len(report.COLUMNS))
        for title, groups in found.sections().items():
            columns = [Column(name, width=width) for name, width in zip(report.COLUMNS, widths, strict=True)]
            shown = Table(*columns, box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
            for group in groups:
                shown.add_row(*group.cells())
            console.print(shown)
        not_folded = [replace(layer, path=report.without_numbers(layer.path)) for layer in folded.not_folded]
        print("\n".join([*map(str, dict.fromkeys(not_folded)), *found.notes(), found.verdict()]))
    if not found.multiplication_free:
        raise typer.Exit(1)


@app.command(epilog="Example: snnmlp cost mlp_spe_t image_size=64 time_steps=2")
def cost(source: Source, overrides: Overrides = None, as_json: Json = False) -> None:
    """Count what one image takes, operation by operation, and price it against the ReLU twin."""
    from ..cost import count_operations, relu_twin, table
    from ..mfi import load_or_calibrate

    loaded = load_or_calibrate(source, **parse_overrides(overrides or []))
    counted = count_operations(loaded.model, loaded.images)
    twin = count_operations(relu_twin(loaded.model), loaded.images[:1])
    if as_json:
        facts = {"origin": loaded.origin, "images": len(loaded.images), **counted.to_dict()}
        print_json(facts | {"relu_twin": twin.to_dict()})
        return
    first, *counts = table.COLUMNS
    shown = Table(first, *(Column(name, justify="right") for name in counts))
    for row in table.cells(counted):
        shown.add_row(*row)
    print(printable(f"{loaded.origin}: operations of one image"))
    plain_console().print(shown)
    print("\n".join(table.summary(counted, twin)))
