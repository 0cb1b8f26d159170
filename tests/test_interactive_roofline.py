"""The explorer of chapter 13 in a real browser: its times and bytes are those of the chapter's own cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_interactive import (  # noqa: F401  (three of them are fixtures)
    CHAPTERS,
    SET_AND_READ,
    assert_accessible,
    pages,
    phone,
    says,
    show,
)

from book.engine.convert import convert
from book.interactive.roofline_explorer import (
    BATCH,
    EFFICIENCY,
    KEPT,
    LONGER,
    MEMORY,
    MEMORY_SPEED,
    NAMES,
    PEAK,
    SHORTER,
    STEPS,
    networks,
)
from snnmlp_edu import create_model
from snnmlp_edu.model import compiled
from snnmlp_edu.training.scaling import estimate

START: dict[str, Any] = {
    "network": "mlp_spe_t",
    "numbers": "2",
    "batch": BATCH,
    "steps": STEPS,
    "peak": PEAK / 1e12,
    "speed": MEMORY_SPEED / 1e12,
    "efficiency": EFFICIENCY,
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"batch": 1, "steps": 1},
    {"network": "mlp_spe_s", "batch": 256, "steps": 16},
    {"numbers": "4", "speed": 0.1},
    {"numbers": "4", "peak": 1000, "speed": 0.5, "efficiency": 1},
    {"network": "mlp_spe_s", "peak": 8, "speed": 8, "steps": 7, "efficiency": 0.55},
]


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    """The cells of chapter 13 that count the bytes, and that price a step."""
    notebook = convert(CHAPTERS / "13_scaling_up.md")
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    wanted = {"bytes": ("def kept_bytes",), "price": ("PEAK, MEMORY_SPEED", "gpu_step = BATCH")}
    return {
        name: "\n".join(each for each in sources if any(words in each for words in several))
        for name, several in wanted.items()
    }


def kept(at: dict[str, Any]) -> float:
    """Bytes that an image of 224 px keeps in 32 bits."""
    return KEPT[at["network"]] * at["steps"]


@torch._dynamo.config.patch(disable=True)  # compiled or not, neurons keep the same
@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_that_the_chapter_counts(
    name: str, cells: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_warn_once", lambda reason: None)
    names: dict[str, Any] = {"torch": torch, "settings": {"batch": 2}, "area": (224 / 64) ** 2}
    names["model"] = create_model(name, image_size=64, time_steps=STEPS)
    names["images"] = torch.rand(2, 3, 64, 64)
    exec(cells["bytes"], names)
    expected = kept({"network": name, "steps": STEPS})
    assert names["activation_bytes"] == pytest.approx(expected, rel=0.02)  # areas are an estimate


def test_prices_are_those_of_the_chapter(cells: dict[str, str], show: Any) -> None:  # noqa: F811
    names: dict[str, Any] = {"activation_bytes": kept(START), "device": "cpu"}
    exec(cells["price"], names)
    device = (names["PEAK"], names["MEMORY_SPEED"], names["MEMORY"], names["EFFICIENCY"], names["BATCH"])
    assert device == (PEAK, MEMORY_SPEED, MEMORY, EFFICIENCY, BATCH)
    page = show("roofline_explorer", kept=True)
    shown = page.evaluate(SET_AND_READ, [START, "result"])
    assert shown["seconds"][0] == pytest.approx(names["gpu_step"])
    for what, name in {"arithmetic": "arithmetic", "memory": "memory_traffic"}.items():
        assert shown[what][0] == pytest.approx(names[name] * BATCH / EFFICIENCY)


@pytest.mark.parametrize("change", SETTINGS)
def test_times_point_and_memory_follow_the_formulas(change: dict[str, Any], show: Any) -> None:  # noqa: F811
    page = show("roofline_explorer", kept=True)
    at = START | change
    shown = page.evaluate(SET_AND_READ, [at, "result"])
    network, image = networks()[at["network"]], kept(at) * int(at["numbers"]) / 4
    operations = 6 * (network["stem"] + at["steps"] * network["dense"])
    images = at["batch"] / at["efficiency"]
    times = [images * operations / (at["peak"] * 1e12), images * 2 * image / (at["speed"] * 1e12)]
    assert [shown["arithmetic"][0], shown["memory"][0]] == pytest.approx(times)
    assert shown["seconds"] == pytest.approx([max(times)])
    bars = page.evaluate(SET_AND_READ, [{}, "times"])
    assert bars["seconds"] == [shown["arithmetic"][0], shown["memory"][0]]
    assert bars["color"] == [LONGER if each == max(times) else SHORTER for each in times]
    here = page.evaluate(SET_AND_READ, [{}, "here"])
    assert here["intensity"] == pytest.approx([operations / (2 * image)])
    reached = at["batch"] * operations / max(times)  # what the time says of the point
    assert here["reached"] == pytest.approx([reached / 1e12])
    needed = estimate(1, at["batch"], parameters=network["parameters"], activation_bytes=image).memory_bytes
    assert shown["bytes"] == pytest.approx([needed])
    assert says(page, f"the {'memory' if times[1] > times[0] else 'arithmetic'} decides")
    assert needed is not None
    assert says(page, "it does not fit" if needed > MEMORY else "of 80 GB")


def test_the_roof_is_the_lower_of_two_lines(show: Any) -> None:  # noqa: F811
    page = show("roofline_explorer", kept=True)
    roof = page.evaluate(SET_AND_READ, [START | {"peak": 400, "speed": 4, "efficiency": 0.5}, "roof"])
    assert roof["intensity"] == pytest.approx([1, 100, 10_000])
    assert roof["best"] == pytest.approx([4, 400, 400])
    assert roof["reached"] == pytest.approx([2, 200, 200])


def test_batch_and_efficiency_change_the_time_and_not_the_bound(show: Any) -> None:  # noqa: F811
    page = show("roofline_explorer", kept=True)
    first = page.evaluate(SET_AND_READ, [START, "result"])
    doubled = page.evaluate(SET_AND_READ, [START | {"batch": 2 * BATCH}, "result"])
    assert doubled["seconds"] == pytest.approx([2 * first["seconds"][0]])
    assert doubled["intensity"] == first["intensity"]
    short = page.evaluate(SET_AND_READ, [START | {"numbers": "4"}, "result"])
    assert short["intensity"] == pytest.approx([first["intensity"][0] / 2])


def test_faster_arithmetic_helps_up_to_the_ridge(show: Any) -> None:  # noqa: F811
    page = show("roofline_explorer")
    assert says(page, f"A training step of {BATCH} images takes")
    assert_accessible(page)
    intensity = page.evaluate(SET_AND_READ, [{}, "result"])["intensity"][0]
    assert PEAK / 1e12 < intensity * MEMORY_SPEED / 1e12 < 1000, "the slider goes beyond the ridge"
    handle = page.get_by_role("slider", name="arithmetic")
    handle.press("Home")
    assert says(page, "the arithmetic decides")
    assert says(page, "Faster memory would change nothing.")
    handle.press("End")
    assert says(page, "the memory decides")
    assert says(page, "Faster arithmetic would change nothing.")
    page.get_by_role("slider", name="images in a step").press("Home")
    assert says(page, "A training step of one image takes")
    page.get_by_label("network", exact=True).select_option(NAMES["mlp_spe_s"])
    page.get_by_label("numbers", exact=True).select_option("32 bits")
    page.get_by_role("slider", name="images in a step").press("End")
    assert says(page, "it does not fit")
