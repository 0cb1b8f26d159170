"""What the fields of a recipe must be, as a table that is checked when a recipe is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..config import nearest
from ..errors import InputError


@dataclass(frozen=True)
class Rule:
    """What a field must be.

    Args:
        holds: whether a value is as it must be.
        expected: the same in words, for the message.
        choices: what may be chosen, where the field is a choice; the nearest is suggested.
    """

    holds: Callable[[Any], bool]
    expected: str
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise for a value that is not as it must be.

        Raises:
            InputError: names the field, the value and what it must be.

        >>> whole(1).check("epochs", 3)
        """
        if not self.holds(value):
            hint = nearest(str(value), self.choices)
            raise InputError(f"recipe field {name} is {value!r}; it must be {self.expected}{hint}")


def whole(lowest: int) -> Rule:
    """A whole number of at least `lowest`."""
    return Rule(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= lowest,
        f"a whole number of at least {lowest}",
    )


def number(within: Callable[[float], bool], expected: str) -> Rule:
    """A finite number within a range."""
    return Rule(lambda v: is_number(v) and within(v), expected)


def choice(literal: Any) -> Rule:
    """One of the values of a `Literal`."""
    allowed = get_args(literal)
    return Rule(lambda v: isinstance(v, str) and v in allowed, f"one of {', '.join(allowed)}", allowed)


def optional(rule: Rule) -> Rule:
    """None, or what another rule says."""
    return Rule(lambda v: v is None or rule.holds(v), rule.expected, rule.choices)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


TEXT = Rule(lambda v: isinstance(v, str), "text")
TEXT_OR_NULL = Rule(lambda v: isinstance(v, str | None), "text, or null")
FLAG = Rule(lambda v: isinstance(v, bool), "true or false")
MAPPING = Rule(lambda v: isinstance(v, Mapping), "a mapping of NetworkConfig fields")
POSITIVE = number(lambda v: v > 0, "a finite number above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "0 or more")
PART = number(lambda v: 0 < v < 1, "between 0 and 1")
BELOW_ONE = number(lambda v: 0 <= v < 1, "at least 0 and below 1")
PROBABILITY = number(lambda v: 0 <= v <= 1, "in 0 to 1")
