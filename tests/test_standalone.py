"""Folders that need no Python: complete, exact, and within bounds on whatever they are given."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compilers import needs_compiler, needs_make
from test_cli import assert_wrong_usage, call

from snnmlp_edu import InputError, NetworkConfig, SpikingMLP
from snnmlp_edu.checkpoints import save_checkpoint
from snnmlp_edu.data import CLASS_NAMES, Preprocessing, load_embedded
from snnmlp_edu.engine import building, standalone
from snnmlp_edu.engine.exporting import write_network
from snnmlp_edu.engine.standalone import TARGETS, Target, write_program
from snnmlp_edu.mfi import calibrate, event_driven, fold_batch_norm, load_or_calibrate

C_FILES = {
    "Makefile",
    "README.md",
    "class_names.h",
    "example.pgm",
    "expected.txt",
    *building.with_included("main.c"),
}


def folded(config: NetworkConfig) -> Any:
    torch.manual_seed(0)
    images = torch.rand(2, config.in_channels, config.image_size, config.image_size)
    return fold_batch_norm(calibrate(SpikingMLP(config), images))


def logits_of(network: Any, images: torch.Tensor) -> list[list[int]]:
    with torch.inference_mode():
        return network(images).tolist()


@pytest.fixture(scope="module")
def nano() -> Any:
    return fold_batch_norm(load_or_calibrate("mlp_spe_nano").model)


@pytest.fixture(scope="module")
def folder(nano: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("standalone") / "nano"
    write_program(nano, path, "c", CLASS_NAMES, "somewhere")
    return path


# --- the folder --------------------------------------------------------------------------------------


def test_everything_is_there(folder: Path, nano: Any) -> None:
    assert {file.name for file in folder.iterdir()} == {*C_FILES, "network.bin"}
    assert {"engine.c", "main.c"} < C_FILES
    assert (folder / "network.bin").read_bytes() == write_network(event_driven(nano, weights="int8"))[0]
    image = load_embedded("test").images[0]
    assert (folder / "example.pgm").read_bytes() == b"P5\n28 28\n255\n" + image.numpy().tobytes()
    (logits,) = logits_of(event_driven(nano, weights="int8"), image[None])
    best = int(np.argmax(logits))
    expected = f"example.pgm\t{best}\t{CLASS_NAMES[best]}\t{' '.join(map(str, logits))}\n"
    assert (folder / "expected.txt").read_text() == expected
    assert "somewhere" in (folder / "README.md").read_text()


@needs_compiler
@needs_make
def test_make_builds_and_checks(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "with spaces"
    shutil.copytree(folder, copy)
    compiler = f"CC={' '.join(building.find_compiler())}"
    # Not optimised, it is compiled sooner.
    command = ["make", "-C", str(copy), "check", "CFLAGS=-O0", compiler]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = (copy / "expected.txt").read_text()
    (copy / "expected.txt").write_text(expected.replace("\t", "\t1", 1))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    elsewhere = [str(copy / "classify"), str(copy / "example.pgm")]  # the network is found beside the program
    done = subprocess.run(elsewhere, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == expected.replace("example.pgm", str(copy / "example.pgm"))


@needs_compiler
def test_command_builds_for_this_machine(tmp_path: Path) -> None:
    config = ["dim=6", "depths=[1]", "image_size=8"]
    code, out, err = call(
        "compile", "mlp_spe_nano", "--target", "native", "--output", tmp_path / "a" / "b", *config
    )
    assert code == 0, err
    assert out.startswith(f"{tmp_path / 'a' / 'b'}: {len(C_FILES) + 2} files")
    done = subprocess.run(
        ["./classify", "example.pgm"], cwd=tmp_path / "a" / "b", capture_output=True, check=True
    )
    assert done.stdout == (tmp_path / "a" / "b" / "expected.txt").read_bytes()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b"], "nothing temporary stays"


def test_command_knows_the_classes_of_a_checkpoint(tmp_path: Path, tiny: NetworkConfig) -> None:
    model = calibrate(SpikingMLP(tiny), torch.rand(2, 2, 8, 8))
    names = ["cat", 'a "dog"', "tab\there", "Käfer", "what??/"]
    save_checkpoint(tmp_path / "net.safetensors", model, Preprocessing(8, 2), class_names=names)
    code, out, err = call("compile", tmp_path / "net.safetensors", "--output", tmp_path / "out", "--json")
    assert code == 0, err
    assert f'"path": "{tmp_path / "out"}"' in out
    written = (tmp_path / "out" / "class_names.h").read_text()
    assert written.isascii()
    assert re.findall(r'^    "(.*)",$', written, re.MULTILINE) == [
        "cat",
        r"a \042dog\042",
        r"tab\134there",  # one line for each image, whatever classes are called
        r"K\303\244fer",
        r"what\077\077/",
    ]
    assert (tmp_path / "out" / "example.raw").stat().st_size == 2 * 8 * 8


@needs_make
@pytest.mark.parametrize(
    ("target", "tools"),
    [("rv32i", ("riscv64-unknown-elf-gcc", "qemu-riscv32")), ("wasm", ("clang", "wasm-ld", "node"))],
)
def test_make_builds_for_machines_without_python(
    target: str, tools: tuple[str, ...], tiny: NetworkConfig, tmp_path: Path
) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    write_program(folded(tiny), tmp_path / "out", target)
    command = ["make", "-C", str(tmp_path / "out"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = tmp_path / "out" / "expected.logits"
    logits.write_text(f"1{logits.read_text()}")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_network_as_c(monkeypatch: pytest.MonkeyPatch, tiny: NetworkConfig, tmp_path: Path) -> None:
    embedded = Target(("engine.c",), "{flags} {example}", "", embedded=True)
    monkeypatch.setitem(TARGETS, "embedded", embedded)
    write_program(folded(tiny), tmp_path / "out", "embedded")
    assert not (tmp_path / "out" / "network.bin").exists()
    text = (tmp_path / "out" / "network_file.h").read_text()
    assert text.startswith("static const unsigned char network_file[] __attribute__((aligned(64))) = {")
    numbers = re.findall(r"\d+", text.partition("{")[2])
    assert bytes(map(int, numbers)) == write_network(event_driven(folded(tiny), weights="int8"))[0]
    assert (tmp_path / "out" / "Makefile").read_text() == f"{' '.join(building.FLAGS)} example.raw"


# --- folders that cannot be written ------------------------------------------------------------------


def test_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    answer = call("compile", "mlp_spe_nano", "--output", tmp_path)
    assert_wrong_usage(answer, "holds something")
    answer = call("compile", "mlp_spe_nano", "--output", tmp_path / "mine.txt")
    assert_wrong_usage(answer, "mine.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_empty_folder_is_filled(tmp_path: Path, tiny: NetworkConfig) -> None:
    (tmp_path / "out").mkdir()
    assert tmp_path / "out" / "network.bin" in write_program(folded(tiny), tmp_path / "out")


def test_unknown_target(tmp_path: Path) -> None:
    answer = call("compile", "mlp_spe_nano", "--output", tmp_path / "out", "--target", "nativ")
    assert_wrong_usage(answer, "target is 'nativ'.*did you mean 'native'")
    answer = call("compile", "mlp_spe_nano", "--output", tmp_path / "out", "--target", "RV32I")
    assert_wrong_usage(answer, "target is 'RV32I'.*did you mean 'rv32i'")
    assert not list(tmp_path.iterdir())


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    answer = call("compile", "mlp_spe_nano", "--output", tmp_path / "a" / "b")
    assert_wrong_usage(answer, "is no folder")


def test_target_that_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "absent")
    answer = call("compile", "mlp_spe_nano", "--output", tmp_path / "out", "--target", "native")
    assert_wrong_usage(answer, "CC is 'absent'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["mlp_spe_nano", "neuron.beta=0.8"], "beta"),
        (["mlp_spe_nano", "skip=spike"], "skip"),
        (["released_mlp_spe_nano"], "channel"),
        (["mlp_spe_nano", "channel_norm=ln"], "channel"),
        (["relu_mlp_spe_nano"], "ReLU"),
    ],
)
def test_networks_that_cannot_be_written(words: list[str], field: str, tmp_path: Path) -> None:
    small = ["dim=6", "depths=[1]", "image_size=8"]
    answer = call("compile", *words, *small, "--output", tmp_path / "out")
    assert_wrong_usage(answer, field)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_folder_that_fails(
    tmp_path: Path, tiny: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise InputError("the compiler fails")

    monkeypatch.setattr(standalone, "compile_c", fail)
    monkeypatch.setattr(standalone, "find_compiler", lambda: ["cc"])
    with pytest.raises(InputError, match="fails"):
        write_program(folded(tiny), tmp_path / "out", "native")
    assert not list(tmp_path.iterdir())


# --- the program, within bounds ----------------------------------------------------------------------


# GCC takes minutes for both at once.
@pytest.fixture(scope="module", params=["address", "undefined"])
def classify(folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The program, compiled so that it stops at the first access out of bounds, or undefined behaviour."""
    built = tmp_path_factory.mktemp(f"sanitised_{request.param}") / "classify"
    flags = [*building.FLAGS, "-O0", f"-fsanitize={request.param}", "-fno-sanitize-recover=all"]
    command = [*building.find_compiler(), *flags, str(folder / "main.c"), "-o", str(built)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"the C compiler has no sanitiser for {request.param}")
    return built


