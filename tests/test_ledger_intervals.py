"""Errors, critical values and power, against hand-computed values, printed tables, SciPy and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from snnmlp_edu.ledger import intervals
from snnmlp_edu.ledger.intervals import Error

DRAWS = 2000


# --- variances -------------------------------------------------------------------------------------------


def test_variances_are_pooled_by_their_degrees_of_freedom() -> None:
    found = intervals.pool([[80, 83, 86], [79, 80], [50]])
    # Squares about the means: 9 + 0 + 9, and 0.25 + 0.25; 2 + 1 degrees of freedom; one value has none.
    assert (found.variance, found.freedom) == (pytest.approx(18.5 / 3), 3)
    assert found.equal


def test_variances_are_compared_by_the_test_of_bartlett() -> None:
    steady, wild = [74.0, 74.3, 73.8], [50.8, 58.8, 43.9]
    # By hand: (4 ln s² - 2 (ln s1² + ln s2²)) / C, with C = 1 + (1/2 + 1/2 - 1/4) / 3.
    one, two = np.var(steady, ddof=1), np.var(wild, ddof=1)
    statistic = (4 * math.log((one + two) / 2) - 2 * (math.log(one) + math.log(two))) / 1.25
    found = intervals.pool([steady, wild])
    assert found.p_equal == pytest.approx(stats.chi2.sf(statistic, 1))
    assert not found.equal
    several = [[1.0, 2.0, 3.5], [2.0, 2.7, 3.0, 8.0], [4.0, 4.4]]
    assert intervals.pool(several).p_equal == pytest.approx(stats.bartlett(*several).pvalue)


@pytest.mark.parametrize(
    ("groups", "variance", "equal"),
    [
        ([[1.0, 1.0], [2.0, 2.0]], 0, True),
        ([[1.0, 1.0], [2.0, 4.0]], 1, False),
        ([[1.0, 3.0], [2.0]], 2, True),
    ],
    ids=["all equal", "one without spread", "one group"],
)
def test_groups_without_spread(groups: list[list[float]], variance: float, equal: bool) -> None:
    found = intervals.pool(groups)
    assert (found.variance, found.equal) == (variance, equal)


def test_single_runs_have_no_variance() -> None:
    found = intervals.pool([[1.0], [2.0]])
    assert math.isnan(found.variance)
    assert (found.freedom, found.equal) == (0, True)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.integers(0, 1000), min_size=3, max_size=6)] * 2)
def test_the_error_over_seeds_is_that_of_scipys_t_tests(one: list[int], two: list[int]) -> None:
    if min(np.var(one), np.var(two)) == 0:
        return
    variances, runs = (np.var(one, ddof=1), np.var(two, ddof=1)), (len(one), len(two))
    for pooled in (intervals.pool([one, two]), None):
        found = intervals.seeds_error(variances, runs, pooled)
        theirs = stats.ttest_ind(one, two, equal_var=pooled is not None)
        assert found.freedom == pytest.approx(theirs.df)
        interval = theirs.confidence_interval(0.95)
        reach = intervals.student_critical(1, found.freedom) * found.deviation
        assert reach == pytest.approx((interval.high - interval.low) / 2)


# --- critical values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparisons", "freedom", "printed"),
    [(1, 5, 2.57), (2, 5, 3.03), (2, 10, 2.57), (3, 20, 2.54), (4, 10, 2.89), (2, 120, 2.24), (9, 10, 3.24)],
)
def test_the_critical_values_of_dunnett_are_those_of_his_table(
    comparisons: int, freedom: int, printed: float
) -> None:
    assert intervals.dunnett_critical((0.5,) * comparisons, freedom) == pytest.approx(printed, abs=0.0051)


def test_unequal_numbers_of_runs_give_scipys_p() -> None:
    random = np.random.default_rng(0)
    samples, base = [random.standard_normal(n) for n in (3, 5, 4)], random.standard_normal(6)
    pooled = intervals.pool([*samples, base])
    critical = intervals.dunnett_critical(tuple(len(s) / (len(s) + 6) for s in samples), pooled.freedom)
    # Shift the first sample to where its statistic is the critical value: p must be 5 %.
    error = intervals.seeds_error((0, 0), (3, 6), pooled)
    samples[0] += base.mean() + critical * error.deviation - samples[0].mean()
    found = stats.dunnett(*samples, control=base, random_state=np.random.default_rng(1))
    assert found.pvalue[0] == pytest.approx(0.05, abs=5e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.floats(2, 200), st.floats(0.2, 0.8))
def test_dunnett_lies_between_one_comparison_and_bonferroni(many: int, freedom: float, share: float) -> None:
    found = intervals.dunnett_critical((share,) * many, freedom)
    assert intervals.student_critical(1, freedom) < found < intervals.student_critical(many, freedom)


def test_holm_judges_the_smallest_p_by_all_and_the_next_by_the_rest() -> None:
    error = Error(1.0, 1e9)  # a normal distribution
    # p: 0.0027, 0.020, 0.046: levels of 5/3, 5/2 and 5 % reject all; of 0.036, 0.046, 0.057 they reject none.
    normal = [stats.norm.isf(0.05 / 2 / left) for left in (3, 2, 1)]
    found = intervals.holm_criticals([2.0, 3.0, 2.33], [error] * 3)
    assert found == pytest.approx([normal[2], normal[0], normal[1]], abs=1e-6)
    stopped = intervals.holm_criticals([2.0, 1.9, 2.1], [error] * 3)
    assert stopped == pytest.approx([normal[0]] * 3, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(2, 50)), min_size=1, max_size=6))
def test_the_intervals_of_holm_leave_out_zero_where_holm_rejects(pairs: list[tuple[float, float]]) -> None:
    differences = [difference for difference, _ in pairs]
    errors = [Error(1.0, freedom) for _, freedom in pairs]
    p = [2 * stats.t.sf(abs(d), e.freedom) for d, e in zip(differences, errors, strict=True)]
    rejected = set()
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] >= 0.05 / (len(p) - rank):
            break
        rejected.add(int(index))
    criticals = intervals.holm_criticals(differences, errors)
    outside = {i for i, d in enumerate(differences) if abs(d) > criticals[i]}
    assert outside == rejected


def test_a_difference_without_error_is_rejected_if_it_is_one() -> None:
    none = Error(0.0, math.inf)
    assert intervals.holm_criticals([0.0, 1.0], [none, none]) == pytest.approx([1.96, 2.2414], abs=1e-4)


# --- the part of the images ------------------------------------------------------------------------------


def test_the_error_of_the_images_by_hand() -> None:
    one = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
    other = np.array([[0, 1, 0, 0], [0, 1, 0, 0]], bool)
    # Means over the seeds: 1, 1/2, 0, 1 less 0, 1, 0, 0 = 1, -1/2, 0, 1; mean 3/8, sum of squares 2.25,
    # variance (2.25 - 4 * 9/64) / 3 = 0.5625. `one` has cells that its rows and columns do not explain:
    # rows 3/4, 1/2; columns 1, 1/2, 0, 1; mean 5/8. Residuals -1/8, 3/8, -1/8, -1/8 and their negatives,
    # 24/64 over 3 degrees of freedom: 1/8, over two seeds 1/16. `other` has none.
    found = intervals.images_error(one, other)
    assert found.variance == pytest.approx((0.5625 - 0.0625) / 4)
    assert found.freedom == 3


def test_the_same_answers_leave_nothing_to_the_images() -> None:
    answers = np.random.default_rng(0).random((3, 200)) < 0.7
    assert intervals.images_error(answers, answers).variance == 0


def crossed(random: np.random.Generator, seeds: int, images: int, of_seed: float) -> list[NDArray[np.bool_]]:
    """Answers of two variants: an image is hard for all, for one variant, for one seed, or by chance."""
    hard = random.standard_normal(images)
    return [
        0.9 + of_seed * random.standard_normal((seeds, 1)) + hard + 0.4 * random.standard_normal(images)
        > 0.6 * random.standard_normal((seeds, images))
        for _ in range(2)
    ]


def test_both_errors_together_are_the_variance_of_a_crossed_bootstrap() -> None:
    """With many seeds, where the bootstrap has next to no bias."""
    random = np.random.default_rng(0)
    one, other = crossed(random, 60, 300, of_seed=0.3)
    means = [answers.mean(axis=1) for answers in (one, other)]
    pooled = intervals.pool([list(mean) for mean in means])
    found = intervals.seeds_error((0, 0), (60, 60), pooled) + intervals.images_error(one, other)
    weights = [random.multinomial(60, np.full(60, 1 / 60), DRAWS) / 60 for _ in range(2)]
    chosen = random.multinomial(300, np.full(300, 1 / 300), DRAWS) / 300
    differences = ((weights[0] @ one - weights[1] @ other) * chosen).sum(axis=1)
    assert found.deviation == pytest.approx(differences.std(ddof=1), rel=0.05)  # 3 errors of 2,000 draws


def test_images_of_which_nothing_is_known_weigh_more() -> None:
    random = np.random.default_rng(0)
    one, other = crossed(random, 5, 1000, of_seed=0.05)
    bound = intervals.unpaired_images_error(one.mean(), other.mean(), 1000)
    assert bound.variance > intervals.images_error(one, other).variance
    assert bound.variance == pytest.approx(
        (one.mean() * (1 - one.mean()) + other.mean() * (1 - other.mean())) / 1000
    )


# --- do the intervals cover? -----------------------------------------------------------------------------


def test_intervals_over_seeds_cover_all_differences_from_a_base() -> None:
    """Four variants against one base, five seeds each: all four at once, in 95 % of the experiments."""
    runs = np.random.default_rng(0).normal(74, 1.1, (DRAWS, 5, 5))
    differences = runs[:, 1:].mean(axis=2) - runs[:, :1].mean(axis=2)
    critical = intervals.dunnett_critical((0.5,) * 4, 20)
    covered = []
    for experiment, found in zip(runs, differences, strict=True):
        variance = experiment.var(axis=1, ddof=1).mean()  # of equally many runs, what `pool` gives
        error = intervals.seeds_error((0, 0), (5, 5), intervals.Pooled(float(variance), 20, math.nan))
        covered.append((abs(found) <= critical * error.deviation).all())
    assert 0.93 < np.mean(covered) < 0.97


@pytest.mark.parametrize(("seeds", "of_seed"), [(5, 0.05), (8, 0.02)], ids=["seeds matter", "images matter"])
def test_intervals_over_seeds_and_images_cover_the_difference(seeds: int, of_seed: float) -> None:
    """Two variants that are equally good on all images that there might be, tested on 500 of them."""
    random = np.random.default_rng(0)
    covered, seeds_alone = [], []
    for _ in range(DRAWS):
        one, other = crossed(random, seeds, 500, of_seed)
        means = one.mean(axis=1), other.mean(axis=1)
        variance = (means[0].var(ddof=1) + means[1].var(ddof=1)) / 2
        pooled = intervals.Pooled(float(variance), 2 * (seeds - 1), math.nan)
        gap = abs(means[0].mean() - means[1].mean())
        over_seeds = intervals.seeds_error((0, 0), (seeds, seeds), pooled)
        error = over_seeds + intervals.images_error(one, other)
        reach, wider = (
            intervals.student_critical(1, each.freedom) * each.deviation for each in (over_seeds, error)
        )
        covered.append(gap <= max(reach, wider))
        seeds_alone.append(gap <= reach)
    assert 0.93 < np.mean(covered) < 0.97
    assert np.mean(seeds_alone) < 0.93, "seeds alone do not cover other images"


# --- power -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [2.0, 4.0, 10.0, 38.0])
def test_the_detectable_difference_is_that_of_the_noncentral_t(freedom: float) -> None:
    critical = intervals.student_critical(1, freedom)

    def lacking(noncentrality: float) -> float:
        return float(
            stats.nct.sf(critical, freedom, noncentrality)
            + stats.nct.cdf(-critical, freedom, noncentrality)
            - 0.8
        )

    expected = 3 * optimize.brentq(lacking, 0.1, 7)
    assert intervals.detectable(Error(9.0, freedom), critical) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("seeds", "points"), [(76, 0.5), (20, 1.0), (11, 1.4), (6, 2.0)])
def test_seeds_that_a_difference_needs_at_a_deviation_of_109(seeds: int, points: float) -> None:
    """Values from a table of sample sizes of the two-sample t test, 5 % and 80 %."""

    def found(n: int) -> float:
        freedom = 2 * (n - 1)
        return intervals.detectable(Error(1.09**2 * 2 / n, freedom), intervals.student_critical(1, freedom))

    assert found(seeds) <= points < found(seeds - 1)


def test_the_power_is_what_a_simulation_finds() -> None:
    random = np.random.default_rng(0)
    critical = intervals.student_critical(1, 8)
    shift = intervals.detectable(Error(2 / 5, 8), critical)
    one, other = random.standard_normal((2, DRAWS, 5))
    one += shift
    t = stats.ttest_ind(one, other, axis=1).statistic
    assert np.mean(abs(t) > critical) == pytest.approx(0.8, abs=0.036)  # 4 binomial errors


def test_no_error_hides_nothing() -> None:
    assert intervals.detectable(Error(0.0, math.inf), 2.0) == 0
