"""Several processes that train one network: where they run, and how they come to one decision.

Each process holds a copy of the network and takes a share of every batch; PyTorch's DDP averages the
gradients. What one process finds out on its own, that a loss is not finite, that a file cannot be written
or that it is told to stop, has to be known to all before any of them acts on it: if one left alone, the
others would wait forever. Only the first process writes.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, assert_never

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from ..data.settings import cores
from ..errors import InputError
from ..fields import checked, whole
from .recipe import Precision
from .stopping import Interrupted

Accelerator = Literal["auto", "cpu", "gpu", "mps"]
Launcher = Literal["lightning", "torchrun", "slurm"]
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
# Set by the process that starts copies of itself, so that a copy recognises its parent.
STARTED_BY = "SNNMLP_STARTED_BY"
PRECISION: dict[Precision, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

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
        named: whether the accelerator was asked for by its name.
    """

    devices: int = 1
    nodes: int = 1
    accelerator: str = "cpu"
    launcher: Launcher = "lightning"
    named: bool = field(default=False, compare=False)

    @property
    def processes(self) -> int:
        """All processes, on all machines."""
        return self.devices * self.nodes

    def fabric(self, precision: Precision) -> tuple[Fabric, torch.amp.GradScaler | None]:
        """Lightning Fabric for these processes and this precision, and what scales gradients in fp16."""
        scaler = torch.amp.GradScaler("cuda") if precision == "fp16" else None
        plugins: list[Any] = [self._environment()]
        if scaler is not None:  # made here, since its state is a part of the run's
            plugins.append(MixedPrecision(PRECISION[precision], "cuda", scaler))
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

    def _environment(self) -> ClusterEnvironment:
        """Named to Lightning, which would else guess by variables that may be left over."""
        match self.launcher:
            case "lightning":
                return LightningEnvironment()
            case "torchrun":
                return TorchElasticEnvironment()
            case "slurm":
                # Resuming is up to --resume; Lightning's own way would look for files of another format.
                return SLURMEnvironment(auto_requeue=False)
        assert_never(self.launcher)

    def resume_command(self, folder: Path) -> str:
        """The command that resumes a run on as many processes.

        >>> Placement(devices=2, accelerator="cpu", named=True).resume_command(Path("runs/a b"))
        "snnmlp train --resume 'runs/a b' --devices 2 --accelerator cpu"
        """
        words = ["--resume", str(folder)]
        match self.launcher:
            case "lightning":
                start = ["snnmlp", "train"]
                words += ["--devices", str(self.devices)] if self.devices > 1 else []
                words += ["--nodes", str(self.nodes)] if self.nodes > 1 else []
            case "torchrun":
                start = ["torchrun", "--nproc-per-node", str(self.devices)]
                start += ["--nnodes", str(self.nodes)] if self.nodes > 1 else []
                start += ["-m", "snnmlp_edu", "train"]
            case "slurm":
                start = ["srun", "snnmlp", "train"]
            case _:
                assert_never(self.launcher)
        words += ["--accelerator", self.accelerator] if self.named else []
        return shlex.join([*start, *words])


