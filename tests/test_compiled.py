"""Compiled neurons on processors of other kinds, played by PyTorch's own switch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from fresh import run_fresh

NARROWER = {"AVX512": "avx2", "AVX2": "default"}

PROGRAM = """
import sys
from pathlib import Path
import torch
from snnmlp_edu import LIF, NeuronConfig
torch.set_num_threads(1)
threshold = float(sys.argv[1])
current = torch.linspace(-1, 3, 4000).view(4, 1000).clone().requires_grad_()
found = []
for backend in ("eager", "compiled"):
    spikes = LIF(NeuronConfig(backend=backend, surrogate="triangle", threshold=threshold))(current)
    (gradient,) = torch.autograd.grad(spikes.sum(), current)
    found.append((spikes, gradient))
(spikes, gradient), (compiled_spikes, compiled_gradient) = found
assert torch.equal(spikes, compiled_spikes)
assert torch.allclose(gradient, compiled_gradient)
assert not any(task.read_text() for task in Path("/proc/self/task").glob("*/children")), "it compiled alone"
print(torch.backends.cpu.get_cpu_capability())
"""


def _said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_stored_graphs_are_right_on_a_processor_with_narrower_vectors() -> None:
    native = torch.backends.cpu.get_cpu_capability()
    if native not in NARROWER:
        pytest.skip(f"this processor's vectors are {native}: there are none narrower to play")
    # A threshold of its own makes new graphs. An empty cache would, too, and then PyTorch would spend most of
    # the time on trying out which vectors the compiler knows.
    threshold = 1 + os.getpid() / 2**24
    words = ["-c", PROGRAM, str(threshold)]
    assert _said(run_fresh(words)) == native
    # As on another processor, with the graphs that the process before has stored.
    environment = os.environ | {"ATEN_CPU_CAPABILITY": NARROWER[native]}
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert _said(done) == NARROWER[native].upper()
