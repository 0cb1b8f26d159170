"""What the commands have in common: their arguments, and how a mistake is reported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from inspect import signature
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import InputError
from ..printing import escape_what_streams_lack, printable

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Source = Annotated[
    str, typer.Argument(help="Preset, shipped checkpoint, path of a checkpoint, or a run's folder.")
]
TrainedNetwork = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT", help="Path of a checkpoint, a run's folder, or name of a shipped one."
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields of NetworkConfig to change.")
]


class OneLineErrors(TyperGroup):
    """Turns every mistake of the caller into one line on standard error and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit."""
        escape_what_streams_lack()
        try:
            code = super().main(*args, **kwargs | {"standalone_mode": False})
        except (InputError, OSError) as error:
            _fail(str(error))
        except Exception as error:
            # What typer raises for a wrong call: the class moved between its versions, the method did not.
            if not hasattr(error, "format_message"):
                raise
            _fail(f"{error.format_message()} (try 'snnmlp --help')")
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print("error: " + printable(" ".join(map(str.strip, message.splitlines()))), file=sys.stderr)
    sys.exit(2)


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`key=value` words as nested mappings; a dot reaches in, and a value is JSON or else plain text.

    Raises:
        InputError: a word is not of that form, or a key is given twice.

    >>> parse_overrides(["epochs=2", "neuron.beta=0.8", "skip=none"])
    {'epochs': 2, 'neuron': {'beta': 0.8}, 'skip': 'none'}
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        *outer, last = key.split(".")
        if not equals or not last or not all(outer):
            raise InputError(f"{word!r} is not of the form key=value; write it so, such as epochs=2")
        inner = changes
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InputError(f"{key} and {name} are both given; give one of them")
        if last in inner:
            raise InputError(f"{key} is given twice; give it once")
        try:
            inner[last] = json.loads(text)
        except (ValueError, RecursionError):  # also a number of too many digits, or too many brackets
            inner[last] = text
    return changes


def refuse_options(changes: dict[str, Any], function: Callable[..., Any]) -> None:
    """Make sure that no `key=value` word has the name of an argument of the function it is handed to.

    Raises:
        InputError: one has.
    """
    for name in changes.keys() & signature(function).parameters.keys():
        raise InputError(f"{name} cannot be changed by KEY=VALUE; give it as an option (see --help)")
