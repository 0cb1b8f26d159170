"""The rules of the package's structure, read from the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import snnmlp_edu

PACKAGE = Path(snnmlp_edu.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "shipped" not in path.parts)

# A room imports only from rooms on lower levels, a file only from files that do not import it in turn.
LEVELS = (
    ("errors", "printing"),
    ("fields", "plots"),
    ("config", "inputs", "precision", "yaml_files"),
    ("data", "timing"),
    ("model", "provenance"),
    ("registry",),
    ("baselines", "presets"),
    ("checkpoints", "transfer"),
    ("mfi", "prediction"),
    ("cost", "engine", "receptive_fields"),
    ("training",),
    ("benchmark", "ledger"),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Modules of this package that a file imports at any depth, as dotted names below the package."""
    package = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join((*base, name)) for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "snnmlp_edu":
            found |= {(node.module or "").removeprefix("snnmlp_edu").strip(".") or "__init__"}
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] == "snnmlp_edu"]
            found |= {name.removeprefix("snnmlp_edu").strip(".") or "__init__" for name in names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_has_a_level_and_imports_from_lower_ones(path: Path) -> None:
    room = room_of(path)
    assert room in LEVEL_OF, f"give {room} a level in {Path(__file__).name}"
    for name in imported_units(path):
        other = name.split(".")[0]
        inside = other == room and path.parent != PACKAGE
        assert inside or LEVEL_OF[other] < LEVEL_OF[room], (
            f"{room} imports {name}, which does not stand lower"
        )


def test_imports_form_no_circle() -> None:
    graph = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): imported_units(
            path
        )
        for path in FILES
        if path != PACKAGE / "__init__.py"
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module in done or module not in graph:
            return
        for other in graph[module]:
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


# What is taken from snnTorch, each part by one file: its neuron, to compare with, and its losses.
SNNTORCH = {"model/neurons.py": "snntorch", "training/losses.py": "snntorch.functional"}


def test_each_part_of_snntorch_is_known_to_one_file() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text())
        modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        known = SNNTORCH.get(str(path.relative_to(PACKAGE)))
        assert {m for m in modules if m.split(".")[0] == "snntorch"} <= {known}, path


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert not {p.stem for p in FILES} & {"utils", "util", "helpers", "helper", "common", "misc"}
