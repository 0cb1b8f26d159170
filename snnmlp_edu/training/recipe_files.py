"""Recipes on disk: those that come with the package, and YAML files of your own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from ..config import nearest
from ..errors import InputError
from .recipe import Recipe

FOLDER = Path(__file__).parent / "recipes"


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by its name, or from a YAML file of your own.

    Args:
        name: one of `list_recipes()`, or a path that ends in `.yaml`.

    Raises:
        InputError: there is no such recipe, or the file does not hold one.

    >>> load_recipe("fashion_smoke").preset
    'mlp_spe_nano'
    """
    own_file = Path(name).suffix in (".yaml", ".yml")
    file = Path(name) if own_file else FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = list_recipes()
        raise InputError(
            f"there is no recipe {str(name)!r}{nearest(str(name), known)} (recipes: {', '.join(known)}; or"
            " the path of a .yaml file)"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no recipe; write one 'field: value' a line")
    required = [f.name for f in dataclasses.fields(Recipe) if f.name in ("source", "epochs", "learning_rate")]
    missing = [name for name in required if name not in values]
    if missing:
        raise InputError(f"{file} lacks {', '.join(missing)}; every recipe needs {', '.join(required)}")
    blank = Recipe(name=file.stem, source="", epochs=1, learning_rate=1.0)
    return blank.replace(**values)
