"""Kernels for notebooks that begin at once, as the processes of `fresh` do.

Jupyter starts a kernel by a provisioner, and takes this one once `offer` was called. A kernel that is to see
other environment variables than this process does, as those of the book's engine, gets a Python of its own
all the same: some are read only while Python starts. So does every kernel of `pytest book/chapters` alone,
as in `make test-portable`, since no test beside this file is asked for then.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from fresh import Fresh, wait_for_server
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

TESTS = Path(__file__).parent


def offer() -> None:
    """From now on this process's kernels are these."""
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["fresh"] = EntryPoint("fresh", f"{__name__}:FreshProvisioner", factory.GROUP_NAME)
    factory.default_provisioner_name = "fresh"


class FreshProvisioner(LocalProvisioner):
    """Starts kernels of this Python in processes that have imported the package already."""

    async def pre_launch(self, **settings: Any) -> dict[str, Any]:
        if settings.get("env", os.environ) == os.environ:
            wait_for_server()  # ports are chosen now: until the kernel takes them, anybody may
        return await super().pre_launch(**settings)

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> KernelConnectionInfo:
        python, *options = cmd
        if python != sys.executable or "-m" not in options or settings["env"] != os.environ:
            return await super().launch_kernel(cmd, **settings)
        self.cwd = settings.get("cwd") or os.getcwd()
        self.process = Kernel(options[options.index("-m") :], self.cwd)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class Kernel:
    """The process of a kernel, with as much of `subprocess.Popen` as Jupyter asks for."""

    stdin = stdout = stderr = None  # what a kernel says goes to its messages

    def __init__(self, words: list[str], folder: str) -> None:
        # Where imports are looked for without what pytest has added.
        paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        paths += [each for each in sys.path if each not in (str(TESTS), str(TESTS.parent))]
        prepare = partial(_become_a_kernel, folder, [*dict.fromkeys(filter(None, paths))])
        self._process = Fresh(words, prepare=prepare, daemon=True)
        self.pid = self._process.pid
        self.poll, self.send_signal = self._process.poll, self._process.send_signal

    def wait(self) -> int:
        return self._process.wait().returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become_a_kernel(folder: str, paths: list[str]) -> None:
    """Take what Jupyter gives a kernel: a session and a folder of its own, and no life beyond the tests'."""
    os.setsid()
    os.chdir(folder)
    sys.path[:] = paths
    multiprocessing.current_process().daemon = False  # it may start processes of its own
    threading.Thread(target=_end_with_the_tests, daemon=True).start()


def _end_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.killpg(0, signal.SIGKILL)
