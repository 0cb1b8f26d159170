"""A network as a folder of its own, which needs no Python: C source, the network, and a Makefile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import load_embedded
from ..errors import InputError
from ..fields import nearest
from ..mfi import event_driven
from ..printing import printable
from .building import FAST, FLAGS, compile_c, find_compiler, with_included
from .exporting import write_network
from .program import Header
from .targets import RV32I, SIMD, WASM, network_header

PICTURES = {1: ("example.pgm", "P5"), 3: ("example.ppm", "P6")}

MAKE_C = """\
# make builds classify; make check compares its logits of {example} with those in expected.txt.
NATIVE := $(shell $(CC) -march=native -fsyntax-only -x c /dev/null 2>/dev/null && echo -march=native)
CFLAGS ?= {fast} $(NATIVE)

classify: $(wildcard *.c *.h)
	$(CC) {flags} $(CFLAGS) -o $@ main.c

check: classify
	./classify {example} | diff expected.txt -

clean:
	rm -f classify

.PHONY: check clean
"""

USE_C = """\
`make` builds `classify` with GCC or Clang, as `CC` names it, and `make check` tests it.

    ./classify [-n NETWORK] [IMAGE...]

An image is a binary PGM or PPM file, or raw bytes, one channel after the other; without a name, standard
input. A line is printed for each: its name, the number of its class, the class, and the logits."""


MAKE_RV32I = """\
# make builds classify for RV32I; make check runs it in qemu-riscv32 and compares its logits of {example} with
# those in expected.logits.
RISCV_CC ?= riscv64-unknown-elf-gcc

classify: $(wildcard *.c *.h)
	$(RISCV_CC) {rv32i} -o $@ rv32i.c

check: classify
	qemu-riscv32 ./classify < example.raw | od -An -v -t d4 -w{bytes} | xargs | diff expected.logits -

clean:
	rm -f classify

.PHONY: check clean
"""

USE_RV32I = """\
`make` builds `classify` for RV32I, whose 40 instructions hold no multiplication, with
`riscv64-unknown-elf-gcc` or what `RISCV_CC` names; `make check` tests it in `qemu-riscv32`.

    qemu-riscv32 ./classify < IMAGES > LOGITS

Images are raw bytes, one channel after the other, any number of them in a row; each gives as many whole
numbers of 32 bits as there are classes. PGM files are not read: their header would be taken for pixels. The
exit status is 1 where the last image is cut short."""

MAKE_WASM = """\
# make builds network.wasm; make check runs it in Node and compares its logits with those in expected.logits.
# SIMD= leaves out the vectors of 128 bits.
WASM_CC ?= clang
SIMD ?= {simd}

network.wasm: $(wildcard *.c *.h)
	$(WASM_CC) {wasm} $(SIMD) -o $@ wasm.c

check: network.wasm
	node classify.mjs network.wasm {classes} example.raw | diff expected.logits -

clean:
	rm -f network.wasm

