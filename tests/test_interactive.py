"""The explorers in a real browser: their numbers are the library's, and a keyboard is enough."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import torch
from axe_playwright_python.base import AXE_SCRIPT
from nbformat.v4 import new_code_cell, new_notebook

from book.engine.browser import serve
from book.interactive.embed import EXPLORERS, SCRIPTS, add_explorers, files, markup, write_explorers
from snnmlp_edu import InputError, NetworkConfig, NeuronConfig, lif_step
from snnmlp_edu.data import path
from snnmlp_edu.model.mixing import TokenMixing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHAPTERS = Path(__file__).parents[1] / "book" / "chapters"
PATIENCE = 60_000  # milliseconds: machines that test are busy

# Sets controls by their Bokeh models and returns what a named source or model holds afterwards.
SET_AND_READ = """async ([settings, wanted]) => {
  const [doc] = Bokeh.documents;
  const models = [...doc._all_models.values()];
  const find = title => models.find(each => each.title === title || each.name === title);
  for (const [title, value] of Object.entries(settings)) {
    const model = find(title);
    if (title === "inputs") model.active = value; else model.value = value;
  }
  // A change calls the script by and by. Called once more, and waited for, it has surely run.
  await models.find(each => each.type === "CustomJS" && each.name).execute(null);
  const data = find(wanted).data;
  return Object.fromEntries(Object.entries(data).map(([key, column]) => [key, Array.from(column)]));
}"""


@pytest.fixture(scope="module")
def pages(explorers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small site with one page for each explorer, served to this machine."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(explorers, root, dirs_exist_ok=True)
    (root / "chapters").mkdir()
    for name in EXPLORERS:
        figure = '<figure id="fig"><img src="data:," alt="a picture"></figure>'
        head = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
        page = head + figure + markup(name, "fig")
        (root / "chapters" / f"{name}.html").write_text(page, encoding="utf-8")
    with serve(root) as address:
        yield address


@pytest.fixture(scope="module")
def phone(browser: Browser) -> Iterator[tuple[BrowserContext, list[str]]]:
    """A phone that keeps the scripts that all explorers share, and what went wrong on its pages."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(PATIENCE)
    trouble: list[str] = []
    context.on("weberror", lambda error: trouble.append(str(error.error)))
    context.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
    context.on("request", lambda request: trouble.append(request.url))
    yield context, trouble
    context.close()


@pytest.fixture
def show(phone: tuple[BrowserContext, list[str]], pages: str) -> Iterator[Any]:
    """Open the page of an explorer; whatever goes wrong in it fails the test.

    A test that sets all controls takes a page that an earlier one left open, if it asks for it.
    """
    context, trouble = phone
    trouble.clear()

    def open_page(name: str, kept: bool = False) -> Page:
        address = f"{pages}/chapters/{name}.html"
        if kept:
            for page in context.pages:
                if page.url == address:
                    return page
        page = context.new_page()
        page.goto(address)
        page.locator(".explorer[data-ready]").wait_for()
        return page

    yield open_page
    assert [each for each in trouble if not each.startswith((pages, "data:"))] == []


def says(page: Page, words: str) -> bool:
    """Wait until the sentence that a screen reader announces contains these words."""
    page.locator(".explorer [role=status]", has_text=words).wait_for()
    return True


def assert_accessible(page: Page) -> None:
    """The explorer fits the screen, and axe finds nothing in it."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".explorer").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({include: '.explorer'}, {preload: false, resultTypes: ['violations']})")
    assert [each["id"] for each in found["violations"]] == []


def assert_walks(page: Page, slider: str, words: str, last: int) -> None:
    """The keyboard goes through the steps of a new page, by buttons and slider, to both ends and back.

    Args:
        slider: its title.
        words: of the sentence, with `{}` for the number of the step.
        last: step.
    """
    back, forth = page.get_by_role("button", name="Back"), page.get_by_role("button", name="Next")
    handle = page.get_by_role("slider", name=slider)
    assert says(page, words.format(1))
    assert back.is_disabled()
    for step in range(2, min(last, 4) + 1):
        forth.press("Enter")
        assert says(page, words.format(step))
    handle.press("End")
    assert says(page, words.format(last))
    assert forth.is_disabled()
    back.press("Enter")
    assert says(page, words.format(last - 1))
    handle.press("ArrowLeft")
    assert says(page, words.format(last - 2))
    handle.press("Home")
    assert says(page, words.format(1))
    assert back.is_disabled()
    assert_accessible(page)


# The playground


def traced(currents: list[float], config: NeuronConfig) -> dict[str, list[float]]:
    """Membrane after each reset, and spikes, by the library's step in double precision."""
    state, after, spikes = None, [], []
    for current in currents:
        spike, state = lif_step(torch.tensor(current, dtype=torch.float64), state, config)
        after.append(float(state.membrane))
        spikes.append(float(spike))
    return {"after": after, "spikes": spikes}


