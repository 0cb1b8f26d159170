"""Processes of their own that begin at once: forked off one that has imported the package and done nothing.

They are as fresh as `python -c` and `python -m` are, signals, streams and exit codes included, without the
seconds that importing PyTorch takes. What is about the imports themselves, or about how a process ends that
nobody reads any more, starts a Python of its own.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

CONTEXT = multiprocessing.get_context("forkserver")
# Without pandas and Matplotlib, which ask as they are imported who shows what they make.
CONTEXT.set_forkserver_preload(
    [
        "snnmlp_edu.cli",
        "snnmlp_edu.training",
        "snnmlp_edu.mfi",
        "torch._inductor.compile_fx",
        "ipykernel.kernelapp",
        "scipy.stats",
        "snntorch",
    ]
)
STREAMS = {1: "out", 2: "err"}
Result = TypeVar("Result")
PATIENCE = 300  # seconds: machines that test are busy


class Fresh:
    """A process that carries out what would follow `python`: `-c CODE`, `-m MODULE` or a file, and words.

    `prepare` comes first. When this process ends, it ends what is `daemon` and waits for all others.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] = os.environ,
        prepare: Callable[[], None] | None = None,
        daemon: bool = False,
    ) -> None:
        self.words = [*words]
        self._streams = Path(tempfile.mkdtemp())
        for name in STREAMS.values():
            (self._streams / name).touch()
        self._process = CONTEXT.Process(
            target=_begin, args=(self.words, dict(environment), self._streams, prepare), daemon=daemon
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def is_running(self) -> bool:
        return self._process.is_alive()

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its exit code and what it has said."""
        self._process.join(PATIENCE)
        if self.is_running():
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"{self.words[:2]} has not ended in {PATIENCE} seconds")
        out, err = ((self._streams / name).read_text(encoding="utf-8") for name in STREAMS.values())
        shutil.rmtree(self._streams)
        assert self._process.exitcode is not None
        return subprocess.CompletedProcess(self.words, self._process.exitcode, out, err)


@functools.cache
def wait_for_server() -> None:
    """Come back when it has imported all, so that processes begin at once from now on."""
    first = CONTEXT.Process(target=int)
    first.start()
    first.join()


def run_fresh(
    words: Sequence[str], environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    return Fresh(words, environment).wait()


def in_environment(environment: Mapping[str, str], act: Callable[..., Result], *arguments: Any) -> Result:
    """What a function returns where these are the variables of the environment."""
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    # PyTorch has read these two when it was imported.
    if "CXX" in environment:
        torch._inductor.config.cpp.cxx = (None, environment["CXX"])
    if "TORCHINDUCTOR_VEC_ISA_OK" in environment:
        torch._inductor.config.cpp.vec_isa_ok = environment["TORCHINDUCTOR_VEC_ISA_OK"] == "1"
    return act(*arguments)


def _begin(
    words: list[str], environment: dict[str, str], streams: Path, prepare: Callable[[], None] | None
) -> None:
    gc.freeze()  # what was imported stays: looking for garbage in it would copy all of it
    multiprocessing.set_start_method(None, force=True)  # Python's own again, for what this process starts
    if prepare is not None:
        prepare()
    for number, name in STREAMS.items():
        os.dup2(os.open(streams / name, os.O_WRONLY), number)
    in_environment(environment, _carry_out, words)


def _carry_out(words: list[str]) -> None:
    match words:
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [file, *rest]:
            sys.argv = [file, *rest]
            runpy.run_path(file, run_name="__main__")
