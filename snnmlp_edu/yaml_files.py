"""YAML files that people write: recipes, plans and claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import InputError


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file; tags that would make objects are refused.

    Raises:
        InputError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file} is no YAML: {' '.join(str(error).split())}") from error


def require_text_keys(values: Any, place: str) -> None:
    """Make sure that text names every field of nested mappings; YAML reads 3, null and on as other things.

    Raises:
        InputError: one is not.

    >>> require_text_keys({"model": {"neuron": {"beta": 0.8}}}, "recipe.yaml")
    """
    for key, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(key, str):
            raise InputError(f"{place} has the field {key!r}, which is no text; give the name of a field")
        require_text_keys(value, place)