NEURONS = [
    {},
    {"beta": 0.8, "threshold": 0.5, "input_gain": 1.0},
    {"beta": 0.35, "threshold": 1.15, "input_gain": 0.7, "reset": "soft"},
    {"beta": 1.0, "threshold": 0.3, "input_gain": 0.1, "reset": "soft"},
    {"beta": 0.0, "threshold": 2.0, "input_gain": 0.95},
]
INPUTS = [("constant", 1.5, 3), ("constant", 3.95, 3), ("train", 2.85, 3), ("train", 1.0, 1)]


@pytest.mark.parametrize("fields", NEURONS)
def test_playground_and_library_agree_bit_for_bit(fields: dict[str, Any], show: Any) -> None:
    config = NeuronConfig(**fields)
    page = show("lif_playground", kept=True)
    for kind, strength, every in INPUTS:
        settings = {
            "leak": config.beta,
            "threshold": config.threshold,
            "gain": config.input_gain,
            "reset": config.reset,
            "input": kind,
            "strength": strength,
            "period": every,
        }
        shown = page.evaluate(SET_AND_READ, [settings, "steps"])
        currents = [strength if kind == "constant" or t % every == 0 else 0.0 for t in range(1, 25)]
        assert shown["current"] == currents
        expected = traced(currents, config)
        assert shown["spikes"] == expected["spikes"]
        assert shown["after"] == expected["after"]
        number = int(sum(expected["spikes"]))
        assert says(page, f"{number} spike{'s' if number != 1 else ''} in 24 steps")


def test_playground_answers_the_keyboard(show: Any) -> None:
    page = show("lif_playground")
    assert says(page, "12 spikes in")
    handle = page.get_by_role("slider", name="leak β")
    handle.focus()
    page.keyboard.press("Home")
    assert says(page, "0 spikes in"), "without a memory 0.75 never reaches 1"
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuetext") == "0.35"
    assert says(page, "12 spikes in")
    page.keyboard.press("End")
    page.get_by_label("reset", exact=True).select_option("soft")
    assert says(page, "18 spikes in"), "without a leak nothing is lost: 24 times 0.75"


def test_period_shows_where_it_matters(show: Any) -> None:
    page = show("lif_playground")
    period = page.get_by_role("slider", name="steps between input spikes")
    assert not period.is_visible()
    page.get_by_label("input", exact=True).select_option("train of spikes")
    period.wait_for()


# The stepper


@pytest.mark.parametrize("axis", ["channel", "token"])
@pytest.mark.parametrize(
    ("gamma", "variance", "inputs"), [(1.5, 0.25, [0, 2]), (-1.2, 3.05, [1]), (0.0, 1.0, [])]
)
def test_every_step_of_the_folding_gives_the_same_currents(
    axis: str, gamma: float, variance: float, inputs: list[int], show: Any
) -> None:
    from book.interactive.folding_stepper import CONSTANTS

    page = show("folding_stepper", kept=True)
    first, second = CONSTANTS["norm"]
    norms = [{**first, "gamma": gamma, "variance": variance}, second]
    x = torch.zeros(3, dtype=torch.float64)
    x[inputs] = 1
    weight = torch.tensor(CONSTANTS["weight"], dtype=torch.float64)
    y = weight @ x + torch.tensor(CONSTANTS["bias"], dtype=torch.float64)

    def normalised(norm: dict[str, float]) -> torch.Tensor:
        deviation = math.sqrt(norm["variance"] + CONSTANTS["epsilon"])
        return norm["gamma"] * (y - norm["mean"]) / deviation + norm["delta"]

    if axis == "channel":
        expected = torch.stack([normalised(norm)[output] for output, norm in enumerate(norms)])
    else:
        expected = torch.cat([normalised(norm) for norm in norms])
    settings = {"statistics for each": axis, "γ, first": gamma, "σ², first": variance, "inputs": inputs}
    for step in (1, 2, 3, 4):
        shown = page.evaluate(SET_AND_READ, [settings | {"step": step}, "result"])
        torch.testing.assert_close(torch.tensor(shown["shown"], dtype=torch.float64), expected)
    verdict = "It would take a copy of W" if axis == "token" else "nothing after W multiplies"
    assert says(page, verdict)


