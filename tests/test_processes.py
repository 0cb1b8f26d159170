"""Several processes train as one would: same gradients, same weights, one run folder, one last word."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import Fresh, run_fresh
from torch import Tensor, nn
from typer.testing import CliRunner

from snnmlp_edu.checkpoints import hash_tensors, load_checkpoint, read_tensors
from snnmlp_edu.cli import app
from snnmlp_edu.errors import InputError
from snnmlp_edu.training import Recipe, fit, load_recipe
from snnmlp_edu.training.processes import Placement, is_first_process, resolve_devices
from snnmlp_edu.training.synchronise import SharedBatchNorm, shared_statistics

RECIPE = Recipe(
    name="shared",
    source="ours",
    epochs=2,
    learning_rate=0.5,
    schedule="constant",
    optimizer="sgd",
    batch_size=1800,  # 3 steps an epoch
    max_steps=4,
    model={"dim": 6, "depths": [1, 1], "patch_size": 8, "time_steps": 2, "neuron": {"backend": "eager"}},
    flip=True,
    max_shift=2,
    save_every=1,
)

# The command line, in which one process suffers what the environment names.
PROGRAM = """
import os, signal, sys
import torch
from lightning_fabric.plugins.precision import DoublePrecision
from snnmlp_edu import checkpoints
from snnmlp_edu.cli import main
from snnmlp_edu.model.network import SpikingNetwork
from snnmlp_edu.training import epochs, fitting, loop, processes

rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))
loss_of = loop.loss_of

def suffering(network, images, labels, state):
    if os.environ.get("SUFFERS") == f"{rank} SIGTERM" and state.step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if os.environ.get("SUFFERS") == f"{rank} NaN" and state.step == 2:
        with torch.no_grad():
            state.model.get_parameter("head.linear.bias")[0] = float("nan")
    return loss_of(network, images, labels, state)

def forbidden(*arguments):
    raise AssertionError("only the first process writes")

loop.loss_of = suffering
if rank > 0:
    os.fsync = forbidden  # every file of a run is written through to the disk
if "DOUBLE" in os.environ:  # no recipe has it: the network in 64 bit, and no test in 32
    checkpoints.require_rebuildable = lambda *_: None
    processes.PRECISION["fp32"] = "64-true"
    DoublePrecision.convert_output = lambda self, logits: logits  # which it would round to 32 bit
    fitting.test_once = lambda *_: (1, 1, 0.0)
    epochs.EpochKeeper.firing_rates = lambda *_: {}
    forward = SpikingNetwork.forward_steps
    SpikingNetwork.forward_steps = lambda self, images: forward(self, images.double())
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program, the recipe and the runs lie."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "shared.yaml").write_text(RECIPE.to_yaml())
    return folder


def command(folder: Path, *words: Any) -> list[str]:
    return [str(folder / "program.py"), "train", "--accelerator", "cpu", *map(str, words)]


def environment(**changes: Any) -> dict[str, str]:
    """This process's, without what other launchers of this machine may have left in it."""
    prefixes = ("SLURM_", "LOCAL_", "GROUP_", "MASTER_", "NODE_")
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "SNNMLP_STARTED_BY") and not name.startswith(prefixes)
    }
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return clean | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | {k: str(v) for k, v in changes.items()}


def run(words: list[str], **changes: Any) -> subprocess.CompletedProcess[str]:
    return run_fresh(words, environment(**changes))


