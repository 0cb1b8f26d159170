"""The explorer of chapter 06 in a real browser: its spikes and sums are those of the network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_interactive import (  # noqa: F401  (three of them are fixtures)
    SET_AND_READ,
    assert_walks,
    pages,
    phone,
    says,
    show,
)
from torch import Tensor

from book.interactive.encoding_explorer import ARRIVING, GRAPHS, NODES, SHOWN, trained
from snnmlp_edu import record
from snnmlp_edu.model.patches import SpikingPatchEncoding

PIXELS = """() => Bokeh.documents[0].get_model_by_name('encoding_explorer').args.maps
  .map(each => Array.from(each.data.image[0]))"""
SAID = (
    "() => Bokeh.documents[0].get_model_by_name('encoding_explorer').args.said.text.replace(/<[^>]*>/g, '')"
)


def expected(graph: str) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Spikes `[T, B, H, W, C]` that arrive and on each node, and what the maps give, by the network."""
    network, _, images = trained()
    network = copy.deepcopy(network)
    encoding = network.stages[1].get_submodule("embedding")
    assert isinstance(encoding, SpikingPatchEncoding)
    if graph == "cut":  # a batch norm that gives zero
        for q in encoding.between:
            torch.nn.init.zeros_(q.get_parameter("norm.batch_norm.weight"))
            torch.nn.init.zeros_(q.get_parameter("norm.batch_norm.bias"))
    maps: dict[str, Tensor] = {}
    encoding.down.register_forward_hook(lambda *given: maps.update(P=given[-1]))
    for k, q in enumerate(encoding.between):
        q.register_forward_hook(lambda *given, k=k: maps.update({f"Q{NODES[k][1]}": given[-1]}))
    traces = record(network, images)
    for k, patch in enumerate(maps.pop("P").chunk(3, dim=-1)):
        maps[f"P{NODES[k][1]}"] = patch
    maps["n₁"] = maps["P₁"]
    return [traces[ARRIVING], *traces["stages.1.neuron"].chunk(3, dim=-1)], maps


@pytest.mark.parametrize("graph", GRAPHS)
def test_spikes_rates_and_sums_are_those_of_the_network(graph: str, show: Any) -> None:  # noqa: F811
    page = show("encoding_explorer", kept=True)
    spikes, maps = expected(graph)
    for k, name in enumerate(SHOWN):
        for t in range(len(spikes[0])):
            node = (k + t) % 3
            settings = {"garment": name, "time step": t + 1, "node": str(node), "graph": graph}
            rates = page.evaluate(SET_AND_READ, [settings, "result"])["rate"]
            assert rates == pytest.approx([each[t, k].mean().item() for each in spikes[1:]], abs=1e-6)
            for drawn, each in zip(page.evaluate(PIXELS), spikes, strict=True):
                counts = each[t, k].sum(-1)
                assert torch.equal(torch.tensor(drawn).double().view(counts.shape).flip(0), counts.double())
            summed = {0: ["P₁"], 1: ["P₂", "Q₁"], 2: ["P₃", "n₁", "Q₂"]}[node]
            said = page.evaluate(SAID)
            assert f"{name}, step {t + 1} of" in said
            for part in summed:
                there = graph == "whole" or not part.startswith("Q")
                assert (f"{part} of" in said or f"{part} as it is" in said) == there
                if there:
                    mean = maps[part][t, k].abs().mean().item()
                    size = float(
                        said.split(part, 1)[1].split("(", 1)[1].split(")")[0].removeprefix("mean size ")
                    )
                    assert size == pytest.approx(mean, rel=0.06)


def test_wires_into_the_chosen_node_light_up(show: Any) -> None:  # noqa: F811
    page = show("encoding_explorer", kept=True)
    for graph in GRAPHS:
        for node, wanted in enumerate((["P₁"], ["P₂", "Q₁"], ["P₃", "Q₂", "n₁"])):
            lines = page.evaluate(SET_AND_READ, [{"node": str(node), "graph": graph}, "lines"])
            lit = [name for name, width in zip(lines["name"], lines["width"], strict=True) if width > 2]
            assert lit == [name for name in wanted if graph == "whole" or not name.startswith("Q")]
            frames = page.evaluate(SET_AND_READ, [{}, "frames"])
            assert frames["color"].index("#000000") == node


def test_the_first_node_hears_no_other_and_the_others_change_when_maps_are_cut() -> None:
    whole, cut = (expected(graph)[0] for graph in GRAPHS)
    assert torch.equal(whole[1], cut[1])
    assert not torch.equal(whole[2], cut[2])
    assert not torch.equal(whole[3], cut[3])


def test_graph_answers_keyboard_and_buttons(show: Any) -> None:  # noqa: F811
    page = show("encoding_explorer")
    assert_walks(page, slider="time step", words="Ankle boot, step {} of 4", last=4)
    page.get_by_label("node", exact=True).select_option("n₁")
    assert says(page, "and no other node")
    page.get_by_label("node", exact=True).select_option("n₂")
    page.get_by_label("graph", exact=True).select_option(GRAPHS["cut"])
    assert says(page, "With Q₁,")
