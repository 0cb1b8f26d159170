"""YAML files that people write: recipes, plans and claims; numbers as in YAML 1.2, so that 1e-3 is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

# YAML 1.1, which PyYAML reads, takes 1e-3 and 1.0e3 for text: it wants a point and the exponent's sign.
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """Reads plain values alone."""


class _Dumper(yaml.SafeDumper):
    """Writes them so that `_Loader` reads the same: text that looks like a number is quoted."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file; tags that would make objects are refused.

    Raises:
        InputError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file} is no YAML: {' '.join(str(error).split())}") from error


def to_yaml(values: Any) -> str:
    """The text of a file from which `read_yaml` gives the same plain values.

    >>> to_yaml({"learning_rate": 0.001, "name": "1e-3"})
    "learning_rate: 0.001\\nname: '1e-3'\\n"
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


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
