"""The living network in a real browser: what it shows is what Python computes, to the last unit."""

from __future__ import annotations

import base64
import math
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from test_interactive import assert_accessible
from torch import Tensor

from book.interactive.embed import files, markup, write_explorers
from snnmlp_edu import data, record
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.cost import count_operations, relu_twin
from snnmlp_edu.data import load_embedded
from snnmlp_edu.mfi import event_driven, fold_batch_norm

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.usefixtures("step_by_step")  # no neuron runs often enough to be compiled

STYLE = Path(__file__).parents[1] / "book" / "_static" / "custom.css"
NAME = "mlp_spe_nano"
SIDE, STEPS, STAGES = 28, 4, 4
RIM = 128  # around a pixel that the brush paints
PATIENCE = 60_000  # milliseconds: machines that test are busy
WITHOUT_VECTORS = "WebAssembly.validate = () => false"
WITHOUT_ENGINE = "delete window.WebAssembly"
CLOCK = """
  window.tick = null;
  window.setInterval = (each, lasts) => { window.tick = each; window.lasts = lasts; return 1; };
  window.clearInterval = () => { window.tick = null; };
"""  # which goes on when the test says so

SHOWN = """() => {
  const number = each => Number(each.textContent.replaceAll(",", ""));
  const all = name => [...document.querySelectorAll(`.live-${name}`)];
  return {
    evidence: [...document.querySelectorAll(".live-evidence b")].map(number),
    first: all("first").map(each => each.querySelector("span").textContent),
    additions: all("additions").map(number)[0],
    multiplications: all("multiplications").map(number)[0],
    said: all("said")[0].textContent,
    announced: all("announced")[0].textContent,
    when: all("when")[0].textContent,
  };
}"""
COLORS = """([canvas, size]) => {
  const {width, height} = canvas, {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  const color = (row, column) => {
    const at = 4 * ((row * size + size / 2) * width + column * size + size / 2);
    const [red, green, blue, opaque] = data.slice(at, at + 4);
    return opaque ? ((red << 16) + (green << 8) + blue).toString(16).padStart(6, "0") : "";
  };
  return Array.from({length: height / size}, (_, row) =>
    Array.from({length: width / size}, (_, column) => color(row, column)));
}"""
SPIKE, PAST_SPIKE, SILENT = "d55e00", "f0b98f", "e6e6e6"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with the living network, as a file: nothing is served."""
    root = tmp_path_factory.mktemp("living")
    write_explorers(["live_network"], root)
    shutil.copy2(STYLE, root)
    (root / "chapters").mkdir()
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>The living network</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="../custom.css">'
    )
    figure = '<figure id="fig"><img src="data:," alt="a picture"></figure>'
    page = root / "chapters" / "page.html"
    page.write_text(
        f"{head}<main><h1>A page</h1>{figure}{markup('live_network', 'fig')}</main>", encoding="utf-8"
    )
    return page.as_uri()


@pytest.fixture
def show(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Open the page on a phone, where no motion is asked for; whatever goes wrong in it fails the test."""
    contexts, trouble = [], []

    def open_page(script: str = "", **options: Any) -> Page:
        settings: Any = {"viewport": {"width": 390, "height": 844}, "reduced_motion": "reduce"} | options
        context = browser.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.on("weberror", lambda error: trouble.append(str(error.error)))
        context.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        context.on("request", lambda request: trouble.append(request.url))
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.goto(address)
        if script != WITHOUT_ENGINE and options.get("java_script_enabled", True):
            page.locator(".explorer[data-ready]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [each for each in trouble if not each.startswith(("file:", "data:"))] == []


@cache
def in_whole_numbers() -> Any:
    return event_driven(fold_batch_norm(load_checkpoint(NAME).model), weights="int8")


class Expected(NamedTuple):
    """What Python computes of an image: evidence after each step, additions, and spikes by path."""

    evidence: list[list[int]]
    additions: int
    spikes: dict[str, Tensor]


def expected(pixels: np.ndarray | Tensor) -> Expected:
    """The library's answer for one image of bytes."""
    return answer_to(np.asarray(pixels, dtype=np.uint8).tobytes())


@cache
def answer_to(image_bytes: bytes) -> Expected:
    checkpoint, network = load_checkpoint(NAME), in_whole_numbers()
    image = torch.frombuffer(bytearray(image_bytes), dtype=torch.uint8).reshape(1, 1, SIDE, SIDE)
    preprocessed = checkpoint.preprocessing(image)
    spikes = record(network, preprocessed)
    with torch.inference_mode():
        steps = network.forward_steps(preprocessed)[:, 0].to(torch.int64)
        logits = network(image)[0].tolist()
        of_spikes = sum(network.synaptic_operations.values())
    assert steps.sum(0).tolist() == logits
    of_pixels = int(np.unpackbits(image.numpy()).sum()) * checkpoint.model.config.widths[0]
    return Expected(steps.cumsum(0).tolist(), of_pixels + of_spikes + of_shortcuts(), spikes)


@cache
def of_shortcuts() -> int:
    return count_operations(load_checkpoint(NAME).model, torch.zeros(1, 1, 32, 32)).skip_additions


def first_of_each_class() -> dict[str, Tensor]:
    test, names = load_embedded("test"), load_checkpoint(NAME).class_names
    found: dict[str, Tensor] = {}
    for image, label in zip(test.images, test.labels, strict=True):
        found.setdefault(names[int(label)], image[0])
    return found


def assert_shows(page: Page, pixels: np.ndarray | Tensor) -> None:
    """The page shows what Python computes of an image, after all steps."""
    shown, right = page.evaluate(SHOWN), expected(pixels)
    assert shown["evidence"] == right.evidence[-1]
    assert shown["additions"] == right.additions
    answer = load_checkpoint(NAME).class_names[int(np.argmax(right.evidence[-1]))]
    assert shown["first"] == [answer]
    assert f"After 4 of 4 steps the picture is seen as {answer}" in shown["said"]
    assert f"{right.additions:,} additions;" in shown["said"]
    assert shown["announced"] == shown["said"]


def paint(pixels: np.ndarray, row: int, column: int) -> None:
    """One stroke of the soft brush: a pixel, and a grey rim around it."""
    around = pixels[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    np.maximum(around, RIM, out=around)
    pixels[row, column] = 255


def drawn(page: Page) -> np.ndarray:
    """The image on the page, where each pixel is white, of the brush's rim, or painted."""
    canvas = page.locator(".live-picture canvas").element_handle()
    colors = np.array(page.evaluate(COLORS, [canvas, 8]))
    values = {"ffffff": 0, "009e73": RIM, "00241b": 255}
    return np.vectorize(values.__getitem__, otypes=[np.uint8])(colors)


@pytest.mark.parametrize("engine", ["simd", "plain"])
def test_logits_and_additions_of_all_garments_are_those_of_python(engine: str, show: Any) -> None:
    page = show(WITHOUT_VECTORS if engine == "plain" else "")
    sources = page.evaluate("[...document.scripts].map(each => each.src)")
    assert [each.rpartition("/")[2] for each in sources if "live_network_" in each] == [
        f"live_network_{engine}.js"
    ]
    garments = first_of_each_class()
    choices = page.get_by_role("radio")
    assert [choice.locator("..").inner_text() for choice in choices.all()] == list(garments)
    assert choices.first.is_checked()
    assert_shows(page, garments["Ankle boot"])
    for name, pixels in garments.items():
        page.get_by_role("radio", name=name, exact=True).check()
        assert_shows(page, pixels)


def test_the_twin_multiplies_as_the_library_counts(show: Any) -> None:
    twin = relu_twin(load_checkpoint(NAME).model)
    counted = count_operations(twin, torch.zeros(1, 1, 32, 32)).macs
    page = show()
    shown = page.evaluate(SHOWN)
    assert shown["multiplications"] == counted
    assert f"{counted:,} multiplications" in shown["said"]
    wide = {name: page.locator(f".live-{name}").bounding_box()["width"] for name in ("adds", "multiplies")}
    assert wide["adds"] / wide["multiplies"] == pytest.approx(shown["additions"] / counted, rel=0.01)


def test_spikes_and_evidence_of_each_moment_are_those_of_python(show: Any) -> None:
    page = show()
    right = expected(first_of_each_class()["Ankle boot"])
    slider = page.get_by_role("slider", name="time")
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "before the first step"
    assert page.evaluate(SHOWN)["evidence"] == [0] * 10
    canvases = page.locator(".live-stages canvas").element_handles()
    for moment in range(1, STEPS * STAGES + 1):
        slider.press("ArrowRight")
        assert (
            slider.get_attribute("aria-valuetext")
            == f"step {math.ceil(moment / STAGES)} of 4, stage {(moment - 1) % STAGES}"
        )
        done = moment // STAGES
        assert page.evaluate(SHOWN)["evidence"] == (right.evidence[done - 1] if done else [0] * 10)
        for stage, canvas in enumerate(canvases):
            step = (moment - 1 - stage) // STAGES  # the latest at which this stage has fired, or -1
            color = SPIKE if stage <= (moment - 1) % STAGES else PAST_SPIKE
            spikes = right.spikes[f"stages.{stage}.blocks.0.channel.down.neuron"]
            now = spikes[step, 0] if step >= 0 else torch.zeros_like(spikes[0, 0])
            assert page.evaluate(COLORS, [canvas, 6]) == cells(now, color)
    assert page.evaluate(SHOWN)["additions"] == right.additions


def cells(spikes: Tensor, color: str) -> list[list[str]]:
    """Colours of the cells of spikes `[H, W, C]`: maps of channels, with a line between them."""
    height, width, channels = spikes.shape
    across = {12: 4, 24: 6, 48: 8, 96: 12}[channels]
    grid = [[""] * (across * (width + 1) + 1) for _ in range(channels // across * (height + 1) + 1)]
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                down, right = (channel // across) * (height + 1), (channel % across) * (width + 1)
                shade = color if spikes[row, column, channel] else SILENT
                grid[1 + down + row][1 + right + column] = shade
    return grid


def test_additions_grow_from_the_pixels_to_all(show: Any) -> None:
    page = show()
    pixels = first_of_each_class()["Ankle boot"]
    slider = page.get_by_role("slider", name="time")
    slider.press("Home")
    seen = [page.evaluate(SHOWN)["additions"]]
    for _ in range(STEPS * STAGES):
        page.get_by_role("button", name="Next").press("Enter")
        seen.append(page.evaluate(SHOWN)["additions"])
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[1] > int(np.unpackbits(pixels.numpy()).sum()) * 12
    assert seen[-1] == expected(pixels).additions
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_role("button", name="Back").press("Enter")
    assert page.evaluate(SHOWN)["additions"] == seen[-2]


def test_a_drawing_by_keyboard(show: Any) -> None:
    page = show()
    page.get_by_role("button", name="Clear").press("Enter")
    picture = page.get_by_role("application", name="Picture to draw on")
    right = np.zeros((SIDE, SIDE), np.uint8)
    row = column = SIDE // 2
    for key, times in (("ArrowUp", 3), ("ArrowLeft", 4), ("ArrowDown", 14), ("ArrowRight", 2)):
        for _ in range(times):
            picture.press(key)
            row += {"ArrowUp": -1, "ArrowDown": 1}.get(key, 0)
            column += {"ArrowLeft": -1, "ArrowRight": 1}.get(key, 0)
            picture.press(" ")
            paint(right, row, column)
    assert page.locator(".live-cursor").inner_text() == f"Row {row + 1}, column {column + 1}"
    page.get_by_role("checkbox", name="erase").press(" ")  # without focus the picture shows no cursor
    assert np.array_equal(drawn(page), right)
    assert_shows(page, right)
    assert page.get_by_role("radio", checked=True).count() == 0
    picture.press("ArrowLeft")
    picture.press(" ")
    right[row - 1 : row + 2, column - 2 : column + 1] = 0
    picture.blur()
    assert np.array_equal(drawn(page), right)
    assert_shows(page, right)


def test_a_drawing_by_pointer_goes_where_the_pointer_goes(show: Any) -> None:
    page = show()
    page.get_by_role("button", name="Clear").click()
    box = page.locator(".live-picture canvas").bounding_box()

    def to(row: float, column: float) -> tuple[float, float]:
        pixel = (box["width"] - 2) / SIDE, (box["height"] - 2) / SIDE
        return box["x"] + 1 + (column + 0.5) * pixel[0], box["y"] + 1 + (row + 0.5) * pixel[1]

    page.mouse.move(*to(5, 4))
    page.mouse.down()
    page.mouse.move(*to(5, 22))
    page.mouse.move(*to(22, 22))
    page.mouse.up()
    right = np.zeros((SIDE, SIDE), np.uint8)
    for step in range(4, 23):
        paint(right, 5, step)
    for step in range(5, 23):
        paint(right, step, 22)
    assert np.array_equal(drawn(page), right)
    assert_shows(page, right)
    page.get_by_role("checkbox", name="erase").check()
    page.mouse.click(*to(5, 10))
    right[4:7, 9:12] = 0
    assert np.array_equal(drawn(page), right)
    assert_shows(page, right)


def test_an_empty_and_a_full_drawing_are_named_and_answered(show: Any) -> None:
    page = show()
    page.get_by_role("button", name="Clear").press("Enter")
    assert "Nothing is drawn, but the network has to answer one of the ten" in page.evaluate(SHOWN)["said"]
    page.get_by_text("trained on photographs of garments, not on strokes").wait_for()
    assert_shows(page, np.zeros((SIDE, SIDE)))
    box = page.locator(".live-picture canvas").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    for row in range(0, SIDE, 2):
        y = box["y"] + 3 + row * (box["height"] - 6) / (SIDE - 2)
        page.mouse.move(box["x"] + 3, y)
        page.mouse.move(box["x"] + box["width"] - 3, y)
    page.mouse.up()
    assert "The whole picture is painted" in page.evaluate(SHOWN)["said"]
    full = drawn(page)
    assert full.min() == RIM
    assert_shows(page, full)


def test_without_webassembly_the_picture_stays_and_a_sentence_says_why(show: Any) -> None:
    page = show(WITHOUT_ENGINE)
    page.get_by_role("note", name="A spiking network").get_by_text("WebAssembly").wait_for()
    assert page.get_by_role("img", name="a picture").is_visible()
    assert page.locator(".live-evidence").count() == 0


def test_without_scripts_the_picture_stays(show: Any) -> None:
    page = show(java_script_enabled=False)
    assert page.get_by_role("img", name="a picture").is_visible()
    assert not page.locator(".explorer").is_visible()


def test_a_keyboard_is_enough(show: Any) -> None:
    page = show()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # from one garment to the next
    assert_shows(page, list(first_of_each_class().values())[1])
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.type"))
    assert reached == ["live-back", "live-play", "range"], "Next is disabled"
    page.keyboard.press("Home")
    assert "Before the first step: no evidence has arrived yet" in page.evaluate(SHOWN)["announced"]
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert reached[3:] == ["CANVAS", "live-clear", "live-erase"]


def assert_says_what_it_shows(page: Page, moment: int) -> None:
    """The visible sentence agrees with the picture at this moment: time, answer and additions so far."""
    shown, done = page.evaluate(SHOWN), moment // STAGES
    if moment % STAGES:
        assert f"In {shown['when']}: " in shown["said"]
    so_far = "" if moment == STEPS * STAGES else " so far"
    assert f"The network has made {shown['additions']:,} additions{so_far};" in shown["said"]
    if done == 0:
        assert "no evidence has arrived yet." in shown["said"]
        assert shown["first"] == []
        return
    assert f"the picture is seen as {shown['first'][0]}" in shown["said"]
    steps = f"after {done} step" if moment % STAGES else f"After {done} of 4 steps"
    assert steps in shown["said"]


def test_it_plays_stops_and_ends(show: Any) -> None:
    page = show(CLOCK, reduced_motion="no-preference", viewport={"width": 1280, "height": 1600})
    page.get_by_role("button", name="Pause").wait_for()  # it begins when it is seen
    assert page.evaluate("lasts") == 600, "milliseconds for each moment"
    slider = page.get_by_role("slider", name="time")
    heard = page.evaluate(SHOWN)["announced"]
    for moment in range(1, STEPS * STAGES + 1):
        page.evaluate("tick()")
        assert slider.input_value() == str(moment)
        assert_says_what_it_shows(page, moment)
        assert moment == STEPS * STAGES or page.evaluate(SHOWN)["announced"] == heard, "no chatter"
    assert page.evaluate("tick === null"), "it ends by itself"
    assert_shows(page, first_of_each_class()["Ankle boot"])
    page.get_by_role("button", name="Play").click()
    page.evaluate("for (let k = 0; k < 6; k++) tick()")
    assert_says_what_it_shows(page, 6)
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate("tick === null")
    assert slider.input_value() == "6"
    shown = page.evaluate(SHOWN)
    assert "In step 2 of 4, stage 1: after 1 step the picture is seen as" in shown["said"]
    assert shown["announced"] == shown["said"], "where it stops it says so"
    page.get_by_role("button", name="Next").click()
    assert_says_what_it_shows(page, 7)
    assert "In step 2 of 4, stage 2" in page.evaluate(SHOWN)["announced"]


def test_nothing_moves_where_no_motion_is_wanted(show: Any) -> None:
    page = show()
    page.get_by_role("radio", name="Trouser").check()
    assert page.get_by_role("slider", name="time").input_value() == "16"
    assert page.get_by_role("button", name="Play").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_accessible_and_fits(scheme: str, width: int, show: Any) -> None:
    page = show(color_scheme=scheme, viewport={"width": width, "height": 844})
    assert_accessible(page)


def test_the_page_carries_the_shipped_engines() -> None:
    made = files("live_network")
    for kind, file in (("plain", f"{NAME}.wasm"), ("simd", f"{NAME}_simd.wasm")):
        text = made[f"live_network_{kind}.js"].split('"')[1]
        assert base64.b64decode(text) == (data.path() / "engine" / file).read_bytes()
