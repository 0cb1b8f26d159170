"""The picture of the wirings: what it shows in a browser is what the library computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_interactive import SET_AND_READ, pages, phone, says, show  # noqa: F401  (three of them are fixtures)
from torch import Tensor

from book.interactive import wiring_explorer
from book.interactive.wiring_explorer import BLOCKS, KINDS, garments, small_network
from snnmlp_edu.config import Skip
from snnmlp_edu.mfi import audit


def seen_by_hooks(kind: Skip) -> list[dict[str, Tensor]]:
    """What the network itself passes to the maps of each block, and out of it."""
    network = small_network(kind)
    found: list[dict[str, Tensor]] = []
    hooks = []
    for block in network.stages[0].blocks:
        seen: dict[str, Tensor] = {}
        found.append(seen)

        def enter(_: Any, given: Any, seen: dict[str, Tensor] = seen) -> None:
            seen["in"] = given[0]

        def rise(_: Any, given: Any, seen: dict[str, Tensor] = seen) -> None:
            seen["middle"] = given[0]

        def leave(_: Any, given: Any, result: Any, seen: dict[str, Tensor] = seen) -> None:
            seen["out"] = result[0]

        hooks.append(block.register_forward_pre_hook(enter))
        hooks.append(block.channel.up.linear.register_forward_pre_hook(rise))
        hooks.append(block.register_forward_hook(leave))
    with torch.no_grad():
        network(garments())
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_values_on_wires_are_those_of_the_network(kind: Skip, show: Any) -> None:  # noqa: F811
    page = show("wiring_explorer", kept=True)
    for number, seen in enumerate(seen_by_hooks(kind), start=1):
        for wire, values in seen.items():
            settings = {"wiring": kind, "block of the stage": number, "wire": wire}
            bars = page.evaluate(SET_AND_READ, [settings, "bars"])
            places, counts = values.unique(return_counts=True)
            assert bars["x"] == places.tolist()
            assert bars["share"] == pytest.approx((counts / values.numel()).tolist(), abs=1e-6)
            labels = page.evaluate(SET_AND_READ, [{}, "labels"])
            shown = dict(zip(labels["wire"], zip(labels["text"], labels["color"], strict=True), strict=True))
            text, color = shown[wire]
            assert text.startswith("{0, ")
            assert text.endswith(f"{int(values.max())}}}")
            assert (color == "#B00020") == (values.max() > 1), "red where a map meets more than spikes"


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_is_that_of_the_audit(kind: Skip, show: Any) -> None:  # noqa: F811
    page = show("wiring_explorer", kept=True)
    report = audit(small_network(kind), garments()[:2])
    page.evaluate(SET_AND_READ, [{"wiring": kind, "block of the stage": 2, "wire": "in"}, "bars"])
    assert says(page, f"In the chapter's small network of two stages, not trained: {kind}")
    if report.multiplication_free:
        assert says(page, f"{kind} passes the audit")
    else:
        here = sum(row.path.startswith("stages.0.blocks.1.") for row in report.violations)
        assert says(page, f"{kind} fails the audit")
        assert says(
            page, f"{len(report.violations)} maps that multiply, {here} of them in block 2 of the first stage"
        )


def test_only_the_sum_of_spikes_fails() -> None:
    assert wiring_explorer.facts("spike")["multiply"] == 12, "as the text of chapter 07 shows"
    assert [kind for kind in KINDS if not wiring_explorer.facts(kind)["free"]] == ["spike"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_wire_of_a_diagram_has_values_and_the_currents_are_real(kind: Skip) -> None:
    places = wiring_explorer.drawing(kind)["places"]
    for block in wiring_explorer.facts(kind)["blocks"]:
        wires = block["wires"]
        assert set(places) <= set(wires)
        assert set(wires) - set(places) <= {"sum1", "sum2"}
        for each in wires.values():
            assert sum(each["share"]) == pytest.approx(1, abs=1e-4)
        assert wires["tau"]["words"] == wires["c"]["words"] == "real"
    assert len(wiring_explorer.facts(kind)["blocks"]) == BLOCKS


def test_a_wire_that_is_not_there_is_said_to_be_missing(show: Any) -> None:  # noqa: F811
    page = show("wiring_explorer", kept=True)
    bars = page.evaluate(SET_AND_READ, [{"wiring": "none", "wire": "first"}, "bars"])
    assert bars["x"] == []
    assert says(page, "this wiring has no such wire")


def test_wirings_are_switched_by_keyboard(show: Any) -> None:  # noqa: F811
    page = show("wiring_explorer")
    assert says(page, "stage passes the audit")
    page.get_by_label("wiring", exact=True).focus()
    for word in ("membrane passes", "spike_bn passes", "spike fails", "none passes"):
        page.keyboard.press("ArrowDown")
        assert says(page, word)
    page.keyboard.press("ArrowUp")
    page.get_by_role("slider", name="block of the stage").focus()
    page.keyboard.press("Home")
    assert says(page, "in block 1")
