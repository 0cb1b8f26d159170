"""The explorer of chapter 11 in a real browser: its function, its share and its verdict are the library's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_interactive import SET_AND_READ, pages, phone, says, show  # noqa: F401  (three of them are fixtures)
from torch import Tensor

from book.interactive.gabor_explorer import FIELDS, SIDE, SLIDERS, measured, within
from snnmlp_edu.receptive_fields import GaborFits, fit_gabors, gabor, judge

PIXELS = (
    """k => Array.from(Bokeh.documents[0].get_model_by_name('gabor_explorer').args.drawn[k].data.image[0])"""
)
TITLES = {name: row[0] for name, row in SLIDERS.items()}
START = {name: row[4] for name, row in SLIDERS.items()}
TRIED: list[dict[str, float]] = [
    {},
    {"orientation": 30, "frequency": 0.2, "phase": -60, "x": 7.2, "y": 5.3},
    {"orientation": 145, "frequency": 0, "sigma_x": 1.2, "sigma_y": 3.4},
    {"frequency": 0.6, "sigma_x": 0.3, "sigma_y": 0.3, "phase": 180},
    {"x": -2, "y": 13, "sigma_x": 8, "sigma_y": 8, "phase": 77},
]


def show_at(page: Any, name: str, at: dict[str, float]) -> tuple[dict[str, list[Any]], list[Tensor]]:
    """What the page computes with the sliders at some values, and its three pictures."""
    settings = {TITLES[each]: value for each, value in at.items()}
    numbers = page.evaluate(SET_AND_READ, [{"field": name} | settings, "result"])
    pictures = [torch.tensor(page.evaluate(PIXELS, k)).double().view(SIDE, SIDE).flip(0) for k in range(3)]
    return numbers, pictures


def as_fit(at: dict[str, float], numbers: dict[str, list[Any]]) -> GaborFits:
    """The function on the page, as the library's fits hold theirs."""
    own = {name: torch.tensor([value / SLIDERS[name][5]]).double() for name, value in at.items()}
    rest = {name: torch.tensor(numbers[name]).double() for name in ("amplitude", "offset", "unexplained")}
    return GaborFits(**own, **rest, shape=(SIDE, SIDE))


@pytest.mark.parametrize("name", FIELDS)
def test_function_share_and_verdict_are_those_of_the_library(name: str, show: Any) -> None:  # noqa: F811
    page = show("gabor_explorer", kept=True)
    field = measured()[name][0]
    for change in TRIED:
        at = START | change
        numbers, pictures = show_at(page, name, at)
        fit = as_fit(at, numbers)
        function = fit.predicted()[0]
        for picture, expected in zip(pictures, (field, function, field - function), strict=True):
            torch.testing.assert_close(
                picture, expected, rtol=0, atol=1e-6
            )  # pictures are in single precision
        share = (field - function).square().sum() / (field - field.mean()).square().sum()
        assert numbers["unexplained"][0] == pytest.approx(share.item())
        one = torch.ones(1).double()
        bare = {key: getattr(fit, key) for key in SLIDERS}
        wave = gabor(**bare, amplitude=one, offset=0 * one, shape=(SIDE, SIDE)).flatten()
        basis = torch.stack([wave, torch.ones_like(wave)], dim=1)
        amplitude, offset = (
            torch.linalg.lstsq(basis, field.flatten().unsqueeze(1)).solution.flatten().tolist()
        )
        if amplitude > 0:
            assert (numbers["amplitude"][0], numbers["offset"][0]) == pytest.approx((amplitude, offset))
        else:
            assert (numbers["amplitude"][0], share.item()) == pytest.approx((0, 1)), (
                "the opposite phase is not tried"
            )
        assert numbers["reason"] == judge(fit)
        assert says(page, numbers["reason"][0])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gabor", "well fitted"),
        ("narrow", "resolution"),
        ("blob", "blob"),
        ("noise", "unexplained"),
    ],
)
def test_button_goes_to_the_fit_of_the_library(name: str, reason: str, show: Any) -> None:  # noqa: F811
    page = show("gabor_explorer", kept=True)
    field, best, unexplained = measured()[name]
    assert within(best)
    fits = fit_gabors(field.unsqueeze(0))
    assert fits.unexplained.item() == pytest.approx(unexplained)
    show_at(page, name, START)
    page.get_by_role("button", name="Best fit").press("Enter")
    assert says(page, f"leaves {unexplained:.2f} unexplained")
    numbers = page.evaluate(SET_AND_READ, [{}, "result"])
    assert numbers["unexplained"][0] == pytest.approx(unexplained, abs=1e-5)
    assert numbers["amplitude"][0] == pytest.approx(fits.amplitude.item(), rel=1e-3)
    assert numbers["reason"] == judge(fits) == [reason]


def test_a_blob_is_fitted_by_low_frequencies_and_a_wave_by_one(show: Any) -> None:  # noqa: F811
    page = show("gabor_explorer", kept=True)
    lowest = {}
    for name in ("gabor", "blob"):
        show_at(page, name, measured()[name][1])
        curve = page.evaluate(SET_AND_READ, [{}, "curve"])
        assert curve["frequency"][0] == 0
        at = curve["unexplained"].index(min(curve["unexplained"]))
        lowest[name] = (curve["frequency"][at], curve["unexplained"][0])
    assert lowest["blob"][0] < 0.1 < lowest["gabor"][0]
    assert lowest["blob"][1] < 0.3 < lowest["gabor"][1], (
        "without a wave a blob is fitted, and stripes are not"
    )


def test_sliders_answer_the_keyboard_and_are_named(show: Any) -> None:  # noqa: F811
    page = show("gabor_explorer")
    assert says(page, "Your function explains")
    handle = page.get_by_role("slider", name=TITLES["frequency"])
    handle.focus()
    page.keyboard.press("End")
    assert handle.get_attribute("aria-valuetext") == "0.75"
    for title in TITLES.values():
        assert page.get_by_role("slider", name=title).count() == 1
    page.get_by_label("field", exact=True).select_option(FIELDS["blob"])
    assert says(page, "rejected: unexplained")
