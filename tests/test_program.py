"""The compiled engine: exact, from any number of threads, built once; and one line for every mistake."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compilers import needs_compiler
from fresh import Fresh
from PIL import Image
from test_cli import assert_wrong_usage, call
from torch import Tensor

import snnmlp_edu
from snnmlp_edu import InputError, NetworkConfig, SpikingMLP, load_pretrained, record
from snnmlp_edu.data import load_embedded
from snnmlp_edu.engine import Program, building, compile_network
from snnmlp_edu.engine import program as running
from snnmlp_edu.mfi import calibrate, event_driven, fold_batch_norm

COUNT = 50


@pytest.fixture(scope="module")
def network() -> Any:
    return event_driven(fold_batch_norm(load_pretrained("mlp_spe_nano")), weights="int8")


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Garments, and the extremes: all black and all white."""
    garments = load_embedded("test").images[:COUNT].clone()
    garments[0], garments[1] = 0, 255
    return garments


@pytest.fixture(scope="module")
def expected(network: Any, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images).to(torch.int32)


@pytest.fixture(scope="module")
def program(shared_folder: Path) -> Program:
    with pytest.MonkeyPatch.context() as patch:  # as each test has it, but this comes before
        patch.setenv("SNNMLP_CACHE", str(shared_folder / "cache"))
        return compile_network(fold_batch_norm(load_pretrained("mlp_spe_nano")))


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "cores", lambda: 4)


def folded(config: NetworkConfig) -> Any:
    images = torch.rand(2, config.in_channels, config.image_size, config.image_size)
    return fold_batch_norm(calibrate(SpikingMLP(config), images))


# --- exact -------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 4, 1000])
def test_logits_are_those_of_the_whole_numbers(
    program: Program, images: Tensor, expected: Tensor, threads: int, four_cores: None
) -> None:
    for count in (1, 2, 7, COUNT):
        logits = program(images[:count], threads=threads)
        assert logits.dtype == torch.int32
        assert torch.equal(logits, expected[:count]), count


@needs_compiler
def test_facts_of_a_program(program: Program, network: Any) -> None:
    assert (program.classes, program.image_shape, program.time_steps) == (10, (1, 28, 28), 4)
    assert program.scale == network.scales["head"]


@needs_compiler
def test_images_in_any_form(program: Program, images: Tensor, expected: Tensor) -> None:
    array = images.numpy()
    assert torch.equal(program(images[3]), expected[3:4])
    assert torch.equal(program(array[3]), expected[3:4])
    assert torch.equal(program(array[::-7]), expected.flip(0)[::7])
    sideways = images[:5].transpose(2, 3).contiguous().transpose(2, 3)
    assert not sideways.is_contiguous()
    assert torch.equal(program(sideways), expected[:5])


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_calls_at_once_do_not_disturb_each_other(
    program: Program, images: Tensor, expected: Tensor, threads: int, four_cores: None
) -> None:
    starts = [7 * k % (COUNT - 5) for k in range(60)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda start: program(images[start : start + 5], threads), starts))
    for start, logits in zip(starts, found, strict=True):
        assert torch.equal(logits, expected[start : start + 5])


@needs_compiler
def test_two_programs_do_not_disturb_each_other(
    program: Program, images: Tensor, expected: Tensor, tiny: NetworkConfig
) -> None:
    other = folded(tiny)
    pixels = torch.randint(256, (3, 2, 8, 8), dtype=torch.uint8)
    second = compile_network(other)
    first = event_driven(other, weights="int8")(pixels)
    for _ in range(2):
        assert torch.equal(second(pixels).to(first.dtype), first)
        assert torch.equal(program(images[:2]), expected[:2])


@needs_compiler
def test_program_travels_to_another_process(program: Program, images: Tensor, expected: Tensor) -> None:
    copy = pickle.loads(pickle.dumps(program))
    assert torch.equal(copy(images), expected)


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [{}, {"head": "figure", "token_mixing": "full"}, {"patch_encoding": "conv", "token_mixing": "none"}],
)
def test_spikes_are_those_of_the_whole_numbers(tiny: NetworkConfig, changes: dict[str, Any]) -> None:
    network = folded(tiny.replace(**changes))
    whole, program = event_driven(network, weights="int8"), compile_network(network)
    pixels = torch.randint(256, (1, 2, 8, 8), dtype=torch.uint8)
    recorded, spikes = record(whole, pixels / 255), program.spikes(pixels[0])
    additions = program.additions(pixels[0])
    assert whole.synaptic_operations.items() <= additions.items()
    assert set(spikes) == set(recorded)
    assert sum(int(fired.sum()) for fired in spikes.values()) > 0
    for path, fired in recorded.items():
        steps, places, channels = len(fired), fired[0, 0, ..., 0].numel(), fired.shape[-1]
        assert spikes[path].dtype == torch.uint8
        assert torch.equal(spikes[path].float(), fired.reshape(steps, places, channels)), path


