"""The README promises nothing that does not hold: its figures, its links and its code are run here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from compilers import needs_compiler
from typer.testing import CliRunner

from snnmlp_edu import compile_network, count_parameters, ledger, load_checkpoint
from snnmlp_edu.benchmark import engine_report
from snnmlp_edu.benchmark.report import load_report, markdown
from snnmlp_edu.cli import app
from snnmlp_edu.data import load_embedded
from snnmlp_edu.ledger import reproduction, tables
from snnmlp_edu.mfi import fold_batch_norm
from snnmlp_edu.training import describe_accuracy, evaluate_embedded, list_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


NETWORKS = ("mlp_spe_nano", "mlp_spe_micro")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_figures_of_a_shipped_network_are_those_of_its_checkpoint(name: str) -> None:
    spiking, twin = load_checkpoint(name), load_checkpoint(f"relu_{name}")
    parameters = f"{sum(count_parameters(spiking.model).values()):,}"
    tested = [
        describe_accuracy(each.metrics["test_correct"], each.metrics["test_total"])
        for each in (spiking, twin)
    ]
    row = next(line for line in README.splitlines() if tested[0] in line)
    assert row.startswith(f"| `{name}` | {parameters} | {spiking.metrics['test_total']:,} |")
    assert row.endswith(f"| {tested[1]} |")


@needs_compiler
@pytest.mark.usefixtures("tested_once")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_accuracies_on_the_embedded_images_are_those_of_the_networks(name: str) -> None:
    spiking, twin = load_checkpoint(name), load_checkpoint(f"relu_{name}")
    program = compile_network(fold_batch_norm(spiking.model), spiking.preprocessing)
    images, labels = load_embedded("test")
    whole = int((program(images).argmax(1) == labels).sum())
    shares = [evaluate_embedded(spiking)[0], whole, evaluate_embedded(twin)[0]]
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    found = [cell.split("(")[0].strip() for cell in row.split("|")[4:7]]
    assert shares[0] - shares[1] <= 5, "whole numbers cost at most half a point"
    assert found == [f"{share / 10:.2f} %" for share in shares]


def between(command: str, text: str = README) -> str:
    """What a page has between the marks of a command."""
    return text.partition(f"<!-- {command} -->\n\n")[2].partition("\n\n<!-- end -->")[0]


def test_the_tables_of_speed_are_what_the_benchmarks_wrote() -> None:
    file = "data/engine_benchmark"
    table = engine_report.markdown(engine_report.load_report(ROOT / file))
    assert between(f"snnmlp bench --engine --from {file} --markdown") == table
    table = markdown(load_report(ROOT / "data" / "benchmark.json"))
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert between("snnmlp bench --from data/benchmark.json --markdown", page) == table


def test_the_table_of_claims_is_what_the_ledger_has() -> None:
    table = tables.claims_markdown(ledger.claims())
    assert between("snnmlp ledger claims --markdown") == table, "run: snnmlp ledger claims --into README.md"


def test_the_report_of_the_reproduction_is_what_the_ledger_has() -> None:
    stored = (ROOT / "REPRODUCTION.md").read_text(encoding="utf-8")
    assert stored == reproduction.report(), "run: snnmlp ledger report --into REPRODUCTION.md"


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
