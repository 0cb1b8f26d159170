"""The WebAssembly modules in `data/engine`: what they are made of, and what they say in node."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_data import load_script

from snnmlp_edu import data
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.files import read_verified
from snnmlp_edu.engine.instructions import audit_instructions
from snnmlp_edu.errors import InputError
from snnmlp_edu.mfi import event_driven, fold_batch_norm

script = load_script("make_wasm")
RUN = Path(__file__).with_name("run_wasm.js")
IMAGES = 20
SMALLEST, *OTHERS = script.NETWORKS


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@cache
def shipped(name: str) -> Path:
    return data.path() / script.FOLDER / name


@cache
def table(name: str) -> dict[str, Any]:
    return json.loads(read_verified(f"{script.FOLDER}/{name}.json"))


@cache
def in_whole_numbers(name: str) -> Any:
    return event_driven(fold_batch_norm(load_checkpoint(name).model), weights="int8")


def by_node(module: Path, facts: dict[str, Any], images: torch.Tensor, folder: Path) -> list[dict[str, Any]]:
    (folder / "images").write_bytes(images.numpy().tobytes())
    each = [[layer["at"], layer["steps"] * layer["lanes"] // 8, layer["places"]] for layer in facts["layers"]]
    size = int(np.prod(facts["image"]))
    words = ["node", RUN, module, folder / "images", size, len(facts["classes"]), json.dumps(each)]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("simd", ["", "_simd"])
@pytest.mark.parametrize("name", script.NETWORKS)
def test_logits_and_additions_are_those_of_whole_numbers(name: str, simd: str, tmp_path: Path) -> None:
    need("node")
    network, facts = in_whole_numbers(name), table(name)
    images = load_embedded("test").images[:IMAGES]
    found = by_node(shipped(f"{name}{simd}.wasm"), facts, images, tmp_path)
    with torch.inference_mode():
        expected = network(images)
        assert [each["logits"] for each in found] == expected.tolist()
    total = 0
    for each in found:
        for layer, spikes in zip(facts["layers"], each["spikes"], strict=True):
            total += int(np.dot(spikes, layer["additions"]))
    assert total == sum(network.synaptic_operations.values())


@pytest.mark.parametrize("name", script.NETWORKS)
def test_hashes_are_those_that_the_table_names(name: str) -> None:
    for file, expected in table(name)["files"].items():
        content = read_verified(f"{script.FOLDER}/{file}")
        assert script._sha256(content) == expected


@pytest.mark.parametrize("simd", ["", "_simd"])
def test_nano_is_small_enough_for_a_page(simd: str) -> None:
    assert len(gzip.compress(shipped(f"mlp_spe_nano{simd}.wasm").read_bytes(), 9)) <= 400_000


def test_they_are_made_of_these_sources(tmp_path: Path) -> None:
    need("clang", "wasm-ld")
    name = SMALLEST
    facts = table(name)
    made = script.make(name, tmp_path)
    again = json.loads(made[0].read_text())
    assert again["made_with"]["sources"] == facts["made_with"]["sources"], "run data/make_wasm.py again"
    if script.clang_version() == facts["made_with"]["clang"]:
        assert again["files"] == facts["files"], "run data/make_wasm.py again"
        return
    need("node")
    images = load_embedded("test").images[:2]
    with torch.inference_mode():
        expected = in_whole_numbers(name)(images).tolist()
    for module in made[1:]:
        assert [each["logits"] for each in by_node(module, again, images, tmp_path)] == expected


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_are_made_of_the_same_sources_and_of_their_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What their tables say of it; compiling one network shows what becomes of that."""
    need("clang")

    def build_wasm(network: bytes, module: Path, simd: bool) -> None:
        module.write_bytes(shipped(module.name).read_bytes())

    monkeypatch.setattr(script.targets, "build_wasm", build_wasm)
    again = json.loads(script.make(name, tmp_path)[0].read_text())
    again["made_with"]["clang"] = table(name)["made_with"]["clang"]
    for fact in ("made_with", "files"):
        assert again[fact] == table(name)[fact], "run data/make_wasm.py again"


@pytest.mark.parametrize("file", ["mlp_spe_nano.wasm", "mlp_spe_nano_simd.wasm"])
def test_no_instruction_multiplies(file: str) -> None:
    need("llvm-objdump")
    found = audit_instructions(shipped(file))
    assert found.multiplication_free, found.notes()
    assert {"snn_prepare", "classify"} <= set(found.functions)
    assert not found.outside


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="clang is not installed"):
        script.targets.build_wasm(b"SNN1", tmp_path / "module", simd=True)
    assert not [*tmp_path.iterdir()]
