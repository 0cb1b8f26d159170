"""Means, comparisons and their words, against hand-computed values."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import record
from scipy import stats

from snnmlp_edu import ledger
from snnmlp_edu.errors import InputError
from snnmlp_edu.ledger import compare, compare_pairs, compare_with, intervals, summarise
from snnmlp_edu.ledger.answers import right_images

T_OF_4 = 2.776445  # of Student's distribution, from a printed table


@dataclass
class Run:
    """What comparisons over seeds alone need of a record."""

    variant: str
    seed: int
    validation_accuracy: float
    dataset_sha256: str = ""


def runs(**values: Sequence[float]) -> Any:
    """Runs of each variant, seed by seed, with these accuracies on validation images."""
    return [Run(name, seed, value) for name, each in values.items() for seed, value in enumerate(each)]


ONE = record("skip", "stage", 0, 0)


def scored(**correct: Sequence[int]) -> list[ledger.Record]:
    """Records with so many correct test images of 1,000; which they were is not known."""
    return [
        dataclasses.replace(ONE, variant=name, seed=seed, test_correct=n, test_accuracy=n / 1000)
        for name, each in correct.items()
        for seed, n in enumerate(each)
    ]


def packed(right: Any) -> str:
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def answered(**answers: Any) -> list[ledger.Record]:
    """Records of the plan `skip` that say which test images were right: variant -> bool `[seeds, 1000]`."""
    return [
        record("skip", name, seed, int(right.sum()), test_right=packed(right))
        for name, each in answers.items()
        for seed, right in enumerate(each)
    ]


# --- one variant -----------------------------------------------------------------------------------------


def test_mean_and_sample_standard_deviation() -> None:
    one, two = summarise(runs(b=[0.8, 0.82, 0.84], a=[0.5]), "validation_accuracy")
    assert (one.variant, one.seeds, two.variant) == ("b", (0, 1, 2), "a")
    assert one.mean == pytest.approx(0.82)
    assert one.std == pytest.approx(0.02)  # of the sample: sqrt((0.0004 + 0 + 0.0004) / 2)
    assert math.isnan(two.std)
    assert str(one) == "b: 82.00 ± 2.00 %, 3 seeds"
    assert str(two) == "a: 50.00 %, 1 seed"


# --- over seeds ------------------------------------------------------------------------------------------


def test_a_difference_over_seeds_by_hand() -> None:
    found = compare(runs(a=[0.80, 0.83, 0.86], b=[0.79, 0.80, 0.84]), "a", "b", "validation_accuracy")
    # Pooled: (0.0018 + 0.0014) / (2 + 2) = 0.0008; of the difference of two means of three, two thirds of it.
    half = T_OF_4 * math.sqrt(0.0008 * 2 / 3)
    assert found.difference == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-7)
    assert found.variances == pytest.approx((0.0008, 0.0008))
    assert (found.seeds, found.freedom, found.verdict) == ((3, 3), 4, "not separated")
    assert str(found) == (
        "a and b are not separated: validation accuracy differs by +2.00 points (95 % interval -4.41 to +8.41"
        " over seeds, 3 and 3 seeds; a difference of 8.69 points would have been found with a power of 80 %)"
    )


def test_a_difference_that_the_seeds_agree_on() -> None:
    found = compare(runs(a=[0.80, 0.83, 0.86], b=[0.60, 0.63, 0.661]), "b", "a", "validation_accuracy")
    assert found.separated
    assert str(found).startswith("b has a validation accuracy 19.97 points lower than a (95 % interval -26")


def test_all_variants_of_a_plan_tell_how_far_runs_lie_apart() -> None:
    """A base that happens to be steady is judged by the spread of all."""
    family = compare_with(
        runs(base=[0.738, 0.743, 0.739], a=[0.72, 0.74, 0.73], b=[0.75, 0.77, 0.74]),
        "base",
        "validation_accuracy",
    )
    # Squares about the means, in points: 0.14, 2, 4.6667; over 2 + 2 + 2 degrees of freedom.
    assert family.pooled.variance == pytest.approx(1e-4 * (0.14 + 2 + 4 + 2 / 3) / 6)
    assert family.pooled.freedom == 6
    half = intervals.dunnett_critical((0.5, 0.5), 6) * math.sqrt(family.pooled.variance * 2 / 3)
    assert [(each.variant, each.high - each.low) for each in family] == [
        ("a", pytest.approx(2 * half)),
        ("b", pytest.approx(2 * half)),
    ]
    assert "1.07 points, pooled over 3 variants (6 degrees of freedom" in family.method
    assert "Dunnett" in family.method


def test_variances_that_differ_are_not_pooled() -> None:
    wild = [0.508, 0.588, 0.439, 0.61, 0.40]
    steady = [0.738, 0.743, 0.739, 0.741, 0.742]
    family = compare_with(runs(base=steady, a=wild, b=steady), "base", "validation_accuracy")
    assert "Welch" in family.method
    assert "Holm" in family.method
    a, b = family
    assert a.separated  # the smallest p, at 5 % / 2
    theirs = stats.ttest_ind(wild, steady, equal_var=False).confidence_interval(0.975)
    assert (a.low, a.high) == pytest.approx((theirs.low, theirs.high))
    theirs = stats.ttest_ind(steady, steady, equal_var=False).confidence_interval(0.95)
    assert (b.low, b.high) == pytest.approx((theirs.low, theirs.high))


def test_without_a_base_all_pairs_are_compared_at_the_levels_of_holm() -> None:
    family = compare_pairs(
        runs(a=[0.1, 0.2, 0.3], b=[0.7, 0.8, 0.9], c=[0.72, 0.81, 0.9]), "validation_accuracy"
    )
    assert [(each.variant, each.base) for each in family] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert [each.separated for each in family] == [True, True, False]
    variance = (0.02 + 0.02 + 0.0162) / 6
    half = stats.t.ppf(1 - 0.05 / 6, 6) * math.sqrt(variance * 2 / 3)  # the smallest p of three
    assert family.comparisons[1].high - family.comparisons[1].low == pytest.approx(2 * half)


def test_the_whole_procedure_covers_all_differences_from_a_base() -> None:
    """With the test of the variances before it: 500 experiments, 3 binomial errors about 95 %."""
    accuracies = np.random.default_rng(0).normal(0.74, 0.01, (500, 3, 5))
    covered = [
        all(
            each.low <= 0 <= each.high
            for each in compare_with(runs(base=base, a=a, b=b), "base", "validation_accuracy")
        )
        for base, a, b in accuracies
    ]
    assert 0.92 < np.mean(covered) < 0.98


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.integers(0, 1000), min_size=2, max_size=5)] * 2)
def test_a_comparison_turned_round_is_the_same(a: list[int], b: list[int]) -> None:
    values = runs(a=[n / 1000 for n in a], b=[n / 1000 for n in b])
    one, turned = (
        compare(values, name, other, "validation_accuracy") for name, other in (("a", "b"), ("b", "a"))
    )
    assert turned.verdict == one.verdict
    assert (turned.low, turned.high) == pytest.approx((-one.high, -one.low), abs=1e-9)


# --- over seeds and images -------------------------------------------------------------------------------


def test_records_of_unknown_images_take_those_of_each_variant_as_its_own() -> None:
    found = compare(scored(none=[700, 710, 720], stage=[740, 750, 760]), "none", "stage")
    seeds = 0.0001 * 2 / 3
    images = (0.71 * 0.29 + 0.75 * 0.25) / 1000
    freedom = (seeds + images) ** 2 / (seeds**2 / 4 + images**2 / 999)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(seeds + images)
    assert found.over_seeds is not None
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx((-0.06267, -0.01733), abs=1e-5)
    assert (found.low, found.high) == pytest.approx((-0.04 - half, -0.04 + half))
    assert not found.paired
    assert found.verdict == "not separated", "the seeds alone would separate them"
    assert "over seeds and images, unpaired" in str(found)


@settings(max_examples=15, deadline=None)
@given(*[st.lists(st.integers(1, 999), min_size=2, max_size=5)] * 3)
def test_other_images_never_make_an_interval_narrower(a: list[int], b: list[int], c: list[int]) -> None:
    for each in compare_with(scored(stage=a, none=b, spike=c), "stage"):
        assert each.over_seeds is not None
        assert each.low <= each.over_seeds.low
        assert each.high >= each.over_seeds.high


def test_answers_to_the_same_images_are_paired() -> None:
    random = np.random.default_rng(0)
    hard = random.random(1000)
    base = hard + 0.1 * random.random((3, 1000)) < 0.8
    better = hard + 0.1 * random.random((3, 1000)) < 0.83
    found = compare(answered(none=better, stage=base), "none", "stage")
    unknown = compare(
        scored(none=better.sum(axis=1).tolist(), stage=base.sum(axis=1).tolist()), "none", "stage"
    )
    assert found.paired
    assert found.image_error == intervals.images_error(better, base)
    assert found.over_seeds == unknown.over_seeds
    assert found.high - found.low < unknown.high - unknown.low
    assert (found.verdict, unknown.verdict) == ("separated", "not separated")
    assert "over seeds and images, 3 and 3 seeds" in str(found)


def test_one_older_record_among_others_is_enough_to_know_no_images() -> None:
    right = np.random.default_rng(0).random((3, 1000)) < 0.8
    mixed = answered(none=right, stage=right)
    mixed[0] = record("skip", "none", 0, mixed[0].test_correct)
    assert not compare(mixed, "none", "stage").paired


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.data())
def test_which_images_were_right_is_unpacked(total: int, data: st.DataObject) -> None:
    right = np.array(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    one = dataclasses.replace(ONE, test_correct=int(right.sum()), test_total=total, test_right=packed(right))
    found = right_images(one)
    assert found is not None
    assert np.array_equal(found, right)


@pytest.mark.parametrize(
    "wrong", ["AA==", "not base64!", packed(np.ones(1000, bool))], ids=["short", "text", "hits"]
)
def test_answers_that_do_not_fit_are_refused(wrong: str) -> None:
    one = record("skip", "stage", 0, 800, test_right=wrong, location="here.jsonl, line 3")
    with pytest.raises(InputError, match=r"here.jsonl, line 3: test_right does not name 800 of 1000"):
        compare_with([one], "stage")


# --- where nothing can be said ---------------------------------------------------------------------------


def test_one_seed_says_nothing() -> None:
    found = compare(scored(none=[500], stage=[400, 410, 420]), "none", "stage")
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.verdict == "cannot say: one seed of none"
    assert math.isnan(found.detectable)
    assert "cannot say whether none differs from stage" in str(found)


def test_three_runs_alone_give_no_verdict() -> None:
    """Their spread differs from the base's, so that nothing but the three tells of it."""
    found = compare(scored(none=[100, 160, 220], stage=[740, 741, 742]), "none", "stage")
    assert found.high < -0.3
    assert found.freedom == pytest.approx(2, abs=0.01)
    assert found.verdict == "cannot say: too few seeds"
    assert not found.separated


