"""What the benchmark measured, as plain values, as a table and as Markdown."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from .. import printing
from ..errors import InputError
from ..timing import Measurement, Sweep

COLUMNS = ("task", "contestant", "x ours", "measured")


def report(
    measurements: Iterable[Measurement], sweeps: Iterable[Sweep], memory: dict[str, float]
) -> dict[str, Any]:
    """Plain values: the machine, for each task the ratios and then milliseconds, and memory in MiB."""
    return {
        "machine": machine(),
        "tasks": [{"task": m.task, "times_ours": m.ratios, "ms": m.milliseconds} for m in measurements],
        "memory_of_a_training_step_MiB": memory,
        "sweeps": [sweep_values(sweep) for sweep in sweeps],
    }


def machine() -> dict[str, Any]:
    """What decides about times: the processor or GPU, threads, how these wait, and PyTorch's version."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "device": device,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset"),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The processor's name, where the system tells (Linux), or else its kind."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def sweep_values(sweep: Sweep) -> dict[str, Any]:
    """A sweep as plain values."""
    return {
        "task": sweep.task,
        "variable": sweep.variable,
        "values": list(sweep.values),
        "ms": {
            name: [m.milliseconds[name] for m in sweep.measurements]
            for name in sweep.measurements[0].milliseconds
        },
    }


def load_report(path: Path) -> dict[str, Any]:
    """A report that `snnmlp bench --json` printed into a file.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    return read_report(path, ("machine", "tasks", "memory_of_a_training_step_MiB", "sweeps"), "snnmlp bench")


def read_report(path: Path, keys: Iterable[str], command: str) -> dict[str, Any]:
    """These parts of what a command printed into a file with `--json`.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: found[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no benchmark ({type(error).__name__}: {error});"
            f" make one: {command} --json > {path}"
        ) from error


def rows(measured: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Task, contestant, its measure as a multiple of ours, and the measure with its unit."""
    for task in measured["tasks"]:
        for name, milliseconds in task["ms"].items():
            yield task["task"], name, f"{task['times_ours'].get(name, 1):.2f}", f"{milliseconds:.2f} ms"
    memory = measured["memory_of_a_training_step_MiB"]
    for name, mebibytes in memory.items():
        ratio = mebibytes / memory["ours"]
        yield "peak memory of a training step", name, f"{ratio:.2f}", f"{mebibytes:.0f} MiB"


def remarks(measured: dict[str, Any]) -> list[str]:
    """What stands below the table: the machine."""
    return [in_words(measured["machine"])]


def in_words(machine: dict[str, Any]) -> str:
    """The machine that was measured: how its threads wait decides the ratios of small networks."""
    policy = machine.get("omp_wait_policy", "not recorded")
    torch_version = machine["torch"].split("+")[0]
    return (
        f"{machine['threads']} threads, OMP_WAIT_POLICY {policy}, {machine['device']}, torch {torch_version}."
    )


def markdown(measured: dict[str, Any]) -> str:
    """The ratios as a Markdown table: one row per task, one column per contestant."""
    tasks: dict[str, dict[str, str]] = {}
    for task, name, ratio, _ in rows(measured):
        tasks.setdefault(task, {})[name] = ratio
    names = list(dict.fromkeys(name for row in tasks.values() for name in row if name != "ours"))
    cells = [(task, *(ratios.get(name, "") for name in names)) for task, ratios in tasks.items()]
    shown = printing.markdown(("time or memory as a multiple of ours", *names), cells, numbers=True)
    return "\n".join([shown, "", *remarks(measured)])
