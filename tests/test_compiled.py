"""Compiled neurons on processors of other kinds, played by PyTorch's own switch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

NARROWER = {"AVX512": "avx2", "AVX2": "default"}

PROGRAM = """
import torch
from snnmlp_edu import LIF, NeuronConfig
current = torch.linspace(-1, 3, 4000).view(4, 1000).clone().requires_grad_()
found = []
for backend in ("eager", "compiled"):
    spikes = LIF(NeuronConfig(backend=backend, surrogate="triangle"))(current)
    (gradient,) = torch.autograd.grad(spikes.sum(), current)
    found.append((spikes, gradient))
(spikes, gradient), (compiled_spikes, compiled_gradient) = found
assert torch.equal(spikes, compiled_spikes)
assert torch.allclose(gradient, compiled_gradient)
print(torch.backends.cpu.get_cpu_capability())
"""


def _on(capability: str, cache: Path) -> str:
    """Run the program as on another processor, with the graphs that earlier processes stored."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_stored_graphs_are_right_on_a_processor_with_narrower_vectors(tmp_path: Path) -> None:
    native = torch.backends.cpu.get_cpu_capability()
    if native not in NARROWER:
        pytest.skip(f"this processor's vectors are {native}: there are none narrower to play")
    assert _on(native.lower(), tmp_path) == native
    assert _on(NARROWER[native], tmp_path) == NARROWER[native].upper()