@needs_compiler
def test_parts_cover_every_image_once() -> None:
    for count in (1, 2, 15, 16, 1000):
        for workers in (2, 3, 16):
            parts = list(running._parts(count, workers))
            assert [k for part in parts for k in range(count)[part]] == list(range(count))
            assert parts[-1].stop - parts[-1].start == 1, "the last ones are short"


# --- the command line --------------------------------------------------------------------------------


@needs_compiler
def test_evaluate_by_the_engine(program: Program) -> None:
    images, labels = load_embedded("test")
    correct = int((program(images).argmax(1) == torch.as_tensor(labels)).sum())
    code, out, err = call("evaluate", "mlp_spe_nano", "--engine", "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "checkpoint": "mlp_spe_nano",
        "correct": correct,
        "total": 1000,
        "accuracy": correct / 1000,
    }
    assert correct > 800


@needs_compiler
def test_predict_by_the_engine(program: Program, images: Tensor, tmp_path: Path) -> None:
    file = tmp_path / "garment.png"
    Image.fromarray(images[5, 0].numpy()).save(file)
    code, out, err = call("predict", "mlp_spe_nano", file, "--engine", "--top", "10", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["predictions"]
    probabilities = (program(images[5]) * program.scale).softmax(1)[0]
    names = [snnmlp_edu.data.CLASS_NAMES[k] for k in probabilities.argsort(descending=True)]
    assert [each["name"] for each in row["classes"]] == names
    values = [each["probability"] for each in row["classes"]]
    assert values == pytest.approx(probabilities.sort(descending=True).values.tolist())


def test_without_a_compiler_all_else_works(
    monkeypatch: pytest.MonkeyPatch, images: Tensor, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    file = tmp_path / "garment.png"
    Image.fromarray(images[5, 0].numpy()).save(file)
    assert call("predict", "mlp_spe_nano", file)[0] == 0
    for words in (("predict", "mlp_spe_nano", file), ("evaluate", "mlp_spe_nano")):
        assert_wrong_usage(call(*words, "--engine"), "CC is 'no-such-compiler'.*works without")


# --- bad input ---------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 1, 28, 28), r"float32.*\(images \* 255\)\.round\(\).*uint8"),
        (np.zeros((1, 1, 28, 28)), r"float64.*255"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.int64), r"int64.*uint8"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.bool), "bool"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), r"\(1, 1, 32, 32\).*28 x 28"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), r"\(2, 3, 28, 28\).*1 channel"),
        (torch.zeros(28, 28, dtype=torch.uint8), r"\(28, 28\)"),
        (torch.zeros(1, 1, 1, 28, 28, dtype=torch.uint8), "shape"),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), "at least one"),
        ([[0]], "list"),
        (None, "NoneType"),
    ],
)
def test_images_of_another_kind(program: Program, wrong: Any, message: str) -> None:
    for run in (program, program.spikes, program.additions):
        with pytest.raises(InputError, match=message) as error:
            run(wrong)
        assert "\n" not in str(error.value)


@needs_compiler
def test_spikes_of_several_images(program: Program, images: Tensor) -> None:
    with pytest.raises(InputError, match="2 images"):
        program.spikes(images[:2])


@needs_compiler
@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_out_of_range(program: Program, images: Tensor, threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        program(images[:2], threads=threads)


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"neuron": {"beta": 0.8}}, "beta"),
        ({"skip": "spike"}, "skip"),
        ({"channel_norm": "ln"}, "channel"),
        ({"channel_norm": "bn_token"}, "channel"),
        ({"activation": "relu", "time_steps": 1}, "ReLU"),
        ({"time_steps": 33}, "time_steps"),
    ],
)
def test_networks_that_cannot_run(tiny: NetworkConfig, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field) as error:
        compile_network(folded(tiny.replace(**changes)))
    assert "\n" not in str(error.value)


@needs_compiler
def test_network_that_is_not_folded(tiny: NetworkConfig) -> None:
    with pytest.raises(InputError, match="fold"):
        compile_network(SpikingMLP(tiny).eval())


@needs_compiler
def test_damaged_file(program: Program) -> None:
    content = bytearray(program.content)
    content[-1] ^= 1
    with pytest.raises(InputError, match="checksum"):
        Program(bytes(content), program.layout, program.scale)


# --- building ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and nothing in memory of what was loaded before; compiled fast rather than well."""
    monkeypatch.setattr(building, "FAST", "-O0")
    monkeypatch.setenv("SNNMLP_CACHE", str(tmp_path / "cache"))
    building._load.cache_clear()
    return tmp_path / "cache"


def as_compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "compiler"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("CC", str(file))


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no C compiler.*install.*works without"):
        building.load_engine()


