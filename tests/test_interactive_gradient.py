"""The explorer of chapter 02 in a real browser: its gradients are those of autograd through `lif_step`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_interactive import SET_AND_READ, pages, phone, says, show  # noqa: F401

from book.interactive.gradient_explorer import CURRENTS, GAIN, THRESHOLD
from snnmlp_edu import NeuronConfig, lif_step, lif_trace, surrogate_derivative
from snnmlp_edu.model.surrogates import SURROGATES

DEFAULT = {
    "surrogate": "sigmoid",
    "slope k": 4,
    "leak β": 0.8,
    "reset": "hard",
    "currents times": 1,
    "loss": "last",
}


def by_autograd(config: NeuronConfig, strength: float, loss: str) -> dict[str, list[float]]:
    """Membranes, spikes, slopes and gradients, step by step through the library in double precision."""
    currents = torch.tensor([strength * each for each in CURRENTS], dtype=torch.float64, requires_grad=True)
    state, before, after, spikes = None, lif_trace(currents, config).membrane.detach(), [], []
    for current in currents:
        spike, state = lif_step(current, state, config)
        after.append(state.membrane.item())
        spikes.append(spike)
    (torch.stack(spikes).sum() if loss == "all" else spikes[-1]).backward()
    assert currents.grad is not None
    return {
        "before": before.tolist(),
        "after": after,
        "spikes": [each.item() for each in spikes],
        "slope": surrogate_derivative(before - config.threshold, config.surrogate, config.slope).tolist(),
        "gradient": currents.grad.tolist(),
    }


SETTINGS: list[tuple[dict[str, Any], float, str]] = [
    ({}, 1.0, "last"),
    ({"reset": "soft"}, 1.0, "last"),
    ({"reset": "soft", "beta": 0.35}, 1.6, "all"),
    ({"beta": 1.0, "slope": 0.75}, 0.45, "all"),
    ({"beta": 0.0, "slope": 12.5}, 1.9, "all"),
    ({"slope": 25.0}, 0.3, "last"),
]


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradients_are_those_of_autograd(surrogate: str, show: Any) -> None:  # noqa: F811
    page = show("gradient_explorer", kept=True)
    page.evaluate(SET_AND_READ, [{"surrogate": surrogate}, "steps"])  # which sets k to its default
    for fields, strength, loss in SETTINGS:
        named: dict[str, Any] = {"surrogate": surrogate, "beta": 0.8, "slope": 4.0, "reset": "hard"} | fields
        config = NeuronConfig(threshold=THRESHOLD, input_gain=GAIN, **named)
        settings = {
            "slope k": named["slope"],
            "leak β": named["beta"],
            "reset": named["reset"],
            "currents times": strength,
            "loss": loss,
        }
        shown = page.evaluate(SET_AND_READ, [settings, "steps"])
        expected = by_autograd(config, strength, loss)
        assert shown["spikes"] == expected["spikes"]
        assert shown["after"] == expected["after"]
        for name in ("before", "slope", "gradient"):
            torch.testing.assert_close(
                torch.tensor(shown[name], dtype=torch.float64),
                torch.tensor(expected[name], dtype=torch.float64),
                rtol=1e-12,
                atol=1e-14,
            )
        reached = sum(each > 0 for each in expected["gradient"])
        assert says(page, f"{reached} of 12 currents" if reached else "No current gets a gradient")


def test_walls_are_behind_the_spikes_of_a_hard_reset(show: Any) -> None:  # noqa: F811
    page = show("gradient_explorer", kept=True)
    shown = page.evaluate(SET_AND_READ, [DEFAULT, "steps"])
    walls = page.evaluate(SET_AND_READ, [{}, "walls"])["x"]
    fired = [step for step, spike in zip(shown["step"], shown["spikes"], strict=True) if spike and step < 12]
    assert fired
    assert walls == [step + 0.5 for step in fired]
    assert says(page, f"The spike at step {fired[-1]} is a wall")
    assert shown["gradient"][: fired[-1]] == [0] * fired[-1]
    assert page.evaluate(SET_AND_READ, [{"reset": "soft"}, "walls"])["x"] == []
    assert min(page.evaluate(SET_AND_READ, [{}, "steps"])["gradient"]) > 0


def test_a_surrogate_out_of_reach_is_named_dead_by_the_keyboard_alone(show: Any) -> None:  # noqa: F811
    page = show("gradient_explorer")
    assert says(page, "The default slope of sigmoid is 4.")
    page.get_by_label("surrogate", exact=True).select_option("triangle")
    handle = page.get_by_role("slider", name="slope k")
    handle.focus()
    page.keyboard.press("Home")
    assert handle.get_attribute("aria-valuetext") == "0.25"
    page.get_by_role("slider", name="currents times").focus()
    page.keyboard.press("Home")
    assert says(page, "No current gets a gradient")


def test_a_surrogate_begins_at_its_own_default(show: Any) -> None:  # noqa: F811
    page = show("gradient_explorer")
    handle = page.get_by_role("slider", name="slope k")
    for name, (_, default) in reversed(SURROGATES.items()):
        page.get_by_label("surrogate", exact=True).select_option(name)
        assert says(page, f"The default slope of {name} is {default:g}.")
        assert float(handle.get_attribute("aria-valuetext")) == default


SCALES = """() => {
  const plots = [...Bokeh.documents[0]._all_models.values()].filter(each => each.type === "Figure");
  return plots.map(each => [each.y_range.start, each.y_range.end]);
}"""


def test_scales_stay_whatever_the_surrogate(show: Any) -> None:  # noqa: F811
    page = show("gradient_explorer")
    scales = page.evaluate(SCALES)
    assert len(scales) == 3
    (low, high), (_, most), _ = scales
    for name in SURROGATES:
        for settings in ({}, {"currents times": 2, "leak β": 1}, {"currents times": 1, "leak β": 0.8}):
            shown = page.evaluate(SET_AND_READ, [{"surrogate": name} | settings, "steps"])
            assert page.evaluate(SCALES) == scales
            assert low <= min(shown["before"] + shown["after"]) <= max(shown["before"]) < high
            assert max(shown["slope"]) <= most
    page.evaluate(SET_AND_READ, [DEFAULT, "steps"])
    shown = page.evaluate(SET_AND_READ, [{"slope k": 25}, "steps"])
    assert page.evaluate(SCALES) == scales
    assert max(shown["slope"]) > most
    assert says(page, f"Too high for the scale: the slope goes up to {max(shown['slope']):.2g}")