def run_by_slurm(words: list[str], **changes: Any) -> list[subprocess.CompletedProcess[str]]:
    """Two tasks as `srun` starts them: what each of them said, and how it ended."""
    variables = {
        "SLURM_NTASKS": 2,
        "SLURM_STEP_NUM_TASKS": 2,
        "SLURM_NTASKS_PER_NODE": 2,
        "SLURM_NNODES": 1,
        "SLURM_JOB_ID": 7,
        "SLURM_JOB_NAME": "train",
        "SLURM_NODEID": 0,
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    tasks = [
        Fresh(words, environment(**variables, SLURM_PROCID=rank, SLURM_LOCALID=rank, **changes))
        for rank in range(2)
    ]
    return [task.wait() for task in tasks]


def free_port() -> int:
    with socket.socket() as place_to_ask:
        place_to_ask.bind(("127.0.0.1", 0))
        return place_to_ask.getsockname()[1]


def weights(run_folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(run_folder / "checkpoint.safetensors").model.state_dict()


def state_hash(run_folder: Path) -> str:
    return hash_tensors(read_tensors((run_folder / "last.safetensors").read_bytes(), "state")[0])


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    """The run of two processes that this program started itself, as from a notebook's shell."""
    words = ["--recipe", folder / "shared.yaml", "--output", folder / "two", "--devices", 2]
    done = run(command(folder, *words), MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("global batch 1800 = 2 processes x 900 images; learning rate 0.5") == 1
    assert done.stdout.count("test accuracy") == 1
    assert [path.name for path in (folder / "two").iterdir()] == ["shared-0-1"], "one folder for all"
    return folder / "two" / "shared-0-1"


def test_two_processes_train_as_one_with_the_same_batch(folder: Path, tmp_path: Path) -> None:
    # Order, augmentation and the statistics of batch norm are those of the whole batch. In 64 bit, since a
    # potential that rounding moves over a threshold, by chance, is a spike more or less. Under torchrun.
    (tmp_path / "shared.yaml").write_text(
        RECIPE.replace(accumulate=2, batch_size=900, ema_decay=0.5, gradient_clip=0.5, loss="tet").to_yaml()
    )
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    words = command(folder, "--recipe", tmp_path / "shared.yaml", "--output")
    two = run_fresh([*torchrun, *words, str(tmp_path / "two")], environment(DOUBLE=1))
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("test accuracy") == 1
    one = run_fresh([*words, str(tmp_path / "one")], environment(DOUBLE=1))
    assert one.returncode == 0, one.stderr
    expected, found = (
        read_tensors((tmp_path / name / "shared-0-1" / "last.safetensors").read_bytes(), name)[0]
        for name in ("one", "two")
    )
    compared = [
        name for name in expected if name.startswith(("state.model.", "state.average.", "state.optimizer."))
    ]
    for name in compared:  # weights, averages, statistics, and gradients as the momentum has summed them
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-10, msg=name)
    assert any("average.module.stages.0" in name for name in compared)
    assert any("momentum_buffer" in name for name in compared)
    weight = expected["state.model.head.linear.weight"]
    assert weight.dtype == torch.float64


def test_a_run_of_two_processes_says_so(two: Path) -> None:
    kept = load_checkpoint(two / "checkpoint.safetensors")
    assert (kept.metrics["processes"], kept.metrics["global_batch"]) == (2, 1800)
    assert kept.metrics["test_total"] == 1000


def test_a_notebooks_plotting_backend_is_no_hindrance(two: Path) -> None:
    assert (two / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_signal_to_one_process_stops_all_and_slurm_goes_on(folder: Path, two: Path, tmp_path: Path) -> None:
    words = ["--recipe", folder / "shared.yaml", "--output", tmp_path, "--devices", 2]
    stopped = run(command(folder, *words), SUFFERS="1 SIGTERM")
    assert stopped.returncode == 143, stopped.stderr
    cut = tmp_path / "shared-0-1"
    resume = f"snnmlp train --resume {cut} --devices 2 --accelerator cpu"
    assert stopped.stdout.splitlines()[-1] == f"stopped at step 2; resume with: {resume}"

    first, other = run_by_slurm(command(folder, "--resume", cut))
    assert [first.returncode, other.returncode] == [0, 0], first.stderr + other.stderr
    assert "test accuracy" in first.stdout
    assert other.stdout == ""
    assert hash_tensors(weights(cut)) == hash_tensors(weights(two)), "bit for bit"
    assert state_hash(cut) == state_hash(two)


def test_a_loss_that_breaks_in_one_process_stops_all_in_one_line(folder: Path, tmp_path: Path) -> None:
    words = command(folder, "--recipe", folder / "shared.yaml", "--output", tmp_path)
    first, other = run_by_slurm(words, SUFFERS="1 NaN")
    assert first.returncode == 2, first.stderr
    lines = [line for line in (first.stderr + other.stderr).splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, first.stderr + other.stderr
    assert "the loss is nan at step 2, first broken: the weights head.linear.bias" in lines[0]
    assert f"the last good state, of step 2, is {tmp_path / 'shared-0-1' / 'last.safetensors'}" in lines[0]


def test_a_run_of_two_processes_does_not_go_on_with_one(two: Path) -> None:
    checkpoint = two / "checkpoint.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.unlink()  # as if it had not come to the test
    try:
        with pytest.raises(InputError, match="processes is 2 in the run and 1 now"):
            fit(resume=two, accelerator="cpu", progress=False)
    finally:
        checkpoint.write_bytes(content)


# --- where a training runs ---------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of four cores and two GPUs, on which nothing has been started."""
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "LOCAL_", "GROUP_", "NODE_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr("snnmlp_edu.training.processes.cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delattr(sys, "ps1", raising=False)
    return monkeypatch


def test_what_is_asked_for_is_taken(machine: pytest.MonkeyPatch) -> None:
    assert resolve_devices(None, None, "auto") == Placement(1, 1, "gpu")
    machine.setenv("MASTER_ADDR", "first")
    machine.setenv("NODE_RANK", "2")
    assert resolve_devices(2, 3, "auto") == Placement(2, 3, "gpu")
    assert resolve_devices(2, 3, "auto").processes == 6
    machine.delenv("NODE_RANK")
    assert resolve_devices(4, None, "cpu") == Placement(4, 1, "cpu")
    machine.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_devices(None, None, "auto") == Placement(1, 1, "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, None, "auto"), "devices is 8 and this machine has 2 GPUs; take --devices 2, or more machines"),
        ((5, 1, "cpu"), "devices is 5 and this machine has 4 CPU cores; take --devices 4"),
        ((1, 1, "mps"), "devices is 1 and this machine has no Apple GPU; take --accelerator cpu"),
        ((0, None, "auto"), "devices is 0; it must be a whole number of at least 1"),
        ((1, -1, "auto"), "nodes is -1; it must be"),
        ((1, 1, "gpus"), "accelerator is 'gpus'.*did you mean 'gpu'"),
        ((1, 1, "cpu", "fp16"), "precision is fp16, which needs a GPU"),
    ],
)
def test_what_the_machine_does_not_have(machine: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_devices(*arguments)


def test_a_gpu_without_bf16_and_a_machine_without_gpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(InputError, match="precision is bf16, which this GPU does not support"):
        resolve_devices(1, 1, "gpu", "bf16")
    machine.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="this machine has no GPU; take --accelerator cpu"):
        resolve_devices(1, 1, "gpu")


def test_a_notebook_cannot_start_copies_of_itself(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(sys, "ps1", ">>> ", raising=False)
    assert resolve_devices(1, 1, "cpu").processes == 1
    with pytest.raises(InputError, match="several processes cannot be started from a notebook"):
        resolve_devices(2, 1, "cpu")


TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "4",
    "TORCHELASTIC_RUN_ID": "x",
}
SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_JOB_NAME": "train",
}


@pytest.mark.parametrize(("launcher", "variables"), [("torchrun", TORCHRUN), ("slurm", SLURM)])
def test_launchers_say_how_many_there_are(
    machine: pytest.MonkeyPatch, launcher: str, variables: dict[str, str]
) -> None:
    assert is_first_process()
    for name, value in variables.items():
        machine.setenv(name, value)
    assert (
        resolve_devices(None, None, "auto")
        == Placement(2, 2, "gpu", launcher)
        == resolve_devices(2, 2, "auto")
    )
    assert not is_first_process()
    with pytest.raises(InputError, match=f"devices is 8 and {launcher} has started 2; leave --devices out"):
        resolve_devices(8, None, "auto")


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({"SLURM_NTASKS": "2"}, (), "SLURM reserved 2 tasks and started 1 here; start them with srun"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}, (), "SLURM reserved 4 tasks and started 2"),
        (SLURM | {"SLURM_NNODES": "3"}, (), "SLURM_NTASKS is 4, which 3 cannot share evenly"),
        ({"SLURM_NTASKS": "two"}, (), "SLURM_NTASKS is 'two'"),
        ({"RANK": "1"}, (), "RANK=1 in the environment"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, (), "WORLD_SIZE=2 in the environment .* unset WORLD_SIZE"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (), "RANK=1, LOCAL_RANK=1, WORLD_SIZE=2 in"),
        ({"LOCAL_RANK": "0"}, (2, 1), "LOCAL_RANK=0 in the environment"),
        ({"NODE_RANK": "1"}, (), "NODE_RANK=1 in the environment"),
        ({}, (1, 2), "nodes is 2, which needs MASTER_ADDR and NODE_RANK"),
        ({"MASTER_ADDR": "first", "NODE_RANK": "2"}, (1, 2), "NODE_RANK is 2 and nodes 2"),
        ({"TORCHELASTIC_RUN_ID": "x"}, (), "LOCAL_WORLD_SIZE is not set"),
        (TORCHRUN | {"WORLD_SIZE": "3"}, (), "WORLD_SIZE is 3, which 2 cannot share evenly"),
    ],
)
def test_an_environment_that_promises_other_processes_is_refused(
    machine: pytest.MonkeyPatch, variables: dict[str, str], arguments: tuple[int, ...], message: str
) -> None:
    for name, value in variables.items():
        machine.setenv(name, value)
    devices, nodes = arguments or (None, None)
    with pytest.raises(InputError, match=message):
        resolve_devices(devices, nodes, "cpu")


