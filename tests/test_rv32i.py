"""A network on RV32I, a processor without multiplication, emulated: equal logits, and no multiplication."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.engine.exporting import write_network
from snnmlp_edu.engine.instructions import audit_instructions
from snnmlp_edu.engine.targets import RV32I, build_rv32i
from snnmlp_edu.errors import InputError
from snnmlp_edu.mfi import event_driven, fold_batch_norm

IMAGES = 5
EMULATOR = "qemu-riscv32"


def test_logits_are_those_of_whole_numbers(tmp_path: Path) -> None:
    for tool in (RV32I[0], EMULATOR, "riscv64-unknown-elf-objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    network = event_driven(fold_batch_norm(load_checkpoint("mlp_spe_nano").model), weights="int8")
    images = load_embedded("test").images[:IMAGES]
    with torch.inference_mode():
        expected = network(images).numpy()
    program = tmp_path / "classify"
    content, _ = write_network(network)
    build_rv32i(content, program)

    def run(given: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([EMULATOR, program], input=given, capture_output=True, check=False)

    done = run(images.numpy().tobytes())
    assert done.returncode == 0
    logits = np.frombuffer(done.stdout, "<i4").reshape(IMAGES, -1)
    np.testing.assert_array_equal(logits, expected)
    cut_short = run(images.numpy().tobytes()[:-1])
    assert cut_short.returncode == 1
    assert cut_short.stdout == done.stdout[: -4 * logits.shape[1]]

    code = audit_instructions(program)
    assert code.multiplication_free, code.notes()
    assert {"_start", "snn_run", "memset"} <= set(code.functions)
    assert not code.outside
    assert "M" not in _extensions(program)


def _extensions(program: Path) -> str:
    """What the file says that its processor has besides RV32I."""
    content = program.read_bytes()
    begin = content.index(b"rv32i")
    return content[begin : content.index(b"\0", begin)].decode().removeprefix("rv32i").upper()


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=RV32I[0]):
        build_rv32i(b"SNN1", tmp_path / "classify")
    assert not [*tmp_path.iterdir()]