def run(classify: Path, *words: str | Path, given: bytes = b"") -> tuple[int, str, str]:
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # memory ends with the process
    command = [str(classify), *map(str, words)]
    done = subprocess.run(command, input=given, capture_output=True, env=environment, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def assert_fails(answer: tuple[int, str, str], message: str) -> None:
    code, out, err = answer
    assert (code, out) == (1, ""), err
    assert re.fullmatch(f"error: .*{message}.*\n", err), err


@needs_compiler
def test_images_in_every_form(classify: Path, folder: Path, nano: Any, tmp_path: Path) -> None:
    images = load_embedded("test").images[:3]
    expected = [" ".join(map(str, row)) for row in logits_of(event_driven(nano, weights="int8"), images)]
    raw = images.numpy().tobytes()
    (tmp_path / "three").write_bytes(raw)
    (tmp_path / "one.pgm").write_bytes(b"P5 #a 99\n#b\n 28\t28\r255 " + images[0].numpy().tobytes())
    network = ("-n", folder / "network.bin")
    for words, given, count in (
        ((tmp_path / "three",), b"", 3),
        ((), raw, 3),
        (("-",), (tmp_path / "one.pgm").read_bytes(), 1),
        ((tmp_path / "one.pgm",), b"", 1),
    ):
        code, out, err = run(classify, *network, *words, given=given)
        assert (code, err) == (0, "")
        rows = [line.split("\t") for line in out.splitlines()]
        assert [row[3] for row in rows] == expected[:count]
        for name, best, class_name, logits in rows:
            values = [int(word) for word in logits.split()]
            assert int(best) == int(np.argmax(values))
            assert class_name == CLASS_NAMES[int(best)]
            assert name == (str(words[0]) if words and words[0] != "-" else "standard input")


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"token_mixing": "full", "head": "figure", "time_steps": 1},
        {"skip": "spike_bn", "neuron": {"reset": "soft"}, "token_mixing": "none", "patch_encoding": "conv"},
        {"skip": "membrane", "image_size": 12, "time_steps": 5},
        {"skip": "inner", "expansion": 1},
    ],
)
def test_colour_and_other_networks(
    classify: Path, tiny: NetworkConfig, changes: dict[str, Any], tmp_path: Path
) -> None:
    network = event_driven(folded(tiny.replace(in_channels=3, **changes)), weights="int8")
    side = network.config.image_size
    image = torch.randint(256, (3, side, side), dtype=torch.uint8)
    header = f"P6\n{side} {side}\n255\n".encode()
    (tmp_path / "network").write_bytes(write_network(network)[0])
    (tmp_path / "colours.ppm").write_bytes(header + image.permute(1, 2, 0).contiguous().numpy().tobytes())
    code, out, err = run(classify, "-n", tmp_path / "network", tmp_path / "colours.ppm")
    assert (code, err) == (0, "")
    (expected,) = logits_of(network, image[None])
    best = int(np.argmax(expected))
    assert out.split("\t")[1:] == [str(best), f"class {best}", " ".join(map(str, expected)) + "\n"]


