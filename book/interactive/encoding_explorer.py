"""The graph of spiking patch encoding at work: what arrives, what each node sums, and what fires."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from bokeh.models import Button, Column, ColumnDataSource, CustomJS, LinearColorMapper, Range1d
from bokeh.palettes import interp_palette
from torch import Tensor, nn
from torch.nn import functional

from snnmlp_edu import record
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.embedded import CLASS_NAMES
from snnmlp_edu.model.network import SpikingNetwork, Stage
from snnmlp_edu.model.patches import SpikingPatchEncoding
from snnmlp_edu.plots import CURRENT, SPIKE

from .style import GARMENT, controls, legend, line, panel, select, slider, spoken, stack, wire

SHOWN = ("Ankle boot", "Pullover", "Trouser", "Bag")  # the first test image of each
ARRIVING = "stages.0.blocks.0.channel.down.neuron"
NODES = ("n₁", "n₂", "n₃")
GRAPHS = {"whole": "whole graph", "cut": "without Q₁ and Q₂"}
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@functools.cache
def trained() -> tuple[SpikingNetwork, Tensor, Tensor]:
    """The trained network, the garments as they are, and as the network takes them."""
    checkpoint, test = load_checkpoint("mlp_spe_nano", neuron={"backend": "eager"}), load_embedded("test")
    first = [int((test.labels == CLASS_NAMES.index(name)).nonzero()[0]) for name in SHOWN]
    network = checkpoint.model.double().eval()
    assert isinstance(network, SpikingNetwork)
    return network, test.images[first], checkpoint.preprocessing(test.images[first]).double()


def addends(encoding: nn.Module, spikes: Tensor, graph: str) -> list[dict[str, Tensor]]:
    """What each node sums, by the equations: name -> current `[T, B, H, W, C]`."""
    assert isinstance(encoding, SpikingPatchEncoding)
    patch = encoding.down(spikes).chunk(3, dim=-1)
    found: list[dict[str, Tensor]] = [{f"P{NODES[k][1]}": patch[k]} for k in range(3)]
    found[2]["n₁"] = patch[0]
    if graph == "whole":
        for k, (q, fire) in enumerate(zip(encoding.between, encoding.neurons, strict=True)):
            current = torch.stack(list(found[k].values())).sum(0)
            found[k + 1][f"Q{NODES[k][1]}"] = q(fire(current))
    return found


def coded(counts: Tensor) -> str:
    """Whole numbers below 36, a character each."""
    return "".join(DIGITS[int(each)] for each in counts.flatten())


@functools.cache
@torch.no_grad()
def garments() -> dict[str, dict[str, Any]]:
    """For each garment the spikes of each step: that arrive, and on each node, with and without Q."""
    network, _, images = trained()
    stage = network.stages[1]
    assert isinstance(stage, Stage)
    arriving = record(network, images)[ARRIVING]
    found: dict[str, dict[str, Any]] = {
        name: {"arriving": [coded(step) for step in arriving[:, k].sum(-1)]} for k, name in enumerate(SHOWN)
    }
    for graph in GRAPHS:
        for node, parts in enumerate(addends(stage.embedding, arriving, graph)):
            fired = stage.neuron(torch.stack(list(parts.values())).sum(0))
            for k, name in enumerate(SHOWN):
                strength = {part: [_mean(step) for step in each[:, k]] for part, each in parts.items()}
                found[name][f"{graph} {node}"] = {
                    "fired": [coded(step) for step in fired[:, k].sum(-1)],
                    "rate": [round(float(step.mean()), 6) for step in fired[:, k]],
                    "sums": strength,
                }
    return found


def _mean(current: Tensor) -> float:
    return float(f"{current.abs().mean().item():.4g}")


# The drawing: pictures with a side of 2.6; nodes below each other, n1 above.
SIZE, LEFT, RIGHT = 2.6, 0.2, 4.2
MIDDLES = (8.4, 5.0, 1.6)


def wires() -> dict[str, list[Any]]:
    """All wires of the graph, as columns: name, the node they lead to, points, place of the name."""
    half, out, into = SIZE / 2, LEFT + SIZE + 0.1, RIGHT - 0.15
    rail = RIGHT + SIZE + 0.7
    rows: list[tuple[str, int, list[tuple[float, float]], tuple[float, float], str]] = [
        (
            f"P{NODES[k][1]}",
            k,
            [(out, MIDDLES[1]), (into, y)],
            (3.1, (MIDDLES[1] + y) / 2 + (-0.3 if k == 2 else 0.3)),
            SPIKE,
        )
        for k, y in enumerate(MIDDLES)
    ]
    for k in range(2):
        above, below = MIDDLES[k] - half - 0.1, MIDDLES[k + 1] + half + 0.12
        x = RIGHT + 0.75 * SIZE
        rows.append((f"Q{NODES[k][1]}", k + 1, [(x, above), (x, below)], (x + 0.2, below + 0.1), SPIKE))
    corner = [(RIGHT + SIZE + 0.1, MIDDLES[0]), (rail, MIDDLES[0]), (rail, MIDDLES[2])]
    rows.append(("n₁", 2, [*corner, (RIGHT + SIZE + 0.15, MIDDLES[2])], (rail + 0.1, MIDDLES[1]), CURRENT))
    return {
        "name": [row[0] for row in rows],
        "node": [row[1] for row in rows],
        "xs": [[x for x, _ in row[2]] for row in rows],
        "ys": [[y for _, y in row[2]] for row in rows],
        "x": [row[3][0] for row in rows],
        "y": [row[3][1] for row in rows],
        "tip_x": [row[2][-1][0] for row in rows],
        "tip_y": [row[2][-1][1] for row in rows],
        "angle": [np.arctan2(b[1] - a[1], b[0] - a[0]) - np.pi / 2 for a, b in (row[2][-2:] for row in rows)],
        "lit": [row[4] for row in rows],
    }


def build() -> Column:
    """The controls, the sentence, and the graph with a picture of the spikes at each place."""
    data = garments()
    network, pictures, _ = trained()
    steps = network.config.time_steps
    garment = select("garment", list(SHOWN), SHOWN[0])
    step = slider("time step", 1, steps, 1, 1, name="step")
    node = select("node", [(str(k), name) for k, name in enumerate(NODES)], "2")
    graph = select("graph", list(GRAPHS.items()), "whole")
    back, forth = Button(label="Back", margin=(6, 4, 6, 12)), Button(label="Next", margin=(6, 16, 6, 4))
    move = "step.value = Math.min(step.end, Math.max(1, step.value + by))"
    back.js_on_event("button_click", CustomJS(args={"step": step, "by": -1}, code=move))
    forth.js_on_event("button_click", CustomJS(args={"step": step, "by": 1}, code=move))

    plot = panel(560, x_range=Range1d(0, 8.2), y_range=Range1d(0, 10.2), max_width=470)
    plot.height, plot.sizing_mode, plot.aspect_ratio = None, "scale_width", 0.82
    plot.axis.visible = False
    plot.grid.grid_line_color = None
    plot.min_border = 0
    drawing = wires()
    same = ["#C8C8C8"] * len(drawing["name"])
    lines = ColumnDataSource(drawing | {"color": same, "width": [2.0] * len(same)}, name="lines")
    plot.multi_line("xs", "ys", color="color", line_width="width", source=lines)
    plot.scatter("tip_x", "tip_y", marker="triangle", angle="angle", size=11, color="color", source=lines)
    small = {"text_font_size": "13px", "text_baseline": "middle"}
    plot.text("x", "y", "name", source=lines, text_color="#222222", **small)

    greens = LinearColorMapper(palette=GARMENT, low=0, high=255)
    shown = functional.pad(pictures, (2, 2, 2, 2)).flatten(1, -3).numpy()[:, 0]
    place = {"x": LEFT, "y": MIDDLES[0] - SIZE / 2, "dw": SIZE, "dh": SIZE}
    drawn = [plot.image([each[::-1]], color_mapper=greens, **place) for each in shown]
    channels = network.config.widths[0], network.config.widths[1] // 3
    sides = network.config.grids[0][0], network.config.grids[1][0]
    maps = []
    for k, (x, y) in enumerate([(LEFT, MIDDLES[1]), *((RIGHT, y) for y in MIDDLES)]):
        most, side = (channels[0], sides[0]) if k == 0 else (channels[1], sides[1])
        oranges = interp_palette(("#FFFFFF", SPIKE, "#3A1900"), most + 1)
        source = ColumnDataSource({"image": [np.zeros((side, side))]})
        mapper = LinearColorMapper(palette=oranges, low=-0.5, high=most + 0.5)
        plot.image("image", x=x, y=y - SIZE / 2, dw=SIZE, dh=SIZE, color_mapper=mapper, source=source)
        maps.append(source)
    middles = {"x": [RIGHT + SIZE / 2] * 3, "y": list(MIDDLES)}
    frames = ColumnDataSource(middles | {"color": ["#C8C8C8"] * 3, "width": [1.0] * 3}, name="frames")
    plot.rect(*("x", "y", SIZE, SIZE), fill_color=None, line_color="color", line_width="width", source=frames)
    plot.rect(LEFT + SIZE / 2, MIDDLES[1], SIZE, SIZE, fill_color=None, line_color="#C8C8C8")
    words = {
        "x": [LEFT, *[RIGHT] * 3],
        "y": [each + SIZE / 2 + 0.25 for each in (MIDDLES[1], *MIDDLES)],
        "text": ["arriving", *NODES],
    }
    labels = ColumnDataSource(words, name="labels")
    plot.text("x", "y", "text", source=labels, text_color="#222222", **small)

    said = spoken()
    said.min_height = 110
    result = ColumnDataSource({"rate": []}, name="result")
    key = legend(
        {
            "spikes, into the chosen node": line(SPIKE),
            "a current, into the chosen node": line(CURRENT),
            "into another node": line("#C8C8C8", width=2),
        }
    )
    parts = {
        **{"garment": garment, "step": step, "node": node, "graph": graph, "back": back, "next": forth},
        **{"lines": lines, "frames": frames, "labels": labels, "maps": maps, "drawn": drawn, "said": said},
        **{"result": result, "shown": list(SHOWN), "names": list(NODES), "garments": data},
        "room": sides[1] ** 2 * channels[1],
    }
    wire("encoding_explorer", [garment, step, node, graph], parts)
    return stack(controls(garment, step, back, forth, node, graph), said, plot, key)