def test_variables_of_a_torchrun_that_is_gone_are_refused(machine: pytest.MonkeyPatch) -> None:
    agent = {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    for name, value in (TORCHRUN | agent).items():
        machine.setenv(name, value)
    with pytest.raises(InputError, match="torchrun promised 4 processes and does not answer"):
        resolve_devices(None, None, "cpu")


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        {"SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash"},
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "SNNMLP_STARTED_BY": str(os.getppid())},
    ],
)
def test_variables_that_promise_nobody_else_are_no_hindrance(
    machine: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        machine.setenv(name, value)
    assert resolve_devices(None, None, "cpu") == Placement(1, 1, "cpu")


@pytest.mark.parametrize(
    ("placement", "command"),
    [
        (Placement(), "snnmlp train --resume 'a run'"),
        (Placement(2, 3, "cpu"), "snnmlp train --resume 'a run' --devices 2 --nodes 3"),
        (Placement(1, 1, "cpu", named=True), "snnmlp train --resume 'a run' --accelerator cpu"),
        (
            Placement(4, 1, "gpu", "torchrun"),
            "torchrun --nproc-per-node 4 -m snnmlp_edu train --resume 'a run'",
        ),
        (Placement(4, 2, "gpu", "slurm"), "srun snnmlp train --resume 'a run'"),
    ],
)
def test_the_command_that_resumes_starts_as_many_processes(placement: Placement, command: str) -> None:
    assert placement.resume_command(Path("a run")) == command


def test_left_over_variables_get_one_line_from_the_command(
    folder: Path, tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    _, *words = command(folder, "--recipe", folder / "shared.yaml", "--output", tmp_path / "runs")
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for variables, left in ((torchrun, "RANK=1"), ({"SLURM_NTASKS": "2"}, "SLURM reserved 2 tasks")):
        answer = CliRunner().invoke(app, words, env=variables)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert answer.stderr.count("\n") == 1, answer.stderr
        assert left in answer.stderr
    assert not (tmp_path / "runs").exists()


def test_released_batches_are_shared_out_as_they_were() -> None:
    recipe = load_recipe("imagenet_released")
    assert recipe.batch_size // 8 == 64
    assert recipe.base_batch == recipe.batch_size


# --- batch norm over processes -----------------------------------------------------------------------


def test_shared_batch_norm_takes_half_precision() -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1
    )
    try:
        plain, x = nn.BatchNorm1d(3), torch.randn(12, 3).bfloat16()
        shared = nn.Sequential(nn.BatchNorm1d(3))
        with shared_statistics(shared, x.device), torch.autocast("cpu", torch.bfloat16):
            assert isinstance(shared[0], SharedBatchNorm)
            found = shared(x)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), plain(x.float()), rtol=0.01, atol=0.01)
        torch.testing.assert_close(shared[0].running_var, plain.running_var)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(12, 3), (4, 3, 5)])