def test_two_seeds_of_two_variants_are_too_few() -> None:
    assert compare(scored(none=[100, 110], stage=[740, 750]), "none", "stage").doubt == "too few seeds"


def test_equal_values_in_all_runs_prove_nothing_of_an_accuracy() -> None:
    found = compare(scored(none=[700, 700, 700], stage=[750, 750, 750]), "none", "stage")
    assert found.verdict == "cannot say: equal values in all runs"


def test_records_of_different_images_are_not_compared() -> None:
    records = scored(none=[700, 705, 711], stage=[750, 755, 760])
    other = [record("skip", "none", seed, 700 + seed, dataset_sha256="1" * 64) for seed in range(3)]
    assert compare([*other, *records[3:]], "none", "stage").verdict == "cannot say: runs on different images"
    assert compare([other[0], *records[1:]], "none", "stage").doubt == "runs on different images"
    right = np.random.default_rng(0).random((3, 1000)) < 0.8
    one, two = answered(none=right), answered(stage=right)
    moved = [dataclasses.replace(each, dataset_sha256="1" * 64) for each in one]
    assert compare([*one, *two], "none", "stage").paired
    assert not compare([*moved, *two], "none", "stage").paired, "the images are others, even if as many"
    assert not compare(records, "none", "stage").doubt


