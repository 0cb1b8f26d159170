"""What the race of the engine measured: plain values, a table, Markdown."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import printing
from ..data.settings import cores
from ..errors import InputError
from .engine import (
    DENSE,
    ENGINE,
    FP32,
    INT8,
    LARGE,
    TRAINED,
    TWIN,
    EngineRace,
    EngineResults,
    graph_names,
)
from .report import machine, read_report, sweep_values

COLUMNS = ("task", "contestant", "x engine", "lowest to highest", "measured", "accuracy")


MICRO = TRAINED[0]


def engine_report(results: EngineResults) -> dict[str, Any]:
    """Plain values: the machine, for each task ratios, their spread, and accuracies."""
    return {
        "machine": machine()
        | {"cores": cores(), "onnxruntime": _version("onnxruntime")}
        | {"times": "medians; each call on other images, which all but the engine get preprocessed"},
        "tasks": [_task_values(race, results.accuracy.get(race.preset, {})) for race in results.races],
        "sweeps": [sweep_values(each.sweep) | {"crossovers": each.crossovers} for each in results.sweeps],
        "notes": results.notes,
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package) if importlib.util.find_spec(package) else "not installed"


def _task_values(race: EngineRace, accuracy: dict[str, float]) -> dict[str, Any]:
    return {
        "task": race.task,
        "network": race.preset,
        "batch": race.batch,
        "threads": race.threads,
        "repetitions": len(race.repetitions),
        "times_ours": {name: statistics.median(each) for name, each in race.ratios.items()},
        "spread": {name: [min(each), max(each)] for name, each in race.ratios.items()},
        "ms": race.measurement.milliseconds,
        "accuracy": accuracy | _of_the_faster_graphs(race, accuracy),
    }


def _of_the_faster_graphs(race: EngineRace, accuracy: dict[str, float]) -> dict[str, float]:
    times = race.measurement.milliseconds
    faster = {kind: min(graph_names(kind), key=times.__getitem__) for kind in (FP32, INT8) if kind in times}
    return {kind: accuracy[name] for kind, name in faster.items() if name in accuracy}


def load_report(path: Path) -> dict[str, Any]:
    """A report that `snnmlp bench --engine --json` printed into a file, or all of a folder as one.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    if not path.is_dir():
        return read_report(path, ("machine", "tasks", "sweeps", "notes"), "snnmlp bench --engine")
    files = sorted(path.glob("*.json"))
    if not files:
        raise InputError(f"{path} holds no .json file; put there what snnmlp bench --engine --json printed")
    return together([load_report(file) for file in files])


def together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs on one machine as one: medians over the runs, lowest and highest of all repetitions.

    Raises:
        InputError: they are of several machines, or of several versions.
    """
    machines = [each["machine"] for each in reports]
    for machine_of in machines:
        if machine_of != machines[0]:
            raise InputError(
                f"the runs are of several machines or versions, {machines[0]} and {machine_of};"
                " give a folder for each"
            )
    by_task: dict[str, list[dict[str, Any]]] = {}
    for each in reports:
        for task in each["tasks"]:
            by_task.setdefault(task["task"], []).append(task)
    sweeps = {sweep["task"]: sweep for each in reports for sweep in each["sweeps"]}
    return {
        "machine": machines[0],
        "tasks": [_of_all_runs(tasks) for tasks in by_task.values()],
        "sweeps": list(sweeps.values()),
        "notes": list(dict.fromkeys(note for each in reports for note in each["notes"])),
    }


def _of_all_runs(tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def of_each(key: str) -> dict[str, list[Any]]:
        """Contestant -> its values, of those that every run has."""
        in_all = [name for name in tasks[0][key] if all(name in task[key] for task in tasks)]
        return {name: [task[key][name] for task in tasks] for name in in_all}

    def medians(key: str) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in of_each(key).items()}

    spread = {
        name: [min(low for low, _ in values), max(high for _, high in values)]
        for name, values in of_each("spread").items()
    }
    of_all = {"times_ours": medians("times_ours"), "ms": medians("ms"), "spread": spread}
    return tasks[0] | of_all | {"repetitions": sum(task["repetitions"] for task in tasks), "runs": len(tasks)}


def rows(measured: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The table: for each task and contestant what `COLUMNS` says."""
    for task in measured["tasks"]:
        for name, milliseconds in task["ms"].items():
            ratio, spread = (task[key].get(name) for key in ("times_ours", "spread"))
            accuracy = task["accuracy"].get(name)
            yield (
                task["task"],
                name,
                "1.00" if ratio is None else f"{ratio:.2f}",
                "" if spread is None else f"{spread[0]:.2f} to {spread[1]:.2f}",
                f"{milliseconds:.3f} ms",
                "" if accuracy is None else f"{accuracy:.1%}",
            )


def remarks(measured: dict[str, Any]) -> list[str]:
    """What stands below the table: crossovers, what was left out, and the machine."""
    lines = []
    for sweep in measured["sweeps"]:
        for name, rate in sweep["crossovers"].items():
            found = rate if isinstance(rate, str) else f"as fast as the engine where {rate:.1%} fire"
            lines.append(f"{sweep['task']}, {name}: {found}")
    if any(task["accuracy"] for task in measured["tasks"]):
        lines.append("accuracy on the embedded test images; speed at unequal accuracy is no win")
    found = measured["machine"]
    packages = f"torch {found['torch']}, ONNX Runtime {found['onnxruntime']}"
    policy = f"OMP_WAIT_POLICY {found['omp_wait_policy']}"
    where = f"{found['processor']}, {found['cores']} cores, {policy}, {packages}"
    return [*lines, *measured["notes"], f"{found['times']}; {where}"]


README_ROWS = (DENSE, TWIN, FP32, INT8)


def markdown(measured: dict[str, Any]) -> str:
    """The README's table: how many times the engine's time others take, on one core."""
    tasks = [task for task in measured["tasks"] if task["threads"] == 1 and task["network"] in (MICRO, LARGE)]
    names = [f"`{task['network']}`, batch {task['batch']}" for task in tasks]
    columns = ("time, in times the engine's", *names, f"accuracy of `{MICRO}`")
    lines = []
    for name in (ENGINE, *README_ROWS):
        cells = [_cell(task, name) for task in tasks]
        accuracy = next((task["accuracy"][name] for task in tasks if name in task["accuracy"]), None)
        if any(cells):
            cells.append("" if accuracy is None else f"{accuracy:.1%}")
            lines.append([name, *cells])
    found = measured["machine"]
    runs = ", ".join(str(task.get("runs", 1)) for task in tasks)
    of = f"medians, lowest to highest; runs, column by column: {runs}; "
    policy = f"OMP_WAIT_POLICY {found['omp_wait_policy']}"
    packages = f"torch {found['torch']}, ONNX Runtime {found['onnxruntime']}"
    shown = printing.markdown(columns, lines, numbers=True)
    return "\n".join([shown, "", f"{of}{found['processor']}, one core, {policy}, {packages}."])


def _cell(task: dict[str, Any], name: str) -> str:
    """A ratio with its spread; of the engine its time for an image; empty where it was not raced."""
    if name not in task["ms"]:
        return ""
    if name == ENGINE:
        return f"{task['ms'][ENGINE] / task['batch']:.2f} ms an image"
    low, high = task["spread"][name]
    return f"**{task['times_ours'][name]:.2f}** ({low:.2f} to {high:.2f})"