def test_shared_batch_norm_of_one_process_is_batch_norm(shape: tuple[int, ...]) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1
    )
    try:
        plain, x = nn.BatchNorm1d(3).double(), torch.randn(shape, dtype=torch.float64)
        with torch.no_grad():
            plain.weight.uniform_(-1, 1)
            plain.bias.uniform_(-1, 1)
        model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(3).double()))
        model[0][0].load_state_dict(plain.state_dict())
        with shared_statistics(model, x.device):
            assert isinstance(model[0][0], SharedBatchNorm)
            assert list(model.state_dict()) == ["0.0." + name for name in plain.state_dict()]
            for _ in range(2):
                inputs = [x.clone().requires_grad_() for _ in range(2)]
                weights = torch.randn(shape, dtype=torch.float64)
                outputs = [layer(each) for layer, each in zip((plain, model), inputs, strict=True)]
                torch.testing.assert_close(*outputs)
                for output in outputs:
                    (output * weights).sum().backward()
                torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
            for one, other in zip(plain.parameters(), model.parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad)
            model.eval()
        assert type(model[0][0]) is nn.BatchNorm1d
        assert not model[0][0].training
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(model[0][0].state_dict()[name], tensor)
        torch.testing.assert_close(model(x), plain.eval()(x))
    finally:
        torch.distributed.destroy_process_group()