@needs_compiler
def test_networks_cut_off_or_damaged(classify: Path, folder: Path, tmp_path: Path) -> None:
    content = (folder / "network.bin").read_bytes()
    example, damaged = folder / "example.pgm", tmp_path / "damaged.bin"

    def refused(changed: bytes, message: str) -> None:
        damaged.write_bytes(changed)
        assert_fails(run(classify, "-n", damaged, example), f"damaged.bin: .*{message}")

    for length in (0, 1, 4, 63, 64, 65, 1000, len(content) // 2, len(content) - 4, len(content) - 1):
        refused(content[:length], "(cut short|not a network)")
    refused(content + b"\0", "cut short")
    refused(b"P5" + content[2:], "not a network")
    for at in (8, 12, 33, 64, 200, len(content) // 2, len(content) - 1):
        refused(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :], "damaged")
    for length in (64, 65, 1001, 1002):  # and a header that agrees with it
        cut = content[:4] + struct.pack("<i", length) + content[8:length]
        refused(cut, "(damaged|cut short)")


@needs_compiler
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes.*28 x 28"),
        (b"P", "1 bytes"),
        (b"P5", "2 bytes"),
        (b"P5\n", "header"),
        (b"P5\n28", "header"),
        (b"P5\n28 28 # 255", "header"),
        (b"P5\n28 -28 255\n", "header"),
        (b"P5\n28 28 65535\n" + bytes(2 * 784), "65535.*8 bits"),
        (b"P5\n99999999999999999999 28 255\n", "."),
        (b"P5\n28 27 255\n" + bytes(28 * 27), "27 x 28.*28 x 28"),
        (b"P6\n28 28 255\n" + bytes(3 * 784), "3 channel"),
        (b"P5\n28 28 255", "bytes come after"),
        (b"P5\n28 28 255\n" + bytes(783), "783 bytes"),
        (b"P5\n28 28 255\n" + bytes(785), "785 bytes"),
        (bytes(783), "783 bytes"),
        (bytes(784 + 1), "785 bytes"),
    ],
)
def test_images_that_cannot_be_read(
    classify: Path, folder: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "image").write_bytes(content)
    network = folder / "network.bin"
    assert_fails(run(classify, "-n", network, tmp_path / "image"), f"image: .*{message}")
    assert_fails(run(classify, "-n", network, given=content), f"standard input: .*{message}")


@needs_compiler
def test_files_that_cannot_be_opened(classify: Path, folder: Path, tmp_path: Path) -> None:
    network = folder / "network.bin"
    assert_fails(run(classify, "-n", network, tmp_path / "absent"), "absent: .*No such file")
    assert_fails(run(classify, "-n", network, tmp_path), "cannot be read")
    assert_fails(run(classify, "-n", tmp_path / "absent"), "absent: .*No such file")
    assert_fails(run(classify, "-n"), "-n: .*missing")
    assert_fails(run(classify, folder / "example.pgm"), "network.bin: .*No such file")