def test_stepper_goes_on_and_back_by_its_buttons(show: Any) -> None:
    assert_walks(show("folding_stepper"), slider="step", words="Step {}", last=4)


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_numbers_of_the_stepper_keep_apart_on_a_phone(axis: str, show: Any) -> None:
    page = show("folding_stepper")
    settings = {"statistics for each": axis, "γ, first": -1.9, "σ², first": 0.05}
    for step in (1, 2, 3, 4):
        cells = page.evaluate(SET_AND_READ, [settings | {"step": step}, "cells"])
        page.wait_for_function(SETTLED)
        wide, size, room = page.evaluate(LETTERS)
        assert size >= 9, "legible"
        assert len(wide) == len(cells["text"])
        assert max(wide) < room / (max(cells["x"]) + 1)


SETTLED = """async () => {
  const script = Bokeh.documents[0].get_model_by_name("folding_stepper"), {plot} = script.args;
  const before = plot.inner_width;
  await new Promise(done => setTimeout(done, 100));
  await script.execute(null);
  return plot.inner_width === before;
}"""
LETTERS = """() => {
  const {plot, letters, cells} = Bokeh.documents[0].get_model_by_name("folding_stepper").args;
  const pen = document.createElement("canvas").getContext("2d");
  const size = letters.text_font_size.value;
  pen.font = `${size} helvetica, arial, sans-serif`;
  const wide = Array.from(cells.data.text, text => pen.measureText(text).width);
  return [wide, parseFloat(size), 0.94 * plot.inner_width];
}"""


# The reach


def reached_in_the_library(mixing: str, blocks: int, row: int, column: int) -> torch.Tensor:
    """Tokens `[8, 8]` that can change one token's currents after some blocks, by the gradient."""
    config = NetworkConfig(
        dim=3,
        depths=(1,),
        patch_size=4,
        image_size=32,
        time_steps=1,
        token_mixing=mixing,  # type: ignore[arg-type]
    )
    wanted = torch.zeros(1, 1, 8, 8, 3)
    wanted[0, 0, row, column] = 1
    if blocks == 0:
        return wanted.sum(-1)[0, 0] > 0
    layer = TokenMixing((8, 8, 3), config).eval()
    for weights in layer.parameters():
        torch.nn.init.uniform_(weights, 0.01, 0.02)  # all positive: no two ways cancel
    seen = wanted
    for _ in range(blocks):
        spikes = torch.rand(1, 1, 8, 8, 3, requires_grad=True)
        (back,) = torch.autograd.grad(layer.current(spikes), spikes, seen)
        seen = (back > 0).float()
    return seen.sum(-1)[0, 0] > 0


@pytest.mark.parametrize("mixing", ["axial", "full", "none"])
def test_reach_is_that_of_the_library(mixing: str, show: Any) -> None:
    page = show("reach_explorer", kept=True)
    for blocks in range(4):
        settings = {"token mixing": mixing, "blocks": blocks, "row": 2, "column": 7}
        shown = page.evaluate(SET_AND_READ, [settings, "tokens"])
        ways = torch.tensor(shown["ways"]).reshape(8, 8)
        assert torch.equal(ways > 0, reached_in_the_library(mixing, blocks, 1, 6))
        streams = {"axial": 17, "full": 65, "none": 1}[mixing]  # what one token hears: itself, its lines
        assert int(ways.sum()) == streams**blocks
        assert says(page, f"{int((ways > 0).sum())} of 64 tokens")


TOKEN = """([row, column]) => {
  const plot = [...Bokeh.documents[0]._all_models.values()].find(each => each.type === "Figure");
  const view = Bokeh.index.find_one(plot), {left, top} = view.el.getBoundingClientRect();
  const [[x], [y]] = view.frame.map_to_screen ? view.frame.map_to_screen([column], [row])
    : [[view.frame.x_scale.compute(column)], [view.frame.y_scale.compute(row)]];
  return [left + x, top + y];
}"""


def test_a_click_on_a_token_chooses_it(show: Any) -> None:
    page = show("reach_explorer")
    page.get_by_role("slider", name="column").press("Tab")
    page.mouse.wheel(0, 400)  # to where the plot is in view
    for row, column in ((6, 2), (1, 8), (8, 1)):
        page.mouse.click(*page.evaluate(TOKEN, [row, column]))
        assert says(page, f"reach row {row}, column {column}")
        ways = page.evaluate(SET_AND_READ, [{}, "tokens"])["ways"]
        assert ways[8 * (row - 1) + column - 1] == max(ways)
    assert page.get_by_role("slider", name="row").get_attribute("aria-valuenow") == "8.0"


