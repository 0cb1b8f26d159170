"""Several processes that train one network: where they run, and how they come to one decision.

Each process holds a copy of the network and takes a share of every batch; PyTorch's DDP averages the
gradients. What one process finds out on its own, that a loss is not finite, that a file cannot be written
or that it shall stop, has to be known to all before any of them acts on it: one that left alone would let
the others wait for ever. Only the first process writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from ..config import nearest
from ..data.settings import cores
from ..errors import InputError
from .rules import Precision

Accelerator = Literal["auto", "cpu", "gpu", "mps"]
PRECISION: dict[Precision, Any] = {"fp32": "32-true", "bf16": "bf16-mixed"}

Result = TypeVar("Result")


class ReportedByFirst(InputError):
    """Training stopped in all processes; the first one says why, and the others leave without a word."""


@dataclass(frozen=True)
class Placement:
    """Where a training runs.

    Args:
        devices: processes on each machine, one for each GPU or, on a CPU, each with a share of its cores.
        nodes: machines.
        accelerator: `cpu`, `gpu` or `mps`.
        launcher: what starts the processes: `lightning` for this program itself, `torchrun` or `slurm`.
    """

    devices: int = 1
    nodes: int = 1
    accelerator: str = "cpu"
    launcher: str = "lightning"

    @property
    def processes(self) -> int:
        """All processes, on all machines."""
        return self.devices * self.nodes

    def fabric(self, precision: Precision) -> tuple[Fabric, torch.amp.GradScaler | None]:
        """Lightning Fabric for these processes and this precision, and what scales gradients in fp16."""
        scaler = torch.amp.GradScaler("cuda") if precision == "fp16" else None
        plugins: list[Any] = []
        if scaler is not None:  # made here, since its state is a part of the run's
            plugins.append(MixedPrecision("16-mixed", "cuda", scaler))
        if self.launcher == "slurm":
            plugins.append(SLURMEnvironment(auto_requeue=False))  # runs are resumed with --resume
        fabric = Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            # With statistics of all images the running ones are equal everywhere: nothing to broadcast.
            strategy=DDPStrategy(broadcast_buffers=False) if self.processes > 1 else "auto",
            precision=None if scaler is not None else PRECISION[precision],
            plugins=plugins,
        )
        return fabric, scaler


def place(
    devices: int | None, nodes: int | None, accelerator: str, precision: Precision = "fp32"
) -> Placement:
    """Where a training is to run, after a check that the machine has what was asked for.

    Args:
        devices: GPUs, or processes on the CPU, of each machine; None takes the number that torchrun or SLURM
            started, else 1.
        nodes: machines; None likewise.
        accelerator: one of `auto`, `cpu`, `gpu`, `mps`.
        precision: of the recipe.

    Raises:
        InputError: there are not as many, what was started is another number, the accelerator is unknown
            or missing, or it does not calculate with this precision.
    """
    kinds = get_args(Accelerator)
    if accelerator not in kinds:
        raise InputError(
            f"accelerator is {accelerator!r}; choose one of {', '.join(kinds)}{nearest(accelerator, kinds)}"
        )
    for name, value in {"devices": devices, "nodes": nodes}.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be a whole number of at least 1")
    found = {"gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": cores()}
    if accelerator == "auto":
        accelerator = next(kind for kind, count in found.items() if count)
    launcher, started_devices, started_nodes = _started()
    for name, asked, started in (("devices", devices, started_devices), ("nodes", nodes, started_nodes)):
        if launcher != "lightning" and asked not in (None, started):
            raise InputError(
                f"{name} is {asked} and {launcher} has started {started}; leave --{name} out, or start as"
                " many"
            )
    placement = Placement(
        started_devices if devices is None else devices,
        started_nodes if nodes is None else nodes,
        accelerator,
        launcher,
    )
    if placement.processes > 1 and launcher == "lightning" and hasattr(sys, "ps1"):
        raise InputError(
            "several processes cannot be started from a notebook or a prompt; run snnmlp train in a shell,"
            " as in !snnmlp train --devices 2"
        )
    _check_machine(placement, found[accelerator])
    _check_precision(placement.accelerator, precision)
    return placement


def _started() -> tuple[str, int, int]:
    """Who started this process, and how many devices and nodes there are."""
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return "torchrun", devices, int(os.environ["WORLD_SIZE"]) // devices
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return "slurm", int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return "lightning", 1, 1


def _check_machine(placement: Placement, found: int) -> None:
    names = {"gpu": "GPU", "mps": "Apple GPU", "cpu": "CPU core"}
    if placement.devices > found:
        name = names[placement.accelerator]
        count = f"{found} {name}{'' if found == 1 else 's'}" if found else f"no {name}"
        mend = f"--devices {found}, or more machines with --nodes" if found else "--accelerator cpu"
        raise InputError(f"devices is {placement.devices} and this machine has {count}; take {mend}")
    if placement.accelerator == "mps" and placement.processes > 1:
        raise InputError("several processes cannot share an Apple GPU; take --accelerator cpu")


def _check_precision(accelerator: str, precision: Precision) -> None:
    if precision == "fp16" and accelerator == "cpu":
        raise InputError(
            "precision is fp16, which needs a GPU; on a CPU take precision=bf16 or precision=fp32"
        )
    if precision == "bf16" and accelerator == "gpu" and not torch.cuda.is_bf16_supported():
        raise InputError(
            "precision is bf16, which this GPU does not calculate with; take precision=fp16 or precision=fp32"
        )


def is_first_process() -> bool:
    """Whether this process is the first of all, by what its launcher left in the environment.

    >>> is_first_process()
    True
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name]) == 0
    return int(os.environ.get("LOCAL_RANK", 0)) == int(os.environ.get("NODE_RANK", 0)) == 0


def world_size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if _together() else 1


def rank() -> int:
    """The number of this process among those that train together; the first is 0."""
    return torch.distributed.get_rank() if _together() else 0


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def on_first(act: Callable[[], Result]) -> Result:
    """Let the first process act. All get what it returns, or stop if it cannot.

    Raises:
        InputError: the first process raised it; in the others `ReportedByFirst`.
    """
    if world_size() == 1:
        return act()
    result, mistake = None, None
    if rank() == 0:
        try:
            result = act()
        except InputError as error:
            mistake = error
    said = [result, mistake and str(mistake)]
    torch.distributed.broadcast_object_list(said)
    if mistake is not None:
        raise mistake
    if said[1] is not None:
        raise ReportedByFirst(said[1])
    return said[0]  # type: ignore[return-value]


def any_process(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process."""
    if world_size() == 1:
        return list(flags)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    counts = torch.tensor(flags, dtype=torch.float32, device=device)
    torch.distributed.all_reduce(counts)
    return [count > 0 for count in counts.tolist()]


def every_process(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    values = [value]
    if world_size() > 1:
        values = [None] * world_size()
        torch.distributed.all_gather_object(values, value)
    return values