.PHONY: check clean
"""

USE_WASM = """\
`make` builds `network.wasm` with Clang and its linker, and `make check` tests it in Node. The module exports
its `memory`, the places in it of `image()`, `logits()` and `spikes()`, and `classify()`; `classify.mjs` shows
how."""


@dataclass(frozen=True)
class Target:
    """What a folder is made for.

    Args:
        sources: files beside this one that are copied, with what they include.
        makefile: the text of the Makefile; words in braces are filled in.
        use: how it is built and used, in Markdown.
        embedded: whether the network is C (`network_file.h`) rather than a file that is read (`network.bin`).
        build: the source that is compiled at once, and what it becomes.
    """

    sources: tuple[str, ...]
    makefile: str
    use: str
    embedded: bool = False
    build: tuple[str, str] | None = None


TARGETS = {
    "native": Target(("main.c",), MAKE_C, USE_C, build=("main.c", "classify")),
    "c": Target(("main.c",), MAKE_C, USE_C),
    "rv32i": Target(("rv32i.c",), MAKE_RV32I, USE_RV32I, embedded=True),
    "wasm": Target(("wasm.c", "classify.mjs"), MAKE_WASM, USE_WASM, embedded=True),
}


def write_program(
    folded: nn.Module,
    output: str | Path,
    target: str = "c",
    class_names: Sequence[str] = (),
    origin: str = "",
    preprocessing: Any = None,
) -> list[Path]:
    """Write a folded network as a folder that builds with `make`, completely or not at all.

    The folder also holds an example image, and the logits that `event_driven(folded, weights="int8")` gives
    for it, with which `make check` compares.

    Args:
        folded: what `fold_batch_norm` returned.
        output: the folder, which is made; one that is there must be empty.
        target: one of `TARGETS`; with `native`, the program is also built, for this machine.
        class_names: what each logit stands for.
        origin: where the network is from, in words, for the README.
        preprocessing: from stored pixels to the network's input, as in `event_driven`.

    Returns:
        The files, in the order of their names.

    Raises:
        InputError: the target is unknown, the folder holds something, the network has something that whole
            numbers cannot represent, or, with `native`, there is no C compiler or it fails.
        OSError: the folder cannot be written.
    """
    if target not in TARGETS:
        raise InputError(
            f"target is {target!r}; give one of {', '.join(TARGETS)}{nearest(target.lower(), TARGETS)}"
        )
    made_for, output = TARGETS[target], Path(output).resolve()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output} is there already and holds something; give a new folder, or an empty one")
    file = next((parent for parent in output.parents if parent.exists() and not parent.is_dir()), None)
    if file is not None:
        raise InputError(f"{output} cannot be made, since {file} is no folder; give another")
    if made_for.build:
        find_compiler()
    files = _files(made_for, folded, class_names, origin, preprocessing)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        if made_for.build:
            source, built = made_for.build
            compile_c(temporary / source, temporary / built)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(output.iterdir())


def _files(
    target: Target, folded: nn.Module, class_names: Sequence[str], origin: str, preprocessing: Any
) -> dict[str, bytes]:
    network = event_driven(folded, weights="int8", preprocessing=preprocessing)
    content, _ = write_network(network)
    header = Header.of(content)
    names = [printable(name) for name in class_names] or [f"class {k}" for k in range(header.classes)]
    image = _example(header)
    with torch.inference_mode():
        logits = network(image.unsqueeze(0))[0].tolist()
    example, picture = _as_file(image.numpy())
    best = int(np.argmax(logits))
    expected = f"{example}\t{best}\t{names[best]}\t{' '.join(map(str, logits))}\n"
    filled = {
        "{flags}": " ".join(FLAGS),
        "{fast}": FAST,
        "{example}": example,
        "{rv32i}": " ".join(RV32I[1:]),
        "{wasm}": " ".join(WASM[1:]),
        "{simd}": SIMD,
        "{bytes}": str(4 * header.classes),
        "{classes}": str(header.classes),
    }
    makefile = target.makefile
    for place, text in filled.items():
        makefile = makefile.replace(place, text)
    own: dict[str, bytes] = {"network.bin": content}
    if target.embedded:
        own = {
            "network_file.h": network_header(content).encode(),
            "example.raw": image.numpy().tobytes(),
            "expected.logits": f"{' '.join(map(str, logits))}\n".encode(),
        }
    return {
        **{name: text for source in target.sources for name, text in with_included(source).items()},
        **own,
        "class_names.h": _names_as_c(names).encode(),
        "Makefile": makefile.encode(),
        "README.md": _readme(target, header, origin, network.scales["head"], len(content)).encode(),
        example: picture,
        "expected.txt": expected.encode(),
    }


def _example(header: Header) -> Tensor:
    """A garment where the network takes such images, else random pixels; uint8 `[C, h, w]`."""
    garment = load_embedded("test").images[0]
    if tuple(garment.shape) == header.image_shape:
        return garment
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, header.image_shape, generator=generator, dtype=torch.uint8)


def _as_file(image: np.ndarray) -> tuple[str, bytes]:
    channels, height, width = image.shape
    if channels not in PICTURES:
        return "example.raw", image.tobytes()
    name, magic = PICTURES[channels]
    return name, f"{magic}\n{width} {height}\n255\n".encode() + image.transpose(1, 2, 0).tobytes()


def _names_as_c(names: Sequence[str]) -> str:
    lines = "".join(f'    "{"".join(map(_escaped, name.encode("utf-8", "replace")))}",\n' for name in names)
    return f"enum {{ CLASSES = {len(names)} }};\nstatic const char *const class_names[] = {{\n{lines}}};\n"


def _escaped(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"


def _readme(target: Target, header: Header, origin: str, scale: float, size: int) -> str:
    channels, height, width = header.image_shape
    return f"""\
# A spiking network that only adds

Written by snnmlp-edu from {printable(origin) or "a folded network"}.

It takes images of {channels} channel(s), {height} x {width} pixels of 8 bits, to {header.classes} classes in
{header.steps} time steps, and is {size:,} bytes large. Logits are whole numbers: one unit is {scale:.6g}.

{target.use}

The C source is part of snnmlp-edu, under the MIT License.
"""