@pytest.mark.parametrize("chosen", ["absent", "'gcc", "/", "absent -O2"])
def test_compiler_that_is_no_program(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", chosen)
    with pytest.raises(InputError, match="CC is"):
        building.find_compiler()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", r"exit status 3.*does not say why"),
        ("echo 'engine.c:9: note' >&2; echo 'x.c:1: error: no such builtin' >&2; exit 1", "no such builtin"),
        ("exit 0", "exit status 0"),  # and makes nothing
    ],
)
def test_compiler_that_fails(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    as_compiler(tmp_path, script, monkeypatch)
    with pytest.raises(InputError, match=f"compiler.*{message}.*newer GCC or Clang") as error:
        building.load_engine()
    assert "\n" not in str(error.value)
    assert not list(cache.rglob("*.so"))


def test_compiler_that_cannot_be_started(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compiler"
    file.write_bytes(b"\x7fELF")
    file.chmod(0o755)
    monkeypatch.setenv("CC", str(file))
    with pytest.raises(InputError, match="does not run"):
        building.load_engine()


@needs_compiler
def test_compiler_that_does_not_know_this_processor(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which(building.find_compiler()[0])
    refuse = f'case "$*" in *-march=native*) exit 1;; esac\nexec {real} "$@"'
    as_compiler(tmp_path, refuse, monkeypatch)
    building.load_engine()
    assert len(list(cache.rglob("*.so"))) == 1


@needs_compiler
def test_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    building.load_engine()
    (kept,) = cache.rglob("*.so")
    assert [file.name for file in kept.parent.iterdir()] == [kept.name], "nothing temporary stays"
    building._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(building, "compile_c", lambda *_: pytest.fail("compiled again"))
        building.load_engine()


@needs_compiler
def test_kept_library_that_is_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    building.load_engine()
    (kept,) = cache.rglob("*.so")
    # In another folder: what this process has loaded must stay whole.
    monkeypatch.setenv("SNNMLP_CACHE", str(cache / "other"))
    damaged = cache / "other" / "engine" / kept.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    building.load_engine()
    assert damaged.stat().st_size > 1000


@needs_compiler
def test_what_a_library_depends_on_is_in_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(building, "_load", lambda cache, name: names.append(name))
    building.load_engine()
    for name, value in (("FAST", "-O1"), ("NATIVE", "-mtune=native"), ("_processor", lambda: "another")):
        with monkeypatch.context() as patch:
            patch.setattr(building, name, value)
            building.load_engine()
    monkeypatch.setenv("CC", f"{building.find_compiler()[0]} -g")
    building.load_engine()
    assert len(set(names)) == len(names) == 5


@needs_compiler
def test_what_was_compiled_runs_where_no_compiler_is_left(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building.load_engine()
    (kept,) = cache.rglob("*.so")
    monkeypatch.setattr(building.shutil, "which", lambda name: None)
    building._load.cache_clear()
    assert building.load_engine().snn_open
    assert list(cache.rglob("*.so")) == [kept]
    monkeypatch.setenv("CC", "absent")
    with pytest.raises(InputError, match="CC is 'absent'"):
        building.load_engine()


@needs_compiler
def test_a_program_says_what_it_takes_and_gives(program: Program) -> None:
    assert repr(program).startswith("Program(uint8 [B, 1, 28, 28] -> int32 [B, 10], T = 4, ")


@needs_compiler
def test_cache_that_cannot_be_written(
    program: Program, cache: Path, images: Tensor, expected: Tensor
) -> None:
    cache.write_text("a file, where a folder should be")
    with pytest.warns(UserWarning, match="SNNMLP_CACHE") as warned:
        another = pickle.loads(pickle.dumps(program))
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert torch.equal(another(images[:2]), expected[:2])
    pickle.loads(pickle.dumps(program))  # said once


@needs_compiler
def test_cache_that_is_full(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(building, "write_atomically", full)
    with pytest.warns(UserWarning, match="No space left"):
        building.load_engine()


@needs_compiler
def test_user_without_a_home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "cache_folder", lambda: None)
    with pytest.warns(UserWarning, match="home"):
        building.load_engine()


@needs_compiler
def test_library_that_cannot_be_loaded(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'for last; do :; done; case "$last" in --version) ;; *) echo nothing > "$last" ;; esac'
    as_compiler(tmp_path, script, monkeypatch)
    with pytest.raises(InputError, match=r"cannot be loaded.*TMPDIR"):
        building.load_engine()


SCRIPT = """
import sys, torch
from snnmlp_edu.data import load_embedded
from snnmlp_edu.engine import compile_network, program
from snnmlp_edu import load_pretrained
from snnmlp_edu.mfi import fold_batch_norm
import os
program.cores = lambda: 2
run = compile_network(fold_batch_norm(load_pretrained("mlp_spe_nano")))
images = load_embedded("test").images[:20]
first = run(images, threads=2)
child = os.fork()
if child == 0:  # its parent's threads are not there
    os._exit(0 if torch.equal(run(images, threads=2), first) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(first.sum().item())
"""


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_that_compile_at_once_and_fork(cache: Path, images: Tensor, network: Any) -> None:
    both = [Fresh(["-c", SCRIPT]) for _ in range(2)]
    found = [process.wait().stdout.strip() for process in both]
    with torch.inference_mode():
        total = int(network(load_embedded("test").images[:20]).sum())
    assert found == [str(total)] * 2
    assert len(list(cache.rglob("*.so"))) == 1
    assert len(list((cache / "engine").iterdir())) == 1, "nothing temporary stays"