# The bill


@pytest.mark.parametrize("name", ["mlp_spe_t", "spiking_resnet34", "spiking_vgg16"])
def test_bill_is_that_of_the_counted_networks(name: str, show: Any) -> None:
    row = json.loads((path() / "cost_at_224.json").read_text(encoding="utf-8"))[name]
    number, run = 3, row["runs"][3]
    page = show("energy_explorer", kept=True)
    settings = {"network": name, "steps": row["time_steps"], "mac": 4.6, "add": 0.9, "neuron": 0}
    dots = page.evaluate(SET_AND_READ, [settings, "dots"])
    additions = run["synaptic_operations"] + run["head_accumulates"] + row["skip_additions"]
    millijoules = 1e-9 * (4.6 * row["stem_macs"] + 0.9 * additions)
    assert dots["energy"][number] == pytest.approx(millijoules)
    arrival = run["synaptic_operations"] / row["dense_macs"]
    assert dots["rate"][number] == pytest.approx(arrival)
    line = page.evaluate(SET_AND_READ, [{"rate": arrival}, "here"])
    head = run["head_accumulates"] - arrival * row["head_dense"]  # the line gives the head the same rate
    assert line["energy"][0] + 0.9e-9 * head == pytest.approx(millijoules)


def test_bill_knows_when_the_twin_wins(show: Any) -> None:
    page = show("energy_explorer")
    assert says(page, "No rate is high enough")
    page.get_by_role("slider", name="time steps T").focus()
    page.keyboard.press("End")
    assert says(page, "Above a rate of 0.3")
    page.evaluate(SET_AND_READ, [{"neuron": 10, "mac": 0.2}, "here"])
    assert says(page, "even if no neuron fires")


def test_legend_of_the_bill_is_below_the_plot_and_within_its_card(show: Any) -> None:
    page = show("energy_explorer")
    card = page.locator(".explorer").bounding_box()
    plot = page.locator(".bk-Figure").bounding_box()
    for words in ("spiking network", "counted", "your rate", "ReLU twin", "break-even"):
        entry = page.get_by_text(words, exact=True).bounding_box()
        assert card["x"] <= entry["x"]
        assert entry["x"] + entry["width"] <= card["x"] + card["width"]
        assert entry["y"] >= plot["y"] + plot["height"]


# Embedding


def figure_cell(**metadata: Any) -> nbformat.NotebookNode:
    return new_code_cell("1", metadata=metadata)


def test_explorer_stands_behind_the_cell_that_asks_for_it() -> None:
    named = {"figure": {"name": "fig-a"}}
    notebook = new_notebook(cells=[figure_cell(), figure_cell(interactive="reach_explorer", mystnb=named)])
    assert add_explorers(notebook) == ["reach_explorer"]
    assert [cell.cell_type for cell in notebook.cells] == ["code", "code", "markdown"]
    assert 'data-figure="fig-a"' in notebook.cells[2].source
    nbformat.validate(notebook)


def test_unknown_explorer_is_named() -> None:
    with pytest.raises(InputError, match="asks for 'lif': choose one of lif_playground, gradient_explorer"):
        add_explorers(new_notebook(cells=[figure_cell(interactive="lif")]))


def test_explorer_needs_a_figure_to_take_the_place_of() -> None:
    with pytest.raises(InputError, match="lif_playground has no figure to take the place of"):
        add_explorers(new_notebook(cells=[figure_cell(interactive="lif_playground")]))


@pytest.mark.parametrize("name", EXPLORERS)
def test_files_are_the_same_each_time(name: str, explorers: Path) -> None:
    made = files(name)
    assert {file: (explorers / "interactive" / file).read_text(encoding="utf-8") for file in made} == made
    assert "http" not in made[f"{name}.js"]


def test_only_what_is_asked_for_is_shipped(tmp_path: Path) -> None:
    write_explorers([], tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_explorers(["reach_explorer"], tmp_path)
    written = {each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file()}
    bokeh = {f"bokeh/{each}" for each in (*SCRIPTS, "LICENSE.txt")}
    assert written == bokeh | {"interactive/embed.js", "interactive/reach_explorer.js"}
    assert "Redistribution" in (tmp_path / "bokeh" / "LICENSE.txt").read_text(encoding="utf-8")


def test_every_explorer_is_in_a_chapter() -> None:
    asked = set()
    for source in CHAPTERS.glob("*.ipynb"):
        for cell in nbformat.read(source, as_version=4).cells:
            asked |= {cell.metadata["interactive"]} if "interactive" in cell.metadata else set()
    assert asked <= set(EXPLORERS)