def test_images_of_other_number_are_not_paired() -> None:
    right = np.random.default_rng(0).random((3, 1000)) < 0.8
    records = answered(none=right, stage=right)[:3]
    records += [
        record("skip", "stage", s, int(row[:500].sum()), test_total=500, test_right=packed(row[:500]))
        for s, row in enumerate(right)
    ]
    found = compare(records, "none", "stage")
    assert not found.paired
    assert found.image_error is not None
    assert found.image_error.freedom == 499


# --- other measures --------------------------------------------------------------------------------------


def test_counts_and_energies_have_their_own_words() -> None:
    both = [record("skip", "none", s, 0, parameters=78_000, energy_joules=3e-7 + s * 1e-9) for s in range(3)]
    both += [record("skip", "stage", s, 0, parameters=80_688, energy_joules=3e-7) for s in range(3)]
    found = compare(both, "none", "stage", "parameters")
    assert found.separated, "what chance does not decide needs no spread"
    assert (
        str(found) == "none has a number of parameters 2,688 lower than stage (in every run, 3 and 3 seeds)"
    )
    found = compare(both, "none", "stage", "energy_joules")
    assert found.over_images is None
    assert str(found).startswith("cannot say whether none differs from stage (")


def test_equal_counts_are_not_separated() -> None:
    both = [record("skip", name, s, 0) for name in ("none", "stage") for s in range(3)]
    assert compare(both, "none", "stage", "parameters").verdict == "not separated"


