"""YAML files that people write: recipes, plans and claims; numbers as in YAML 1.2, so that 1e-3 is one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError
from .fields import nearest

# YAML 1.1, which PyYAML reads, takes 1e-3 and 1.0e3 for text: it wants a point and the exponent's sign.
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """Reads plain values alone, and no field twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, whose fields PyYAML would let override each other without a word."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the field {key.value} is given twice; keep one", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes them so that `_Loader` reads the same: text that looks like a number is quoted."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file; tags that would make objects are refused.

    Raises:
        InputError: it cannot be read, is no YAML, has a field twice, or refers to itself.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader)
        json.dumps(values, skipkeys=True, default=str)  # which goes through all of it once
        return values
    except RecursionError as error:
        raise InputError(f"{file} is nested too deeply; write plain fields") from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise InputError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error


def read_named(kind: str, name: str | Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that a name stands for, and the fields in it.

    Args:
        kind: what it holds, such as `recipe`, for messages.
        name: of a file in the folder, without its suffix; or a path that ends in `.yaml` or `.yml`.
        folder: where the shipped ones are.

    Raises:
        InputError: there is no such file, or it does not hold fields.
    """
    file = Path(name) if Path(name).suffix in (".yaml", ".yml") else folder / f"{name}.yaml"
    if not file.is_file():
        known = sorted(each.stem for each in folder.glob("*.yaml"))
        raise InputError(
            f"there is no {kind} {str(name)!r}{nearest(str(name), known)} ({kind}s: {', '.join(known)}; or"
            " the path of a .yaml file)"
        )
    values = read_yaml(file)
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no {kind}; write one 'field: value' per line")
    return file, values


def to_yaml(values: Any) -> str:
    """The text of a file from which `read_yaml` gives the same plain values.

    >>> to_yaml({"learning_rate": 0.001, "name": "1e-3"})
    "learning_rate: 0.001\\nname: '1e-3'\\n"
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def require_text_keys(values: Any, location: str) -> None:
    """Make sure that text names every field of nested mappings; YAML reads 3, null and on as other things.

    Raises:
        InputError: one is not.

    >>> require_text_keys({"model": {"neuron": {"beta": 0.8}}}, "recipe.yaml")
    """
    for key, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(key, str):
            raise InputError(f"{location} has the field {key!r}, which is no string; give a field's name")
        require_text_keys(value, location)
