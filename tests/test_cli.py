"""The command line: results, exit codes, and one line without a traceback for every mistake."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
import typer
import yaml
from fresh import run_fresh
from typer.testing import CliRunner

import snnmlp_edu
from snnmlp_edu import data, registry
from snnmlp_edu.checkpoints import load_checkpoint, save_checkpoint
from snnmlp_edu.cli import app, main
from snnmlp_edu.cli.arguments import parse_overrides
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data import Preprocessing
from snnmlp_edu.errors import InputError
from snnmlp_edu.mfi import export_nir, fold_batch_norm, load_or_calibrate
from snnmlp_edu.model.network import SpikingMLP
from snnmlp_edu.registry import create_model, list_models

QUICK = ["dim=6", "depths=[1,1]", "patch_size=8", "time_steps=1", "max_steps=2"]


def call(*words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one call."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def assert_wrong_usage(answer: tuple[int, str, str], message: str) -> None:
    """Exit code 2, nothing on standard output, one line on standard error."""
    code, out, err = answer
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert re.search(message, err), err


# --- models ------------------------------------------------------------------------------------------


def test_models_as_json_equal_the_networks() -> None:
    code, out, _ = call("models", "--json")
    assert code == 0
    rows = {row["preset"]: row for row in json.loads(out)}
    assert list(rows) == list_models()
    assert rows["mlp_spe_t"] == {
        "preset": "mlp_spe_t",
        "parameters": 25_223_796,
        "in_channels": 3,
        "image_size": 224,
        "num_classes": 1000,
        "time_steps": 4,
    }
    built = create_model("mlp_spe_nano")
    assert rows["mlp_spe_nano"]["parameters"] == sum(p.numel() for p in built.parameters()) <= 400_000


def test_models_as_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", {"mlp_spe_s": registry._known()["mlp_spe_s"]})
    code, out, _ = call("models")
    assert code == 0
    row = next(line for line in out.splitlines() if " mlp_spe_s " in line)
    assert "37,983,144" in row
    assert "3 x 224 x 224" in row


def test_names_with_brackets_and_colons_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    config = registry.get_config("mlp_spe_nano")
    monkeypatch.setattr(registry, "_entries", {})
    registry.register("[red]mine[/red]:fire:", config, SpikingMLP)
    code, out, _ = call("models")
    assert code == 0
    assert "[red]mine[/red]:fire:" in out


# --- train and evaluate ------------------------------------------------------------------------------


def test_evaluate_repeats_what_training_printed(tmp_path: Path) -> None:
    code, out, _ = call("train", "--recipe", "fashion_smoke", "--output", tmp_path, *QUICK, "seed=3")
    assert code == 0
    printed = re.search(r"^test accuracy .* \((\d+) of 1000\)$", out, re.MULTILINE)
    assert printed
    checkpoint = tmp_path / "fashion_smoke-3-1" / "checkpoint.safetensors"
    assert f"checkpoint {checkpoint}" in out
    assert "validation accuracy" in out

    code, again, _ = call("evaluate", checkpoint)
    assert code == 0
    assert again.strip() == printed.group(0)
    code, text, _ = call("evaluate", checkpoint, "--json")
    assert code == 0
    assert json.loads(text) == {
        "checkpoint": str(checkpoint),
        "correct": int(printed.group(1)),
        "total": 1000,
        "accuracy": int(printed.group(1)) / 1000,
    }


def test_overrides_and_preset_reach_the_network(tmp_path: Path) -> None:
    words = ["--preset", "relu_mlp_spe_nano", *QUICK, "neuron.beta=0.25", "model.expansion=2"]
    code, _, _ = call("train", "--recipe", "fashion_smoke", "--output", tmp_path, *words)
    assert code == 0
    checkpoint = load_checkpoint(tmp_path / "fashion_smoke-0-1" / "checkpoint.safetensors")
    config = checkpoint.model.config
    assert checkpoint.preset == "relu_mlp_spe_nano"
    assert (config.activation, config.dim, config.depths, config.expansion) == ("relu", 6, (1, 1), 2)
    assert config.neuron.beta == 0.25


def test_shipped_checkpoint_by_name() -> None:
    code, out, _ = call("evaluate", "mlp_spe_nano", "--json")
    assert code == 0
    # Rounding differs between processors, and a spike more or less may turn a decision.
    assert json.loads(out)["accuracy"] > 0.82


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["epochs=2", "learning_rate=4e-3"], {"epochs": 2, "learning_rate": 0.004}),
        (["neuron.beta=0.8", "neuron.reset=soft"], {"neuron": {"beta": 0.8, "reset": "soft"}}),
        (["model.neuron.slope=null"], {"model": {"neuron": {"slope": None}}}),
        (["skip=none", "flip=false", "depths=[1, 2]"], {"skip": "none", "flip": False, "depths": [1, 2]}),
        (["source=a=b", "name="], {"source": "a=b", "name": ""}),
    ],
)
def test_overrides_are_json_or_text(words: list[str], expected: dict) -> None:
    assert parse_overrides(words) == expected


@pytest.mark.parametrize("word", ["epochs", "=2", "neuron.=1", ".beta=1"])
def test_overrides_of_another_form(word: str) -> None:
    with pytest.raises(InputError, match="is not of the form key=value"):
        parse_overrides([word])


def test_contradictory_overrides() -> None:
    with pytest.raises(InputError, match="epochs is given twice"):
        parse_overrides(["epochs=1", "epochs=2"])
    with pytest.raises(InputError, match="give one of them"):
        parse_overrides(["neuron=1", "neuron.beta=0.5"])


# --- wrong usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing command"),
        (["model"], "No such command 'model'.*models"),
        (["models", "--jsn"], "No such option: --jsn"),
        (["train"], "give --recipe NAME, or --resume RUN"),
        (["evaluate"], "(?i)missing argument .checkpoint"),
        (["train", "--recipe", "fashion"], r"there is no recipe 'fashion'.*fashion_smoke"),
        (["train", "--recipe", "none.yaml"], r"there is no recipe 'none\.yaml'"),
        (
            ["train", "--recipe", "fashion_smoke", "--preset", "mlp_spe_nanno"],
            r"did you mean 'mlp_spe_nano'\?",
        ),
        (["train", "--recipe", "fashion_smoke", "--preset", "mlp_spe_t"], "set num_classes=10"),
        (["train", "--recipe", "fashion_smoke", "epoch=2"], r"no field 'epoch'; did you mean 'epochs'\?"),
        (["train", "--recipe", "fashion_smoke", "output=runs"], r"output cannot be changed by KEY=VALUE"),
        (["ledger", "run", "skip", "results=x"], r"results cannot be changed .*; give it as an option"),
        (["ledger", "table", "--results", "mistyped"], "mistyped is not a folder of records"),
        (["ledger", "claims", "--json", "--into", "README.md"], "leave out --json"),
        (["train", "--recipe", "fashion_smoke", "epochs"], "'epochs' is not of the form key=value"),
        (["train", "--recipe", "fashion_smoke", "neuron.beta=2"], "beta is 2"),
        (["train", "--recipe", "fashion_smoke", "neuron.leak=0.5"], "no field 'leak'"),
        (["train", "--recipe", "fashion_smoke", "time_steps=0"], "time_steps is 0"),
        (["train", "--recipe", "fashion_smoke", "dim=16"], "dim is 16; spiking patch encoding"),
        (["train", "--recipe", "fashion_smoke", "image_size=40"], "image_size is 40; it must be divisible"),
        (["train", "--recipe", "fashion_smoke", "--output", "absent/deep"], "there is no folder absent"),
        (["bench", "--plot", "absent/sweeps.png"], "a .png or .svg file in a folder that exists"),
        (["bench", "--plot", "sweeps.doc"], r"--plot is sweeps\.doc; give a \.png or \.svg file"),
        (["evaluate", "absent.safetensors"], r"there is no checkpoint absent\.safetensors"),
        (["evaluate", "mlp_spe_nan"], r"did you mean 'mlp_spe_nano'\?"),
    ],
)
def test_mistakes_get_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_wrong_usage(call(*words), message)
    assert list(tmp_path.iterdir()) == []


def test_bad_checkpoints_get_one_line(tmp_path: Path) -> None:
    code, _, _ = call("train", "--recipe", "fashion_smoke", "--output", tmp_path, *QUICK)
    assert code == 0
    content = (tmp_path / "fashion_smoke-0-1" / "checkpoint.safetensors").read_bytes()
    file = tmp_path / "copy.safetensors"
    file.write_bytes(content[:-100])
    assert_wrong_usage(call("evaluate", file), "is truncated")
    file.write_bytes(content[:-4] + b"\x01\x02\x03\x04")
    assert_wrong_usage(call("evaluate", file), "do not match their SHA-256")
    torch.save({}, file)
    assert_wrong_usage(call("evaluate", file), "is no checkpoint")


def test_checkpoint_of_other_classes(tmp_path: Path, tiny: NetworkConfig) -> None:
    save_checkpoint(
        tmp_path / "net.safetensors",
        SpikingMLP(tiny),
        Preprocessing(image_size=8),
        class_names=["cat", "dog"],
    )
    assert_wrong_usage(call("evaluate", tmp_path / "net.safetensors"), "classes are cat, dog and")


def test_without_its_extra_training_says_so_and_all_else_runs() -> None:
    program = (
        "import sys; extra = ('lightning_fabric', 'timm', 'torchvision', 'sklearn');"
        " sys.modules.update(dict.fromkeys(extra));"
        " import snnmlp_edu, snnmlp_edu.cli, snnmlp_edu.training as t; print(t.evaluate.__name__);"
        " from snnmlp_edu import ledger; print(sum(ledger.verdict_counts().values()));"
        " sys.argv[1:] = ['train', '--recipe', 'fashion_smoke']; snnmlp_edu.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    claims = yaml.safe_load((data.path() / "claims.yaml").read_text(encoding="utf-8"))
    assert done.stdout == f"evaluate\n{len(claims)}\n"
    assert_wrong_usage(
        (done.returncode, "", done.stderr),
        r"training needs .*run, in a clone: pip install -e '\.\[train\]'",
    )


# --- help, and the real command ----------------------------------------------------------------------


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The words that reach each command: those of `group`, and those of the groups inside it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield *path, name


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example(words: tuple[str, ...]) -> None:
    code, out, err = call(*words, "--help")
    assert (code, err) == (0, "")
    assert f"Example: snnmlp {' '.join(words)}" in " ".join(out.split())


@pytest.mark.parametrize("words", [(), ("data",), ("ledger",), *COMMANDS], ids=" ".join)
def test_help_is_asked_for_in_both_ways(words: tuple[str, ...]) -> None:
    code, out, err = call(*words, "-h")
    assert (code, err) == (0, "")
    assert re.search(r"--help\s+-h", out)
    assert out == call(*words, "--help")[1]


def test_version() -> None:
    assert call("--version") == (0, f"snnmlp-edu {snnmlp_edu.__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_and_completes(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said_by_the_program(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["snnmlp", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert shell in said_by_the_program("--install-completion", shell)
    written = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert any("_SNNMLP_COMPLETE" in text for text in written)
    asked = {
        "bash": {"COMP_WORDS": "snnmlp ledger ta", "COMP_CWORD": "2"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "snnmlp ledger ta"},
        "fish": {"_TYPER_COMPLETE_ARGS": "snnmlp ledger ta", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    for name, value in {**asked, "_SNNMLP_COMPLETE": f"complete_{shell}"}.items():
        monkeypatch.setenv(name, value)
    assert "table" in said_by_the_program()


def test_python_m_is_the_same_command_and_needs_a_plotting_backend_to_draw() -> None:
    done = run_fresh(["-m", "snnmlp_edu", "train"], os.environ | {"MPLBACKEND": "nonsense"})
    assert_wrong_usage((done.returncode, done.stdout, done.stderr), "MPLBACKEND")


# --- export-nir --------------------------------------------------------------------------------------

TOY = ["dim=6", "image_size=8", "depths=[1,1]"]


def test_export_writes_what_the_function_returns(tmp_path: Path) -> None:
    path = tmp_path / "toy.nir"
    code, out, err = call("export-nir", "mlp_spe_nano", path, *TOY, "--json")
    assert code == 0, err
    facts = json.loads(out)
    loaded = load_or_calibrate("mlp_spe_nano", dim=6, image_size=8, depths=[1, 1])
    graph = export_nir(fold_batch_norm(loaded.model))
    assert facts["origin"] == loaded.origin
    assert (facts["nodes"], facts["edges"]) == (len(graph.nodes), len(graph.edges))
    assert facts["metadata"] == graph.metadata
    assert facts["bytes"] == path.stat().st_size
    for name, node in nir.read(path).nodes.items():
        if isinstance(node, nir.Affine | nir.Linear):
            assert np.array_equal(node.weight, graph.nodes[name].weight)


def test_export_says_what_it_wrote(tmp_path: Path) -> None:
    code, out, _ = call("export-nir", "mlp_spe_nano", tmp_path / "toy.nir", *TOY)
    assert code == 0
    assert re.match(r".*toy\.nir: 41 nodes, 64 edges, [\d,]+ bytes\nfrom preset mlp_spe_nano, not", out)
    assert "time_steps: 4\n" in out


def test_export_of_a_large_network(tmp_path: Path) -> None:
    answer = call("export-nir", "mlp_spe_nano", tmp_path / "nano.nir")
    assert_wrong_usage(answer, r"NIR shares no map .* stops at 16,777,216; take a smaller image_size")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["snnmlp_edu", "--version"], {"MPLBACKEND": "nonsense"}),  # which only what draws needs
        (["book.engine", "lengths"], {}),
        (["book.engine", "--help"], {"PYTHONUNBUFFERED": "1"}),  # argparse keeps to itself what fails at once
    ],
    ids=["snnmlp", "book.engine", "help"],
)
def test_a_reader_that_stops_ends_a_command_without_a_word(
    command: list[str], variables: dict[str, str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=os.environ | variables,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.stderr, done.returncode) == ("", 1)


@pytest.mark.parametrize("word", ["--help", "lengths"])
def test_a_command_without_a_standard_output_says_nothing(word: str) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m book.engine {word} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
