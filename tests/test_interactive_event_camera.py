"""The event camera in a real browser: its events are those of the chapter's own cells, number for number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from axe_playwright_python.base import AXE_SCRIPT
from test_interactive import CHAPTERS, SET_AND_READ, pages, phone, says, show  # noqa: F401  (fixtures)

from book.engine.convert import convert
from book.interactive.event_camera import HIGHEST, SHOWN, STEPS, WAYS
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.embedded import CLASS_NAMES

SIDE = 28
NEW: dict[str, Any] = {  # every control, as the page begins
    "picture": "Pullover",
    "light and dark": "as it is",
    "direction": "right",
    "speed": 1,
    "contrast": 0.3,
    "step": 1,
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"picture": "Ankle boot", "direction": "left", "speed": 2},
    {"picture": "Trouser", "direction": "up", "contrast": 0.05, "light and dark": "swapped"},
    {"picture": "Bag", "direction": "down", "speed": 7, "contrast": 1.35},
    {"picture": "Bars", "direction": "left", "speed": 3, "contrast": 2.35},
    {"picture": "Bars", "light and dark": "swapped", "contrast": 2.5},
]


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    """What the cells of chapter 16 define: the camera's rule, and the films of a drum."""
    notebook = convert(CHAPTERS / "16_event_data.md")
    names: dict[str, Any] = {"torch": torch, "load_embedded": load_embedded, "settings": {"garments": 1}}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(("def record_events", "WAYS =")):
            exec(cell.source, names)
    return names


def picture_of(name: str) -> torch.Tensor:
    if name == "Bars":
        return (torch.arange(SIDE) % 14 >= 7).expand(1, SIDE, SIDE).to(torch.uint8) * 255
    test = load_embedded("test")
    return test.images[test.labels == CLASS_NAMES.index(name)][0]


@pytest.mark.parametrize("changed", SETTINGS)
def test_events_are_those_of_the_chapter(changed: dict[str, Any], chapter: dict[str, Any], show: Any) -> None:  # noqa: F811
    settings = NEW | changed
    printed = picture_of(settings["picture"])
    if settings["light and dark"] == "swapped":
        printed = 255 - printed
    way = chapter["WAYS"][settings["direction"]]
    film = chapter["film"](printed, (0, 0), way, speed=settings["speed"], steps=STEPS)
    events = chapter["record_events"](film[:, None].double() / 255, contrast=settings["contrast"])[:, 0]
    page = show("event_camera", kept=True)
    counts = page.evaluate(SET_AND_READ, [settings, "counts"])
    assert [counts["on"], counts["off"]] == events.sum(dim=(2, 3)).T.tolist()
    assert counts["below"] == [-each for each in counts["off"]]
    assert max(counts["on"] + counts["off"]) <= HIGHEST
    assert says(page, f"In all steps: {int(events.sum())} event")
    for step in (1, 2, STEPS):
        shown = page.evaluate(SET_AND_READ, [{"step": step}, "pixels"])
        on, off = events[step - 1].flatten(1).tolist()
        assert (shown["on"], shown["off"]) == (on, off)
        assert shown["light"] == film[step].flatten().tolist()
        assert shown["view"] == [
            f"#{3 * f'{byte:02x}'}" for byte in shown["light"]
        ]  # a bright pixel looks bright
        black, orange, white = ("#000000", "#D55E00", "#FFFFFF")
        assert shown["color"] == [
            orange if one else black if two else white for one, two in zip(on, off, strict=True)
        ]
        assert says(page, f"Step {step} of {STEPS}: {sum(on):.0f} ON and {sum(off):.0f} OFF")


def test_names_are_those_of_the_chapter(chapter: dict[str, Any]) -> None:
    assert chapter["WAYS"] == WAYS
    assert set(SHOWN) <= set(CLASS_NAMES)


def test_what_does_not_change_sends_nothing(show: Any) -> None:  # noqa: F811
    page = show("event_camera", kept=True)
    silent: dict[str, dict[str, Any]] = {
        "The picture stands still": {"speed": 0},
        "No pixel's light has changed enough": {"picture": "Bars", "direction": "down", "contrast": 0.05},
    }
    for words, changed in silent.items():
        counts = page.evaluate(SET_AND_READ, [NEW | changed, "counts"])
        assert counts["on"] == counts["off"] == [0] * STEPS
        assert says(page, words)
        assert says(page, "In all steps: 0 events.")


def test_a_higher_threshold_sends_less(show: Any) -> None:  # noqa: F811
    page = show("event_camera", kept=True)
    sent = []
    for contrast in (0.05, 0.3, 1, 2, 2.5):
        counts = page.evaluate(SET_AND_READ, [NEW | {"contrast": contrast}, "counts"])
        sent.append(sum(counts["on"] + counts["off"]))
    assert sent == sorted(sent, reverse=True)
    assert sent[0] > sent[1] > sent[-1] == 0  # black and white differ by log 11, which is less than 2.5
    assert says(page, "light that is 1118 % brighter")


def test_the_camera_answers_keyboard_and_buttons(show: Any) -> None:  # noqa: F811
    page = show("event_camera")
    back, forth = page.get_by_role("button", name="Back"), page.get_by_role("button", name="Next")
    assert says(page, "Step 1 of 8")
    assert back.is_disabled()
    forth.press("Enter")
    assert says(page, "Step 2 of 8")
    page.get_by_role("slider", name="time step").focus()
    page.keyboard.press("End")
    assert says(page, "Step 8 of 8")
    assert forth.is_disabled()
    page.get_by_role("slider", name="contrast threshold").focus()
    page.keyboard.press("End")
    assert says(page, "In all steps: 0 events.")
    page.keyboard.press("Home")
    assert says(page, "5 % brighter")
    page.get_by_role("slider", name="speed").focus()
    page.keyboard.press("Home")
    assert says(page, "The picture stands still")
    page.get_by_label("picture", exact=True).select_option("Bars")
    page.get_by_label("direction", exact=True).select_option("up")
    page.get_by_role("slider", name="speed").press("ArrowRight")
    assert says(page, "No pixel's light has changed enough")


def test_axe_finds_nothing_on_a_phone_and_nothing_scrolls_sideways(show: Any) -> None:  # noqa: F811
    page = show("event_camera")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({include: '.explorer'}, {preload: false, resultTypes: ['violations']})")
    assert [each["id"] for each in found["violations"]] == []
