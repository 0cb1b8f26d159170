"""A network as one file that runs where no compiler is: a program for RV32I, or a module of WebAssembly."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..data.files import write_atomically
from ..errors import InputError
from ..fields import nearest
from .building import SHARED, SOURCE, compile_c, with_included

NETWORK = "network_file.h"
_C = ("-std=gnu11", "-Wno-psabi", "-ffreestanding", "-nostdlib")
RV32I = (
    "riscv64-unknown-elf-gcc", *_C, "-O1", "-march=rv32i", "-mabi=ilp32", "-static", "-mno-relax",
    # No loop becomes a call of the function that it is in.
    "-fno-tree-loop-distribute-patterns",
)  # fmt: skip
WASM = ("clang", *_C, "-O2", "--target=wasm32", "-fno-builtin", "-Wl,--no-entry", "-Wl,-z,stack-size=262144")
SIMD = "-msimd128"
TARGETS = ("native", "rv32i", "wasm")


def network_header(network: bytes) -> str:
    r"""A network's file as an array in C.

    Args:
        network: what `write_network` returned.

    >>> print(network_header(b"SNN1"), end="")
    static const unsigned char network_file[] __attribute__((aligned(64))) = {
    83,78,78,49
    };
    """
    rows = (",".join(map(str, network[at : at + 32])) for at in range(0, len(network), 32))
    array = ",\n".join(rows)
    return f"static const unsigned char network_file[] __attribute__((aligned(64))) = {{\n{array}\n}};\n"


def build(target: str, network: bytes, program: Path) -> None:
    """Build what runs a network.

    Args:
        target: `native`, which is a library for any network; `rv32i`; or `wasm`, with vectors.
        network: what `write_network` returned.
        program: the file to write.

    Raises:
        InputError: there is no such target, or its compiler is not installed or fails.
    """
    match target:
        case "native":
            build_native(program)
        case "rv32i":
            build_rv32i(network, program)
        case "wasm":
            build_wasm(network, program, simd=True)
        case _:
            raise InputError(
                f"target is {target!r}; give one of {', '.join(TARGETS)}{nearest(target.lower(), TARGETS)}"
            )


def build_native(library: Path) -> None:
    """Build the library that runs any network on this machine, as `compile_network` does.

    Args:
        library: the file to write.

    Raises:
        InputError: there is no compiler, or it fails.
    """
    compile_c(SOURCE, library, *SHARED)


def build_rv32i(network: bytes, program: Path) -> None:
    """Build the program that runs a network on RV32I.

    Args:
        network: what `write_network` returned.
        program: the file to write.

    Raises:
        InputError: the compiler is not installed, or fails.
    """
    _build(RV32I, "rv32i.c", network, program)
    program.chmod(0o755)


def build_wasm(network: bytes, module: Path, simd: bool) -> None:
    """Build the WebAssembly module that runs a network.

    Args:
        network: what `write_network` returned.
        module: the file to write.
        simd: whether it may use vectors of 128 bits, as every browser since 2023 can.

    Raises:
        InputError: the compiler is not installed, or fails.
    """
    _build((*WASM, SIMD) if simd else WASM, "wasm.c", network, module)


def _build(command: tuple[str, ...], source: str, network: bytes, target: Path) -> None:
    if not shutil.which(command[0]):
        raise InputError(f"{command[0]} is not installed; it compiles {source}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / NETWORK).write_text(network_header(network))
        for name, content in with_included(source).items():
            (Path(folder) / name).write_bytes(content)
        done = subprocess.run(
            [*command, source, "-o", "built"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = next(
                (line for line in lines if "error" in line.lower()), (lines or ["it does not say why"])[-1]
            )
            raise InputError(
                f"{command[0]} (exit status {done.returncode}) cannot compile {source}: {reason.strip()}"
            )
        write_atomically(target, (Path(folder) / "built").read_bytes())
