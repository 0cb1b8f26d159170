"""The rules in annotations: what they let through, convert and refuse, and in which words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnmlp_edu.errors import InputError
from snnmlp_edu.fields import POSITIVE, check_fields, checked, from_mapping, marked, rule_of, whole

Colour = Literal["red", "green"]


@dataclass(frozen=True)
class Inner:
    count: Annotated[int, whole(1, 9)]
    colour: Colour = "red"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(1))
    rate: Annotated[float, POSITIVE] | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    sizes: tuple[Annotated[int, whole(1)], ...] = (1,)
    text: Annotated[str | None, "mark"] = None
    flag: Annotated[bool, "mark"] = False
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"inner": 3}, ["Outer.inner is 3", "Inner"]),
        ({"inner": {"count": 10}}, ["Inner.count is 10", "from 1 to 9"]),
        ({"inner": {"count": True}}, ["Inner.count is True"]),
        ({"inner": {"count": 1, "colour": "gren"}}, ["Inner.colour is 'gren'", "red, green", "mean 'green'"]),
        ({"inner": {"count": 1, "colour": ["red"]}}, ["Inner.colour is ['red']"]),
        ({"inner": {"count": 1, "color": "red"}}, ["Inner", "no field 'color'", "mean 'colour'"]),
        ({"inner": {}}, ["Inner", "lacks count"]),
        ({"inner.count": 3}, ["Outer", "no field 'inner.count'", "inner: {count: ...}"]),
        ({"rate": 0}, ["Outer.rate is 0", "above 0", "or null"]),
        ({"rate": math.inf}, ["Outer.rate is inf"]),
        ({"pair": [1]}, ["Outer.pair is [1]", "list of 2"]),
        ({"pair": [1, "2"]}, ["Outer.pair is [1, '2']"]),
        ({"sizes": []}, ["Outer.sizes is []", "one or more"]),
        ({"sizes": "12"}, ["Outer.sizes is '12'"]),
        ({"sizes": [1, 0]}, ["Outer.sizes is [1, 0]", "at least 1"]),
        ({"text": 3}, ["Outer.text is 3", "text, or null"]),
        ({"flag": 1}, ["Outer.flag is 1", "true or false"]),
        ({"more": [1]}, ["Outer.more is [1]", "mapping"]),
        ("words", ["Outer is 'words'", "mapping"]),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(values: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        from_mapping(Outer, values)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_what_stands_for_more_is_converted() -> None:
    made = from_mapping(Outer, {"inner": {"count": 2}, "pair": [1, 2], "sizes": [3, 4], "rate": 2})
    assert made == Outer(Inner(2), 2, (1.0, 2.0), (3, 4))
    assert [type(value) for value in made.pair] == [float, float]
    assert type(made.rate) is int, "a number is kept as it was written"
    assert dataclasses.replace(made, rate=None).inner is made.inner


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_a_whole_number_within_limits_and_nothing_else(value: Any) -> None:
    if type(value) is int and -3 <= value <= 7:
        assert checked("count", value, Annotated[int, whole(-3, 7)]) == value
    else:
        with pytest.raises(InputError, match="count is "):
            checked("count", value, Annotated[int, whole(-3, 7)])


def test_marks() -> None:
    assert marked(Outer, "mark") == ("text", "flag")


def test_an_annotation_without_a_rule_is_a_defect() -> None:
    with pytest.raises(TypeError, match=r"snnmlp_edu/fields\.py"):
        rule_of(int | str)
