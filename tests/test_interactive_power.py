"""The explorer of chapter 15 in a real browser: its intervals and chances are those of the ledger."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from test_interactive import SET_AND_READ, pages, phone, says, show  # noqa: F401  (three of them are fixtures)

from book.interactive.power_explorer import EXPERIMENTS, FOUND, LOST, MANY, MOST, WRONG
from snnmlp_edu.ledger import intervals
from snnmlp_edu.ledger.intervals import Error, Pooled
from snnmlp_edu.ledger.statistics import FREEDOM

SETTINGS = [
    {},
    {"seeds": 10, "difference": 5.6},
    {"seeds": 5, "images": 10_000, "difference": 2.7},
    {"seeds": 30, "spread": 0.1, "images": 50_000, "accuracy": 98, "difference": 0.3},
    {"seeds": 4, "spread": 3.0, "images": 2000, "accuracy": 50, "difference": 0.0},
    {"seeds": 2, "difference": 10.0},
]
START: dict[str, Any] = {"seeds": 3, "spread": 1.0, "images": 1000, "difference": 2.0, "accuracy": 75}


def errors(variance: float, seeds: int, at: dict[str, Any]) -> list[Error]:
    """Over seeds, and over seeds and images, in points, as the ledger makes them."""
    pooled = Pooled(variance, 2 * (seeds - 1), math.nan)
    alone = intervals.seeds_error((variance, variance), (seeds, seeds), pooled)
    right = at["accuracy"] / 100
    images = intervals.unpaired_images_error(right, right, at["images"])
    return [alone, alone + Error(1e4 * images.variance, images.freedom)]


def half(found: list[Error]) -> float:
    """How far the wider interval reaches."""
    return max(intervals.student_critical(1, error.freedom) * error.deviation for error in found)


def chances(at: dict[str, Any], seeds: int) -> list[float]:
    """How often each interval leaves out zero: the mean over what the estimated deviation may be."""
    found = []
    for error in errors(at["spread"] ** 2, seeds, at):
        critical, shift = intervals.student_critical(1, error.freedom), at["difference"] / error.deviation
        reach = critical * np.sqrt(
            stats.chi2.ppf(np.arange(0.5, 20_000) / 20_000, error.freedom) / error.freedom
        )
        found.append(float((special.ndtr(shift - reach) + special.ndtr(-shift - reach)).mean()))
    return found


def show_at(page: Any, at: dict[str, Any], wanted: str) -> dict[str, list[Any]]:
    """A named source with the controls at some values."""
    settings = {name: value for name, value in at.items() if name != "images"}
    shown: dict[str, list[Any]] = page.evaluate(
        SET_AND_READ, [settings | {"test images": str(at["images"])}, wanted]
    )
    return shown


@pytest.mark.parametrize("change", SETTINGS)
def test_interval_and_chance_are_those_of_the_ledger(change: dict[str, Any], show: Any) -> None:  # noqa: F811
    page = show("power_explorer", kept=True)
    at = START | change
    shown = show_at(page, at, "result")
    found = errors(at["spread"] ** 2, at["seeds"], at)
    assert shown["interval"][0] == pytest.approx(half(found), rel=1e-5)
    detectable = max(intervals.detectable(e, intervals.student_critical(1, e.freedom)) for e in found)
    assert shown["detectable"][0] == pytest.approx(detectable, rel=1e-4)
    curve = page.evaluate(SET_AND_READ, [{}, "curve"])
    assert curve["seeds"] == list(range(2, MOST + 1))
    assert (curve["alone"][0], curve["both"][0]) == (0, 0), "no verdict from two runs of each"
    for seeds in (3, 4, 10, MOST):
        alone, both = chances(at, seeds)
        assert curve["alone"][seeds - 2] == pytest.approx(alone, abs=1e-4)
        assert curve["both"][seeds - 2] == pytest.approx(min(alone, both), abs=1e-4)
    assert shown["many"][0] == pytest.approx(min(chances(at, MANY)), abs=1e-4)
    verdict = 2 * (at["seeds"] - 1) >= FREEDOM
    assert shown["both"][0] == (curve["both"][at["seeds"] - 2] if verdict else 0)
    assert says(page, f"± {half(found):.1f} points")
    assert says(page, f"{detectable:.1f} points would be found" if verdict else "no verdict")


@pytest.mark.parametrize("change", SETTINGS)
def test_experiments_are_judged_as_the_ledger_judges(change: dict[str, Any], show: Any) -> None:  # noqa: F811
    page = show("power_explorer", kept=True)
    at = START | change
    shown = show_at(page, at, "experiments")
    assert len(shown["one"]) == EXPERIMENTS
    rows = zip(*(shown[name] for name in ("one", "other", "difference", "low", "high", "color")), strict=True)
    for one, other, difference, low, high, color in rows:
        assert len(one) == len(other) == at["seeds"]
        assert difference == pytest.approx(statistics.fmean(one) - statistics.fmean(other))
        pooled = intervals.pool([one, other])
        reach = half(errors(pooled.variance, at["seeds"], at))
        assert (low, high) == pytest.approx((difference - reach, difference + reach), rel=1e-5, abs=1e-5)
        separated = pooled.freedom >= FREEDOM and (low > 0 or high < 0)
        wrong = separated and difference * at["difference"] < 0
        assert color == (WRONG if wrong else FOUND if separated else LOST)
    assert says(page, f"Of the {EXPERIMENTS} below, {EXPERIMENTS - shown['color'].count(LOST)} ")


def test_drawn_experiments_spread_as_they_should(show: Any) -> None:  # noqa: F811
    page = show("power_explorer", kept=True)
    at = START | {"seeds": MOST, "spread": 2.0, "difference": 3.0}
    within, between = [], []
    for _ in range(5):
        shown = show_at(page, at, "experiments")
        within += [statistics.stdev(runs) for runs in (*shown["one"], *shown["other"])]
        between += shown["difference"]
        before = shown["difference"]
        page.get_by_role("button", name=f"{EXPERIMENTS} other experiments").press("Enter")
        assert show_at(page, at, "experiments")["difference"] != before
    assert statistics.fmean(within) == pytest.approx(2.0, rel=0.05)
    _, both = errors(4.0, MOST, at)
    assert statistics.fmean(between) == pytest.approx(3.0, abs=4 * both.deviation / 10)
    assert statistics.stdev(between) == pytest.approx(both.deviation, rel=0.3)


def test_chapters_answer_is_there_by_the_keyboard(show: Any) -> None:  # noqa: F811
    page = show("power_explorer")
    assert says(page, "3 seeds of each, 1,000 test images")
    page.get_by_role("slider", name="seeds of each variant").focus()
    page.keyboard.press("End")
    curve = page.evaluate(SET_AND_READ, [{}, "curve"])
    assert max(curve["both"]) < 0.3, "no number of seeds shows two points on 1,000 images"
    assert curve["alone"][4] > 0.8, "where the images are the same, six seeds do"
    page.get_by_label("test images", exact=True).select_option("10,000")
    assert says(page, "10,000 test images")
    assert max(page.evaluate(SET_AND_READ, [{}, "curve"])["both"]) > 0.8
