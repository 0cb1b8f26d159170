"""The explorer of chapter 17 in a real browser: its rates are those of the library's neuron."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_interactive import (  # noqa: F401  (three of them are fixtures)
    SET_AND_READ,
    assert_accessible,
    pages,
    phone,
    says,
    show,
)

from book.interactive.rate_explorer import CURRENTS
from snnmlp_edu import LIF, NeuronConfig
from snnmlp_edu.config import Reset

pytestmark = pytest.mark.usefixtures("step_by_step")  # no neuron runs often enough to be compiled

SETTINGS: list[tuple[int, float, Reset]] = [
    (4, 1.0, "soft"),
    (16, 1.0, "soft"),
    (1, 0.25, "soft"),
    (7, 0.375, "soft"),
    (64, 2.0, "soft"),
    (2, 1.0, "hard"),
    (4, 1.0, "hard"),
    (63, 1.625, "hard"),
]


def show_at(page: Any, steps: int, threshold: float, reset: Reset, wanted: str) -> dict[str, list[Any]]:
    """A named source with the controls at some values."""
    settings = {"steps": steps, "threshold": threshold, "reset": reset}
    shown: dict[str, list[Any]] = page.evaluate(SET_AND_READ, [settings, wanted])
    return shown


@pytest.mark.parametrize(("steps", "threshold", "reset"), SETTINGS)
def test_rates_are_those_of_the_library(steps: int, threshold: float, reset: Reset, show: Any) -> None:  # noqa: F811
    page = show("rate_explorer", kept=True)
    shown = show_at(page, steps, threshold, reset, "rates")
    assert shown["current"] == CURRENTS
    currents = torch.tensor(CURRENTS, dtype=torch.float64)
    neuron = LIF(NeuronConfig(beta=1.0, input_gain=1.0, threshold=threshold, reset=reset))
    spikes = neuron(currents.expand(steps, -1)).sum(0)
    relu = (currents / threshold).clamp(0, 1)
    error = spikes / steps - relu
    assert shown["spikes"] == spikes.tolist()
    assert shown["rate"] == (spikes / steps).tolist()
    assert shown["relu"] == relu.tolist()
    assert shown["error"] == error.tolist()
    result = show_at(page, steps, threshold, reset, "result")
    largest = error.abs().max().item()
    assert result == {"largest": [largest], "current": [CURRENTS[error.abs().argmax()]], "bound": [1 / steps]}
    assert says(page, f"at most {largest:.3f} from the ReLU")
    assert says(page, f"1 / T is {1 / steps:.3g}. It can take {len(spikes.unique())} values.")
    if reset == "soft":
        assert max(shown["error"]) == 0, "the staircase never lies above the line"
        assert largest < 1 / steps
        assert says(page, "still in the neuron")


def test_chapters_numbers_are_there_at_the_start(show: Any) -> None:  # noqa: F811
    page = show("rate_explorer")
    assert says(page, "After 4 steps the rate is at most 0.246 from the ReLU")
    assert_accessible(page)


def test_waiting_helps_a_soft_reset_and_not_a_hard_one(show: Any) -> None:  # noqa: F811
    page = show("rate_explorer", kept=True)
    largest = {
        reset: [show_at(page, steps, 1.0, reset, "result")["largest"][0] for steps in (4, 16, 64)]
        for reset in ("soft", "hard")
    }
    # One 256th of a current below the next step of the staircase; below the threshold every other step fires.
    assert largest["soft"] == [1 / steps - 1 / 256 for steps in (4, 16, 64)]
    assert largest["hard"] == [0.5 - 1 / 256] * 3
    assert says(page, "A hard reset pours away")


def test_controls_answer_the_keyboard(show: Any) -> None:  # noqa: F811
    page = show("rate_explorer")
    page.get_by_role("slider", name="time steps T").focus()
    page.keyboard.press("End")
    assert says(page, "After 64 steps")
    page.keyboard.press("Home")
    assert says(page, "After one step")
    assert says(page, "It can take 2 values")
    page.get_by_label("reset", exact=True).select_option("hard: empties the neuron")
    assert says(page, "no worse than a soft one")
    page.get_by_role("slider", name="time steps T").press("ArrowRight")
    handle = page.get_by_role("slider", name="threshold")
    handle.press("Home")
    assert handle.get_attribute("aria-valuetext") == "0.25"
    assert says(page, "at the current 0.12; 1 / T is 0.5")
    page.get_by_role("slider", name="time steps T").press("End")
    assert says(page, "A hard reset pours away")
