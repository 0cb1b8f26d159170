"""What a field of a dataclass may be: its annotation says it, and is checked when an instance is made.

`epochs: Annotated[int, whole(1)]`, `rate: Annotated[float, POSITIVE] | None` and a `Literal` are each type
and rule in one. `check_fields`, called in `__post_init__`, reads them.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from .errors import InputError

Kind = TypeVar("Kind")

LARGEST = 2**63 - 1  # that a tensor's index can be


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Args:
        holds: whether a value is as it must be.
        expected: the same in words, for the message.
        choices: what may be chosen, where the field is a choice; the nearest is suggested.
        convert: from a value that is as it must be to what is stored.
    """

    holds: Callable[[Any], bool]
    expected: str
    choices: tuple[str, ...] = ()
    convert: Callable[[Any], Any] = lambda value: value

    def check(self, location: str, value: Any) -> Any:
        """The value as it is stored.

        Raises:
            InputError: the value is not allowed; names the location, the value, and what it must be.
        """
        if not self.holds(value):
            hint = nearest(str(value), self.choices)
            raise InputError(f"{location} is {value!r}; it must be {self.expected}{hint}")
        return self.convert(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to a misspelt one, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, and finite; true and false are none.

    >>> [is_number(value) for value in (1, 0.5, True, "1", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(lowest: int, highest: int = LARGEST) -> Rule:
    """A whole number within limits.

    >>> whole(1, 1_000).expected
    'a whole number from 1 to 1,000'
    """
    words = f"of at least {lowest}" if highest == LARGEST else f"from {lowest} to {highest:,}"
    return Rule(lambda v: is_whole(v) and lowest <= v <= highest, f"a whole number {words}")


def number(within: Callable[[float], bool], expected: str) -> Rule:
    """A finite number within a range."""
    return Rule(lambda v: is_number(v) and within(v), expected)


POSITIVE = number(lambda v: v > 0, "a finite number above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "a finite number of at least 0")
FRACTION = number(lambda v: 0 < v < 1, "a number between 0 and 1")
BELOW_ONE = number(lambda v: 0 <= v < 1, "a number of at least 0 and below 1")
PROBABILITY = number(lambda v: 0 <= v <= 1, "a number from 0 to 1")

PLAIN = {
    int: Rule(is_whole, "a whole number"),
    float: Rule(is_number, "a finite number"),
    bool: Rule(lambda v: isinstance(v, bool), "true or false"),
    str: Rule(lambda v: isinstance(v, str), "text"),
}


def rule_of(kind: Any) -> Rule:
    """The rule that an annotation stands for.

    Raises:
        TypeError: the annotation is of a kind that is not known here.

    >>> rule_of(Annotated[int, whole(1)] | None).expected
    'a whole number of at least 1, or null'
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if origin is Annotated:
        own = [each for each in arguments[1:] if isinstance(each, Rule)]
        return _narrowed(rule_of(arguments[0]), own)
    if origin is Literal:
        return Rule(
            lambda v: isinstance(v, str) and v in arguments, f"one of {', '.join(arguments)}", arguments
        )
    if origin in (Union, types.UnionType) and len(arguments) == 2 and arguments[1] is type(None):
        rule = rule_of(arguments[0])
        return dataclasses.replace(
            rule,
            holds=lambda v: v is None or rule.holds(v),
            expected=f"{rule.expected}, or null",
            convert=lambda v: None if v is None else rule.convert(v),
        )
    if origin is tuple:
        return _tuple_of(arguments)
    if origin is collections.abc.Mapping:
        return Rule(lambda v: isinstance(v, Mapping), "a mapping of fields")
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return Rule(
            lambda v: isinstance(v, kind | Mapping),
            f"a {kind.__name__}, or a mapping of its fields",
            convert=lambda v: v if isinstance(v, kind) else from_mapping(kind, v),
        )
    if isinstance(kind, type) and origin is None:
        return Rule(lambda v: isinstance(v, kind), f"a {kind.__name__}")
    raise TypeError(f"the annotation {kind} has no rule; extend rule_of in snnmlp_edu/fields.py")


def _narrowed(rule: Rule, others: list[Rule]) -> Rule:
    """The rule of a type, and narrower ones, of which the last has the words."""
    if not others:
        return rule
    *_, last = others
    return dataclasses.replace(
        rule,
        holds=lambda v: rule.holds(v) and all(other.holds(v) for other in others),
        expected=last.expected,
    )


def _tuple_of(arguments: tuple[Any, ...]) -> Rule:
    """As many values as the annotation has, or one or more; a list is accepted, and becomes a tuple."""
    rule = rule_of(arguments[0])
    convert = float if arguments[0] is float else rule.convert
    if arguments[-1] is Ellipsis:
        lengths, words = range(1, LARGEST), "one or more"
    else:
        lengths, words = range(len(arguments), len(arguments) + 1), str(len(arguments))
    return Rule(
        lambda v: isinstance(v, tuple | list) and len(v) in lengths and all(map(rule.holds, v)),
        f"a list of {words}, each {rule.expected}",
        convert=lambda v: tuple(map(convert, v)),
    )


def checked(location: str, value: Any, kind: Any) -> Any:
    """A value checked against an annotation, unchanged but for lists and mappings that become objects.

    Args:
        location: what messages call it: an argument, or `Class.field`.
        value: to be checked.
        kind: the annotation, such as `Annotated[int, whole(1)] | None`.

    Returns:
        A tuple for a list where the annotation is a tuple, an instance for a mapping where it is a dataclass.

    Raises:
        InputError: names the location, the value, what it must be, and the nearest choice.

    >>> checked("epochs", 3, Annotated[int, whole(1)])
    3
    """
    return rule_of(kind).check(location, value)


def check_fields(instance: Any) -> None:
    """Check every field of a dataclass by its annotation, and convert it; for use in `__post_init__`.

    Raises:
        InputError: as `checked`, for the first field that is not as it must be.
    """
    owner = type(instance).__name__
    for name, rule in rules_of(instance.__class__).items():
        value = rule.check(f"{owner}.{name}", getattr(instance, name))
        object.__setattr__(instance, name, value)  # the class may be frozen


@functools.cache
def rules_of(cls: type) -> dict[str, Rule]:
    """The rule of each field of a dataclass, by name."""
    return {name: rule_of(kind) for name, kind in _annotations(cls).items()}


def marked(cls: type, mark: object) -> tuple[str, ...]:
    """Names of the fields of a dataclass whose annotation has this mark: `Annotated[bool, mark]`."""
    return tuple(name for name, kind in _annotations(cls).items() if mark in get_args(kind)[1:])


def _annotations(cls: type) -> dict[str, Any]:
    kinds = typing.get_type_hints(cls, include_extras=True)
    return {field.name: kinds[field.name] for field in dataclasses.fields(cls)}


def require_known(owner: str, values: Iterable[Any], known: Iterable[str]) -> None:
    """Make sure that all names are known.

    Args:
        owner: what the message says has no such field.
        values: the names.
        known: those that there are.

    Raises:
        InputError: one is not (the nearest is suggested).
    """
    known = list(known)
    for name in values:
        if name not in known:
            outer, dot, inner = str(name).partition(".")
            nested = dot and outer in known
            hint = f"; write {outer}: {{{inner}: ...}}" if nested else nearest(str(name), known)
            raise InputError(f"{owner} has no field {name!r}{hint} (fields: {', '.join(known)})")


def from_mapping(cls: type[Kind], values: Any) -> Kind:
    """An instance of a dataclass from plain values.

    Raises:
        InputError: they are no mapping; or a field is unknown (the nearest is suggested), missing, or not as
            it must be.
    """
    owner = cls.__name__
    if not isinstance(values, Mapping):
        raise InputError(f"{owner} is {values!r}; it must be a mapping of its fields")
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    require_known(owner, values, [field.name for field in fields])
    missing = [field.name for field in fields if is_required(field) and field.name not in values]
    if missing:
        raise InputError(f"{owner} lacks {', '.join(missing)}; give a value")
    return cls(**values)


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a field of a dataclass has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
