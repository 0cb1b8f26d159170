"""Make `data/engine`: shipped networks as WebAssembly, and tables of where their spikes lie.

    python data/make_wasm.py                                 # some seconds; needs clang and wasm-ld

For each network there are `NAME.wasm`, which runs anywhere; `NAME_simd.wasm`, which uses vectors of 128
bits; and `NAME.json`, which a page needs beside them. The same clang makes the same bytes from the same
sources.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import snnmlp_edu.engine.targets as targets
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data.files import record_in_manifest, write_atomically
from snnmlp_edu.data.scripts import run_script
from snnmlp_edu.engine.building import with_included
from snnmlp_edu.engine.exporting import write_network
from snnmlp_edu.engine.spikes import describe_spikes
from snnmlp_edu.mfi import event_driven, fold_batch_norm

FOLDER = "engine"
NETWORKS = ("mlp_spe_nano", "mlp_spe_micro")


def make(name: str, folder: Path) -> list[Path]:
    """Write the two modules and the table of one network.

    Args:
        name: of a shipped checkpoint.
        folder: where they go.
    """
    checkpoint = load_checkpoint(name)
    network: Any = event_driven(fold_batch_norm(checkpoint.model), weights="int8")
    content, layout = write_network(network)
    table, plain, simd = (folder / f"{name}{end}" for end in (".json", ".wasm", "_simd.wasm"))
    targets.build_wasm(content, plain, simd=False)
    targets.build_wasm(content, simd, simd=True)
    stem = network.stages[0].embedding
    side = stem.preprocessing.side
    facts = {
        "network": name,
        "image": [stem.channels, side, side],
        "classes": list(checkpoint.class_names),
        "scale": network.scales["head"],
        "additions_of_a_bit_of_a_pixel": network.config.widths[0],
        "layers": describe_spikes(layout),
        "made_with": {
            "clang": clang_version(),
            "options": " ".join(targets.WASM[1:]),
            "simd": targets.SIMD,
            "sources": {each: _sha256(text) for each, text in with_included("wasm.c").items()},
            "network": _sha256(content),
        },
        "files": {each.name: _sha256(each.read_bytes()) for each in (plain, simd)},
    }
    write_atomically(table, (json.dumps(facts, separators=(",", ":")) + "\n").encode())
    return [table, plain, simd]


def clang_version() -> str:
    """What clang calls itself."""
    command = [targets.WASM[0], "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("\n")[0]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Make all of them, and enter them in the manifest."""
    here = Path(__file__).resolve().parent
    (here / FOLDER).mkdir(exist_ok=True)
    for name in NETWORKS:
        made = make(name, here / FOLDER)
        record_in_manifest(here, [f"{FOLDER}/{file.name}" for file in made])
        print("; ".join(f"{file.name} {file.stat().st_size:,} bytes" for file in made))


if __name__ == "__main__":
    run_script(main, __doc__)