def resolve_devices(
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
        InputError: there are not as many, what was started is another number, the environment promises
            processes that are not there, the accelerator is unknown or missing, or it does not support
            this precision.
    """
    checked("accelerator", accelerator, Accelerator)
    for name, value in {"devices": devices, "nodes": nodes}.items():
        checked(name, value, Annotated[int, whole(1)] | None)
    found = {"gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": cores()}
    named = accelerator != "auto"
    if not named:
        accelerator = next(kind for kind, count in found.items() if count)
    launcher, started_devices, started_nodes = started(os.environ)
    for name, asked, there in (("devices", devices, started_devices), ("nodes", nodes, started_nodes)):
        if launcher != "lightning" and asked not in (None, there):
            raise InputError(
                f"{name} is {asked} and {launcher} has started {there}; leave --{name} out, or start as many"
            )
    placement = Placement(
        started_devices if devices is None else devices,
        started_nodes if nodes is None else nodes,
        accelerator,
        launcher,
        named,
    )
    if launcher == "lightning":
        _check_alone(os.environ, placement)
    if launcher == "torchrun":
        _check_agent(os.environ)
    if placement.processes > 1 and launcher == "lightning" and hasattr(sys, "ps1"):
        raise InputError(
            "several processes cannot be started from a notebook or a prompt; run snnmlp train in a shell,"
            " as in !snnmlp train --devices 2"
        )
    _check_machine(placement, found[accelerator])
    _check_precision(placement.accelerator, precision)
    return placement


def started(environment: Mapping[str, str]) -> tuple[Launcher, int, int]:
    """Who started this process, and how many devices and nodes there are.

    Args:
        environment: the variables in which torchrun and SLURM say so.

    Raises:
        InputError: they are incomplete, or SLURM reserved more than it started.

    >>> started({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NNODES": "2"})
    ('slurm', 2, 2)
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "RANK", "LOCAL_RANK")
        devices, processes, *_ = (_whole(environment, name) for name in names)
        _check_shared_out(processes, max(devices, 1), "WORLD_SIZE")
        return "torchrun", devices, processes // devices
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        reserved, nodes = _whole(environment, "SLURM_NTASKS"), _whole(environment, "SLURM_NNODES", "1")
        tasks = _whole(environment, "SLURM_STEP_NUM_TASKS", "1")  # srun alone says it
        if tasks != reserved:
            raise InputError(
                f"SLURM reserved {reserved} tasks and started {tasks} here; start them with srun, as in: srun"
                " snnmlp train ...; or unset SLURM_NTASKS to train in one process"
            )
        if reserved > 1:
            _check_shared_out(reserved, nodes, "SLURM_NTASKS")
            return "slurm", reserved // nodes, nodes
    return "lightning", 1, 1


def _whole(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environment.get(name, default)
    if text is None or not text.isdecimal():
        said = "is not set" if text is None else f"is {text!r}"
        raise InputError(
            f"{name} {said}, which torchrun and srun set to a whole number: start with one of them"
        )
    return int(text)


def _check_shared_out(processes: int, among: int, name: str) -> None:
    if among < 1 or processes < among or processes % among:
        raise InputError(
            f"{name} is {processes}, which {among} cannot share evenly; start as many on each machine"
        )


def _check_agent(environment: Mapping[str, str]) -> None:
    """Notice variables that outlived their torchrun, which serves a port while it runs."""
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address, port = environment.get("MASTER_ADDR", ""), _whole(environment, "MASTER_PORT")
    try:
        socket.create_connection((address, port), timeout=20).close()
    except OSError as error:
        raise InputError(
            f"torchrun promised {environment['WORLD_SIZE']} processes and does not answer at"
            f" {address}:{port}; start with torchrun, or unset TORCHELASTIC_RUN_ID to train in one process"
        ) from error


def mark_copies(placement: Placement) -> None:
    """Let the copies that this program is about to start recognise their parent."""
    if placement.devices > 1 and placement.launcher == "lightning" and not _is_copy(os.environ):
        os.environ[STARTED_BY] = str(os.getpid())


def _is_copy(environment: Mapping[str, str]) -> bool:
    """Whether this process, or the one that started it, has started copies of itself."""
    return environment.get(STARTED_BY) in (str(os.getpid()), str(os.getppid()))


def _check_alone(environment: Mapping[str, str], placement: Placement) -> None:
    """Notice variables that promise processes that were never started.

    Raises:
        InputError: names the variables.
    """
    if _is_copy(environment):
        return
    if placement.nodes > 1:
        missing = [name for name in ("MASTER_ADDR", "NODE_RANK") if name not in environment]
        if missing:
            raise InputError(
                f"nodes is {placement.nodes}, which needs {' and '.join(missing)}; set MASTER_ADDR to the"
                " first machine on all of them, and NODE_RANK to 0, 1, ...; or start with torchrun or srun"
            )
        rank = _whole(environment, "NODE_RANK")
        if rank >= placement.nodes:
            raise InputError(f"NODE_RANK is {rank} and nodes {placement.nodes}; number them from 0")
    allowed = ("NODE_RANK", "GROUP_RANK") if placement.nodes > 1 else ()
    left = [name for name in RANKS if environment.get(name, "0") != "0" and name not in allowed]
    left += ["WORLD_SIZE"] if environment.get("WORLD_SIZE", "1") != "1" else []
    # With LOCAL_RANK in the environment, whatever it is, Lightning starts no copies.
    left += ["LOCAL_RANK"] if placement.devices > 1 and environment.get("LOCAL_RANK") == "0" else []
    if left:
        found = ", ".join(f"{name}={environment[name]}" for name in left)
        raise InputError(
            f"{found} in the environment promise other processes, and no launcher started any; unset"
            f" {' '.join(left)}, or start with torchrun or srun"
        )


def _check_machine(placement: Placement, found: int) -> None:
    names = {"gpu": "GPU", "mps": "Apple GPU", "cpu": "CPU core"}
    if placement.devices > found:
        name = names[placement.accelerator]
        count = f"{found} {name}{'' if found == 1 else 's'}" if found else f"no {name}"
        remedy = f"--devices {found}, or more machines with --nodes" if found else "--accelerator cpu"
        raise InputError(f"devices is {placement.devices} and this machine has {count}; take {remedy}")
    if placement.accelerator == "mps" and placement.processes > 1:
        raise InputError("several processes cannot share an Apple GPU; take --accelerator cpu")


def _check_precision(accelerator: str, precision: Precision) -> None:
    if precision == "fp16" and accelerator == "cpu":
        raise InputError(
            "precision is fp16, which needs a GPU; on a CPU take precision=bf16 or precision=fp32"
        )
    if precision == "bf16" and accelerator == "gpu" and not torch.cuda.is_bf16_supported():
        raise InputError(
            "precision is bf16, which this GPU does not support; take precision=fp16 or precision=fp32"
        )


def is_first_process() -> bool:
    """Whether this process is the first of all, by what its launcher left in the environment.

    >>> is_first_process()
    True
    """
    match started(os.environ)[0]:
        case "torchrun":
            names: tuple[str, ...] = ("RANK",)
        case "slurm":
            names = ("SLURM_PROCID",)
        case "lightning":
            names = ("LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


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
    result: Result | None = None
    mistake: InputError | Interrupted | None = None
    if rank() == 0:
        try:
            result = act()
        except (InputError, Interrupted) as error:
            mistake = error
    said: list[Any] = [result, mistake and str(mistake)]
    torch.distributed.broadcast_object_list(said)
    if mistake is not None:
        raise mistake
    if said[1] is not None:
        raise ReportedByFirst(said[1])
    return said[0]


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
