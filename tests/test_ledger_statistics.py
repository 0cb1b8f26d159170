"""Means, intervals and their words, against hand-computed values and SciPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from snnmlp_edu.errors import InputError
from snnmlp_edu.ledger import compare, summarise


@dataclass
class Run:
    variant: str
    seed: int
    test_accuracy: float = 0.0
    test_loss: float = 0.0


def runs(**values: list[float]) -> Any:
    return [Run(name, seed, value) for name, each in values.items() for seed, value in enumerate(each)]


def test_mean_and_sample_standard_deviation() -> None:
    one, two = summarise(runs(b=[0.8, 0.82, 0.84], a=[0.5]), "test_accuracy")
    assert (one.variant, one.seeds, two.variant) == ("b", (0, 1, 2), "a")
    assert one.mean == pytest.approx(0.82)
    assert one.std == pytest.approx(0.02)  # of the sample: sqrt((0.0004 + 0 + 0.0004) / 2)
    assert math.isnan(two.std)
    assert str(one) == "b: 82.00 ± 2.00 %, 3 seeds"
    assert str(two) == "a: 50.00 %, 1 seed"


def test_differences_are_taken_seed_by_seed() -> None:
    found = compare(runs(a=[0.80, 0.83, 0.86], b=[0.79, 0.80, 0.84]), "a", "b")
    assert found.differences == pytest.approx((0.01, 0.03, 0.02))
    assert found.difference == pytest.approx(0.02)
    half = 4.302653 * 0.01 / math.sqrt(3)  # t of 2 degrees of freedom, from a printed table
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-7)
    assert not found.differs
    assert str(found) == (
        "the seeds do not separate a from b: test accuracy differs by +2.00 points"
        " (95 % interval -0.48 to +4.48, 3 seeds)"
    )


def test_a_difference_that_the_seeds_agree_on() -> None:
    found = compare(runs(a=[0.80, 0.83, 0.86], b=[0.70, 0.73, 0.761]), "b", "a")
    assert found.differs
    assert str(found).startswith("b has a test accuracy 9.97 points lower than a (95 % interval -10.11 to")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_the_paired_test_is_scipys(pairs: list[tuple[float, float]]) -> None:
    one, two = (list(column) for column in zip(*pairs, strict=True))
    differences = [a - b for a, b in pairs]
    found = compare(runs(a=one, b=two), "a", "b")
    if max(differences) - min(differences) > 1e-6:
        interval = stats.ttest_rel(one, two).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-7)
    mirrored = compare(runs(a=one, b=two), "b", "a")
    assert mirrored.difference == pytest.approx(-found.difference)
    assert mirrored.differs == found.differs


def test_counts_and_energies_have_their_own_words() -> None:
    @dataclass
    class Counted:
        variant: str
        seed: int
        parameters: int
        energy_joules: float

    both = [Counted("a", s, 78_000, 3e-7 + s * 1e-9) for s in range(3)]
    both += [Counted("b", s, 80_688, 3e-7) for s in range(3)]
    found: Any = both
    assert str(compare(found, "a", "b", "parameters")) == (
        "a has a number of parameters 2,688 lower than b (95 % interval -2,688 to -2,688, 3 seeds)"
    )
    assert str(compare(found, "a", "b", "energy_joules")).startswith(
        "the seeds do not separate a from b: energy differs by +0.00 µJ"
    )


def test_only_seeds_that_both_have_are_compared() -> None:
    found = compare(runs(a=[0.5, 0.6, 0.7], b=[0.4, 0.5]), "a", "b")
    assert found.seeds == (0, 1)


def test_one_seed_says_nothing() -> None:
    found = compare(runs(a=[0.5], b=[0.4]), "a", "b")
    assert (found.low, found.high, found.differs) == (-math.inf, math.inf, False)
    assert "one seed, which says nothing" in str(found)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"no record of a variant 'stag'; did you mean 'stage'"):
        compare(runs(stage=[0.5]), "stag", "stage")
    with pytest.raises(InputError, match="with no seed in common"):
        compare([Run("a", 0), Run("b", 1)], "a", "b")  # type: ignore[list-item]
    with pytest.raises(InputError, match="no number 'accuracy'"):
        summarise(runs(a=[0.5]), "accuracy")
