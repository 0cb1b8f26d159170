"""The README promises nothing that does not hold: its figures, its links and its code are run here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from compilers import needs_compiler
from typer.testing import CliRunner

from snnmlp_edu import compile_network, count_parameters, load_checkpoint
from snnmlp_edu.benchmark.report import load_report, markdown
from snnmlp_edu.cli import app
from snnmlp_edu.data import load_embedded
from snnmlp_edu.ledger import tables
from snnmlp_edu.mfi import fold_batch_norm
from snnmlp_edu.training import describe_accuracy, list_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mlp_spe_nano", "mlp_spe_micro"])
def test_the_figures_of_a_shipped_network_are_those_of_its_checkpoint(name: str) -> None:
    checkpoint = load_checkpoint(name)
    metrics = checkpoint.metrics
    assert describe_accuracy(metrics["test_correct"], metrics["test_total"]) in README
    assert f"{sum(count_parameters(checkpoint.model).values()):,} parameters" in README


@needs_compiler
def test_the_accuracy_of_the_engine_is_what_it_has() -> None:
    program = compile_network(fold_batch_norm(load_checkpoint("mlp_spe_nano").model))
    images, labels = load_embedded("test")
    correct = int((program(images).argmax(1) == labels).sum())
    assert f"`evaluate --engine` gives {correct / 10:.2f} %" in README.replace("\n", " ")


def test_the_table_of_speed_is_what_the_benchmark_wrote() -> None:
    table = markdown(load_report(ROOT / "data" / "benchmark.json"))
    assert f"--markdown -->\n\n{table}\n\n<!-- end -->" in README


def test_the_table_of_results_is_what_the_ledger_has() -> None:
    made = "run: snnmlp ledger table --markdown --into README.md"
    assert f"{tables.START}\n\n{tables.headline_markdown()}\n\n{tables.END}" in README, made


def test_every_link_within_the_repository_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "stages.0.neuron" in capsys.readouterr().out


def test_every_command_of_the_readme_exists() -> None:
    commands = [line.partition("#")[0] for line in README.splitlines() if line.startswith("snnmlp ")]
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command)
        result = CliRunner().invoke(app, [words[1], "--help"])
        assert result.exit_code == 0, result.output
        if "--recipe" in words:
            assert words[words.index("--recipe") + 1] in list_recipes()


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE)) == {"book", "test"} <= targets
