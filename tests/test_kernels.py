"""Kernels that are forked are as fresh as those that Python starts, and end with the tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh import Fresh
from jupyter_client.manager import KernelManager
from kernels import Kernel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are kernels forked")

TESTS = Path(__file__).parent
PATIENCE = 120  # seconds: machines that test are busy

STATE = """{
    "names": [name for name in vars() if not name.startswith("_")],
    "is main": __import__("sys").modules["__main__"].__dict__ is vars(),
    "folder": __import__("os").getcwd(),
    "asked": __import__("os").getenv("ASKED"),
    "paths": __import__("sys").path,
    "session": __import__("os").getsid(0),
    "threads": __import__("torch").get_num_threads(),
    "asking": {"pandas", "matplotlib"} & {*__import__("sys").modules},  # for whom they show things
    "left": hasattr(__import__("torch"), "left"),
}"""

# A program that starts a kernel, says which, and does not end. Its own fork server imports nothing before.
STARTS_A_KERNEL = """
import sys, time
from pathlib import Path
import fresh, kernels
from jupyter_client.manager import KernelManager

fresh.CONTEXT.set_forkserver_preload([])
kernels.offer()
manager = KernelManager(kernel_name="python3")
manager.start_kernel()
assert isinstance(manager.provisioner.process, kernels.Kernel)
client = manager.client()
client.start_channels()
client.wait_for_ready()
part = Path(sys.argv[1] + ".part")
part.write_text(str(manager.provisioner.pid))
part.rename(sys.argv[1])
time.sleep(3600)
"""


class Asked:
    """A running kernel, and somebody who asks it."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)
        self.pid: int = self.manager.provisioner.pid

    def run(self, code: str, asked: str = "None") -> Any:
        """What an expression is, after some code; its `repr` is Python."""
        answer = self.client.execute_interactive(code, user_expressions={"asked": asked}, timeout=PATIENCE)
        return eval(answer["content"]["user_expressions"]["asked"]["data"]["text/plain"])

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Asked]:
    started = Asked(tmp_path)
    yield started
    started.end()


def wait_until_gone(pid: int) -> None:
    latest = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < latest, f"process {pid} still runs"
        time.sleep(0.05)


def test_a_kernel_begins_with_nothing(tmp_path: Path, kernel: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(kernel.manager.provisioner.process, Kernel)
    kernel.run("import torch; torch.left = left = 1; torch.set_num_threads(3)")
    monkeypatch.setenv("ASKED", "of this kernel")
    other = Asked(tmp_path)
    state = other.run("", STATE)
    other.end()
    assert set(state["names"]) <= {"In", "Out", "exit", "quit", "get_ipython", "open"}
    assert not state["left"]
    assert state["is main"]
    assert not state["asking"]
    assert state["folder"] == str(tmp_path)
    assert state["session"] == other.pid != kernel.pid
    assert state["threads"] == int(os.environ.get("OMP_NUM_THREADS", 1))
    assert str(TESTS) not in state["paths"]
    assert state["asked"] == "of this kernel"


def test_a_kernel_can_be_interrupted_and_goes_on(kernel: Asked) -> None:
    request = kernel.client.execute("held = 7; print('begun'); import time; time.sleep(3600)")
    while kernel.client.get_iopub_msg(timeout=PATIENCE)["msg_type"] != "stream":
        pass
    kernel.manager.interrupt_kernel()
    while (answer := kernel.client.get_shell_msg(timeout=PATIENCE))["parent_header"]["msg_id"] != request:
        pass
    assert answer["content"]["ename"] == "KeyboardInterrupt"
    assert kernel.run("", "held") == 7


def test_a_kernel_is_killed_with_all_it_has_started(kernel: Asked) -> None:
    started = kernel.run("import subprocess; sleeps = subprocess.Popen(['sleep', '3600'])", "sleeps.pid")
    assert kernel.manager.is_alive()
    kernel.end()
    assert not kernel.manager.is_alive()
    for pid in (kernel.pid, started):
        wait_until_gone(pid)


def test_who_asks_for_another_environment_gets_a_python_of_its_own(tmp_path: Path) -> None:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path), env=os.environ | {"PYTHONHASHSEED": "0"})
    command = Path(f"/proc/{manager.provisioner.pid}/cmdline").read_bytes().split(b"\0")
    manager.shutdown_kernel(now=True)
    assert b"ipykernel_launcher" in command


def test_kernels_and_their_server_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "kernel"
    program = Fresh(["-c", STARTS_A_KERNEL, str(said)])
    while not said.exists():
        assert program.is_running(), program.wait().stderr
        time.sleep(0.05)
    kernel = int(said.read_text())
    status = dict(line.split(":", 1) for line in Path(f"/proc/{kernel}/status").read_text().splitlines())
    server = int(status["PPid"])
    assert server not in (os.getpid(), program.pid)
    program.send_signal(signal.SIGKILL)
    program.wait()
    for pid in (kernel, server):
        wait_until_gone(pid)
