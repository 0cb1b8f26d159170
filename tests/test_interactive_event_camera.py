"""The event camera in a real browser: its events are those of the chapter's own cells, number for number."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from test_interactive import (  # noqa: F401  (three of them are fixtures)
    CHAPTERS,
    SET_AND_READ,
    assert_walks,
    pages,
    phone,
    says,
    show,
)
from test_interactive_live import CLOCK

from book.engine.convert import convert
from book.interactive.event_camera import HIGHEST, SHOWN, STEPS, WAYS
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.embedded import CLASS_NAMES

if TYPE_CHECKING:
    from playwright.sync_api import Page

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


def test_a_change_as_large_as_the_threshold_sends(chapter: dict[str, Any], show: Any) -> None:  # noqa: F811
    """Upright bars that move by a column light two columns and darken two at every step."""
    page = show("event_camera", kept=True)
    levels = page.evaluate("Bokeh.documents[0].get_model_by_name('event_camera').args.constants.levels")
    bars = chapter["film"](picture_of("Bars"), (0, 0), WAYS["right"], steps=STEPS)[:, None].double() / 255
    seen = torch.log(bars + 0.1).unique().tolist()
    assert len(seen) == 2
    for raised, sent in ((False, 56), (True, 0)):  # exactly as large, and the next number above
        contrast = math.nextafter(seen[1] - seen[0], math.inf) if raised else seen[1] - seen[0]
        events = chapter["record_events"](bars, contrast=contrast)
        assert events.sum(dim=(1, 3, 4)).tolist() == [[sent, sent]] * STEPS
        contrast = math.nextafter(levels[255] - levels[0], math.inf) if raised else levels[255] - levels[0]
        counts = page.evaluate(SET_AND_READ, [NEW | {"picture": "Bars", "contrast": contrast}, "counts"])
        assert counts["on"] == counts["off"] == [sent] * STEPS


HEARD = """() => {
  const {said} = Bokeh.documents[0].get_model_by_name("event_camera").args;
  window.heard = [];
  said.properties.text.change.connect(() => window.heard.push(said.text.replace(/<[^>]*>/g, "")));
}"""
FOCUSED = "each => each.getRootNode().activeElement === each"


def pixels(page: Page) -> dict[str, list[Any]]:
    """What the camera sees and sends at the step that the page shows."""
    shown: dict[str, list[Any]] = page.evaluate(SET_AND_READ, [{}, "pixels"])
    return shown


def open_with_a_clock(show: Any) -> Page:  # noqa: F811
    """A new page on which time passes when the test says so."""
    page: Page = show("event_camera")
    page.add_init_script(CLOCK)
    page.reload()
    page.locator(".explorer[data-ready]").wait_for()
    page.evaluate(HEARD)
    return page


def test_the_recording_plays_to_its_end(show: Any) -> None:  # noqa: F811
    page = open_with_a_clock(show)
    assert page.evaluate("tick === null"), "nothing plays that nobody asked for"
    steps = [page.evaluate(SET_AND_READ, [{"step": step + 1}, "pixels"]) for step in range(STEPS)]
    assert all(one != other for one, other in itertools.pairwise(steps))
    page.evaluate("heard.length = 0")
    page.get_by_role("button", name="Play").press("Enter")  # from its end it begins again
    pause = page.get_by_role("button", name="Pause")
    pause.wait_for()
    assert pause.evaluate(FOCUSED), "the keyboard stays on the button"
    assert says(page, "The recording plays, 8 steps.")
    for shown in steps[:-1]:
        assert pixels(page) == shown
        page.evaluate("tick()")
    assert pixels(page) == steps[-1]
    assert page.evaluate("tick === null"), "it stops by itself"
    play = page.get_by_role("button", name="Play")
    play.wait_for()
    assert play.evaluate(FOCUSED)
    assert says(page, f"Step {STEPS} of {STEPS}")
    heard = page.evaluate("heard")
    assert len(heard) == 2, "said when it begins and when it ends, and nothing between"


def test_the_recording_pauses_and_goes_on(show: Any) -> None:  # noqa: F811
    page = open_with_a_clock(show)
    play, pause = page.get_by_role("button", name="Play"), page.get_by_role("button", name="Pause")
    play.press("Enter")
    pause.wait_for()
    page.evaluate("tick(); tick()")
    pause.press("Enter")
    assert says(page, "Step 3 of 8")
    assert page.evaluate("tick === null")
    play.press(" ")
    pause.wait_for()
    page.evaluate("tick()")
    page.get_by_role("button", name="Next").press("Enter")  # a reader who goes on by hand is not overtaken
    assert says(page, "Step 5 of 8")
    assert page.evaluate("tick === null")
    play.wait_for()


def test_the_recording_is_slower_where_less_motion_is_wanted(show: Any) -> None:  # noqa: F811
    page = open_with_a_clock(show)
    lasts = {}
    for motion in ("no-preference", "reduce"):
        page.emulate_media(reduced_motion=motion)
        page.get_by_role("button", name="Play").press("Enter")
        page.get_by_role("button", name="Pause").press("Enter")
        lasts[motion] = page.evaluate("lasts")
        page.get_by_role("button", name="Play").wait_for()
    assert 1000 / lasts["no-preference"] < 3, "three flashes a second are the limit"
    assert lasts["reduce"] >= 3 * lasts["no-preference"]


def test_the_camera_answers_keyboard_and_buttons(show: Any) -> None:  # noqa: F811
    page = show("event_camera")
    assert_walks(page, slider="time step", words="Step {} of 8", last=STEPS)
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