def test_a_network_without_spikes_has_no_rate_to_compare() -> None:
    both = [record("baselines", name, s, 0) for name in ("spiking", "relu") for s in range(3)]
    without = [
        dataclasses.replace(each, firing_rates={}) if each.variant == "relu" else each for each in both
    ]
    with pytest.raises(InputError, match="relu has no mean_firing_rate"):
        compare(without, "relu", "spiking", "mean_firing_rate")


def test_what_cannot_be_compared() -> None:
    values = runs(stage=[0.5])
    with pytest.raises(InputError, match=r"no record of a variant 'stag'; did you mean 'stage'"):
        compare(values, "stag", "stage")
    with pytest.raises(InputError, match=r"no record of a variant 'stag'; did you mean 'stage'"):
        compare_with(values, "stag")
    with pytest.raises(InputError, match="stage cannot be compared with itself"):
        compare(values, "stage", "stage", "validation_accuracy")
    with pytest.raises(InputError, match="no number 'accuracy'"):
        summarise(values, "accuracy")


# --- power -----------------------------------------------------------------------------------------------


def test_more_seeds_show_smaller_differences_until_the_images_are_the_limit() -> None:
    family = compare_with(scored(stage=[740, 750, 760], none=[740, 751, 760]), "stage")
    (one,) = family
    of_seeds = [family.detectable(one, n, images=False) for n in (3, 12, 10_000)]
    of_both = [family.detectable(one, n) for n in (3, 12, 10_000)]
    deviation = math.sqrt(family.pooled.variance)
    t = stats.t.ppf(0.975, 22)
    power = stats.nct.sf(t, 22, of_seeds[1] / (deviation * math.sqrt(2 / 12)))
    assert power == pytest.approx(0.8, abs=1e-3)
    assert of_seeds[2] == pytest.approx(2.8016 * deviation * math.sqrt(2 / 10_000), rel=1e-3)
    limit = math.sqrt(2 * 0.75 * 0.25 / 1000)
    assert of_both[2] == pytest.approx(2.8016 * limit, rel=0.01)
    assert of_both[0] > of_both[1] > of_both[2]
    assert of_both[0] == pytest.approx(one.detectable)


def test_one_seed_more_is_no_experiment() -> None:
    family = compare_with(scored(stage=[740, 750, 760], none=[740, 751, 760]), "stage")
    with pytest.raises(InputError, match="1 seed has no spread"):
        family.detectable(family.comparisons[0], 1)
