"""Five wirings of a block under the reader's hands: what travels on each wire, and the audit's verdict.

All that is shown is computed when the page is built: a small calibrated network with each wiring, folded,
audited, and run on four garments.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from bokeh.models import Column, ColumnDataSource, Range1d
from torch import Tensor

from snnmlp_edu import create_model
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.config import Skip
from snnmlp_edu.data import load_embedded
from snnmlp_edu.mfi import audit, calibrate, fold_batch_norm
from snnmlp_edu.model.mixing import MixerBlock
from snnmlp_edu.model.network import SpikingNetwork, Stage
from snnmlp_edu.plots import CURRENT, MEMBRANE, REFERENCE, SPIKE

from .style import controls, panel, select, slider, spoken, stack, wire

KINDS: tuple[Skip, ...] = ("stage", "membrane", "spike_bn", "spike", "none")  # those of chapter 07
BLOCKS = 3  # in the first stage of the small network, which is shown; the second has one
BARS = 24  # of the histogram of a current
DIGITS = 6  # of what the page is told
WIRES = {
    "in": "what the token mixing reads",
    "tau": "current of the token mixing, τ",
    "first": "what the first shortcut adds",
    "sum1": "what the first neurons get",
    "middle": "what the channel mixing reads",
    "c": "current of the channel mixing, c",
    "second": "what the second shortcut adds",
    "sum2": "what the last neurons get",
    "out": "what leaves the block",
}
READ_BY_MAPS = ("in", "middle", "out")


def garments() -> Tensor:
    """Four images of the test set, as the network takes them."""
    images: Tensor = load_checkpoint("mlp_spe_nano").preprocessing(load_embedded("test").images[:4])
    return images.double()


@functools.cache
def small_network(kind: Skip) -> SpikingNetwork:
    """The network of chapter 07 with that wiring, folded: two stages, not trained, and every layer fires."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("mlp_spe_nano", skip=kind, depths=(BLOCKS, 1), dim=6, patch_size=4)
    network = calibrate(model.double(), garments(), rate=0.25)
    assert isinstance(network, SpikingNetwork)
    return fold_batch_norm(network, strict=False)


def values_on_wires(
    kind: Skip, block: MixerBlock, spikes: Tensor, carried: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """What travels on each wire of one block, by the equations; and what its shortcut hands on."""
    token, channel = block.token, block.channel
    fire, fire_last = token.fuse.neuron, channel.down.neuron
    found = {"in": spikes, "tau": token.current(spikes)}
    match kind:
        case "stage" | "membrane":
            found["first"] = carried
            found["sum1"] = carried + found["tau"]
            found["middle"] = fire(found["sum1"])
            found["second"] = found["sum1"]
        case "spike_bn":
            found["first"] = block.get_submodule("token_skip_norm")(spikes)
            found["sum1"] = found["first"] + found["tau"]
            found["middle"] = fire(found["sum1"])
            found["second"] = block.get_submodule("channel_skip_norm")(found["middle"])
        case "spike":
            found["first"] = spikes
            found["sum1"] = found["tau"]
            found["middle"] = fire(found["sum1"]) + spikes
            found["second"] = found["middle"]
        case "none":
            found["sum1"] = found["tau"]
            found["middle"] = fire(found["sum1"])
    found["c"] = channel.current(found["middle"])
    if kind in ("spike", "none"):
        found["sum2"] = found["c"]
        found["out"] = fire_last(found["sum2"]) + (found["second"] if kind == "spike" else 0)
    else:
        found["sum2"] = found["second"] + found["c"]
        found["out"] = fire_last(found["sum2"])
    return found, found["sum2"] if kind == "membrane" else carried


def shares(counts: Tensor) -> list[float]:
    """Counts as parts of their sum."""
    return [round(each, DIGITS) for each in (counts / counts.sum()).tolist()]


def histogram(values: Tensor) -> dict[str, Any]:
    """In words, the set of the values or `real`; and bars: their places, their width, and their shares."""
    values = values.flatten()
    if bool((values == values.round()).all()):
        places, counts = values.unique(return_counts=True)
        numbers = [int(each) for each in places]
        words = "{" + ", ".join(map(str, numbers)) + "}"
        other = round(float(((values != 0) & (values != 1)).double().mean()), DIGITS)
        return {
            "words": words,
            "whole": True,
            "x": numbers,
            "share": shares(counts),
            "width": 0.8,
            "other": other,
        }
    end = float(values.abs().max())
    counts = torch.histc(values, BARS, -end, end)
    width = 2 * end / BARS
    return {
        "words": "real",
        "whole": False,
        "x": [round(-end + (k + 0.5) * width, DIGITS) for k in range(BARS)],
        "share": shares(counts),
        "width": round(width, DIGITS),
        "other": 1.0,
    }


@functools.cache
@torch.no_grad()
def facts(kind: Skip) -> dict[str, Any]:
    """The audit's verdict on the small network with that wiring, and what is on the wires of its blocks."""
    network, images = small_network(kind), garments()
    report = audit(network, images[:2])
    stage = network.stages[0]
    assert isinstance(stage, Stage)
    carried = stage.embedding(images)
    spikes = stage.neuron(carried)
    blocks = []
    for number, block in enumerate(stage.blocks):
        assert isinstance(block, MixerBlock)
        found, carried = values_on_wires(kind, block, spikes, carried)
        spikes = found["out"]
        path = f"stages.0.blocks.{number}."
        blocks.append(
            {
                "multiply": sum(row.path.startswith(path) for row in report.violations),
                "wires": {name: histogram(values) for name, values in found.items()},
            }
        )
    return {"free": report.multiplication_free, "multiply": len(report.violations), "blocks": blocks}


# The diagram: x from 0 to 10, y from 0 (above) to 20; the block runs down at x = 2.8.
MAIN, NEAR, FAR = 2.8, 6.6, 8.4
TOP, BOTTOM = 0.5, 19.3
JOINS = {"before": (5.6, 14.0), "after": (9.2, 17.6)}


def drawing(kind: Skip) -> dict[str, Any]:
    """Lines, tips, boxes and rings of one wiring, as columns, and where the label of each wire is."""
    lines: dict[str, list[Any]] = {"xs": [], "ys": [], "color": []}
    tips: dict[str, list[Any]] = {"x": [], "y": [], "angle": [], "color": []}
    boxes: dict[str, list[Any]] = {"x": [], "y": [], "w": [], "h": [], "text": [], "fill": [], "line": []}
    rings: dict[str, list[Any]] = {"x": [], "y": [], "color": []}

    def path(color: str, *points: tuple[float, float]) -> None:
        lines["xs"].append([x for x, _ in points])
        lines["ys"].append([y for _, y in points])
        lines["color"].append(color)
        (x0, _), (x1, y1) = points[-2:]
        tips["x"].append(x1 + (0.14 if x1 < x0 else 0))
        tips["y"].append(y1 if x1 < x0 else y1 - 0.2)
        tips["angle"].append(math.pi / 2 if x1 < x0 else math.pi)
        tips["color"].append(color)

    def box(x: float, y: float, w: float, h: float, text: str, fill: str, line: str) -> None:
        for name, value in zip(boxes, (x, y, w, h, text, fill, line), strict=True):
            boxes[name].append(value)

    def ring(y: float, color: str) -> None:
        for name, value in zip(rings, (MAIN, y, color), strict=True):
            rings[name].append(value)

    currents, after = kind in ("stage", "membrane", "spike_bn"), kind == "spike"
    first, second = JOINS["after" if after else "before"]
    for begin, mixing, joins, returns, end in (
        (TOP, "token mixing", JOINS["before"][0], JOINS["after"][0], 10.4),
        (10.4, "channel mixing", JOINS["before"][1], JOINS["after"][1], BOTTOM),
    ):
        top = begin + 1.5 if begin == TOP else begin
        if begin == TOP:
            path(SPIKE, (MAIN, begin), (MAIN, top))
        path(CURRENT, (MAIN, top + 1.6), (MAIN, joins - 0.4 if currents else joins + 1.4))
        if currents:
            path(CURRENT, (MAIN, joins + 0.4), (MAIN, joins + 1.4))
            ring(joins, CURRENT)
        path(SPIKE, (MAIN, joins + 2.6), (MAIN, returns - 0.4 if after else end))
        if after:
            path(SPIKE, (MAIN, returns + 0.4), (MAIN, end))
            ring(returns, SPIKE)
        box(MAIN, top + 0.8, 4.4, 1.6, mixing, "#FFFFFF", REFERENCE)
        box(MAIN, joins + 2.0, 2.0, 1.2, "LIF", "#DCEBF5", MEMBRANE)

    into = 0.45  # from a rail to the ring it meets
    if kind in ("stage", "membrane"):
        path(CURRENT, (FAR, TOP), (FAR, first), (MAIN + into, first))
        path(CURRENT, (MAIN, first + 0.8), (NEAR, first + 0.8), (NEAR, second), (MAIN + into, second))
        if kind == "stage":
            path(CURRENT, (FAR, first), (FAR, BOTTOM))
        else:
            path(CURRENT, (MAIN, second + 0.8), (FAR, second + 0.8), (FAR, BOTTOM))
    elif kind == "spike_bn":
        for begin, joins, y in ((1.0, first, 3.2), (9.6, second, 11.9)):
            path(SPIKE, (MAIN, begin), (NEAR, begin), (NEAR, y - 0.6))
            path(CURRENT, (NEAR, y + 0.6), (NEAR, joins), (MAIN + into, joins))
            box(NEAR, y, 1.6, 1.2, "BN", "#EEEEEE", REFERENCE)
    elif kind == "spike":
        path(SPIKE, (MAIN, 1.0), (NEAR, 1.0), (NEAR, first), (MAIN + into, first))
        path(SPIKE, (MAIN, first + 0.8), (NEAR, first + 0.8), (NEAR, second), (MAIN + into, second))

    # Labels of the block are left of it, where no shortcut is drawn.
    heights = {"in": 1.2, "tau": 4.5, "middle": 9.9 if after else 9.2, "c": 12.9, "out": 18.6}
    if currents:
        heights |= {"sum1": 6.4, "sum2": 14.8}  # without a sum it is the current above it
    places = {name: (MAIN - 0.35, y, "right") for name, y in heights.items()}
    if kind in ("stage", "membrane"):
        places |= {"first": (FAR + 0.25, 2.4, "left"), "second": (NEAR + 0.25, 10.4, "left")}
    elif kind != "none":
        first_y, second_y = (4.6, 13.2) if currents else (5.4, 13.8)
        places |= {
            "first": (NEAR + 0.25, first_y, "left"),
            "second": (NEAR + 0.25, second_y, "left"),
        }
    return {"lines": lines, "tips": tips, "boxes": boxes, "rings": rings, "places": places}


def build() -> Column:
    """The controls, the sentence with the verdict, the diagram of the block, and the histogram of a wire."""
    names = {"stage": "stage (released)"}
    options: list[tuple[str, str]] = [(kind, names.get(kind, kind)) for kind in KINDS]
    kinds = select("wiring", options, "stage")
    place = slider("block of the stage", 1, BLOCKS, 1, BLOCKS, name="block")
    chosen = select("wire", list(WIRES.items()), "in")

    start = drawing("stage")
    lines, tips, boxes, rings = (
        ColumnDataSource(start[part], name=part) for part in ("lines", "tips", "boxes", "rings")
    )
    labels = ColumnDataSource(
        {"wire": [], "x": [], "y": [], "align": [], "text": [], "color": []}, name="labels"
    )
    here = ColumnDataSource({"x": [], "y": []}, name="here")
    bars = ColumnDataSource({"x": [], "share": [], "color": []}, name="bars")

    plot = panel(560, x_range=Range1d(0, 10.4), y_range=Range1d(20, 0), max_width=430, min_width=300)
    plot.axis.visible = False
    plot.grid.grid_line_color = None
    plot.multi_line("xs", "ys", color="color", line_width=2.5, source=lines)
    plot.scatter("x", "y", marker="triangle", angle="angle", size=11, color="color", source=tips)
    plot.rect("x", "y", "w", "h", fill_color="fill", line_color="line", line_width=1.5, source=boxes)
    middle = {"text_align": "center", "text_baseline": "middle"}
    plot.text("x", "y", "text", text_font_size="13px", source=boxes, **middle)
    plot.scatter("x", "y", size=20, fill_color="white", line_color="color", line_width=2, source=rings)
    plot.scatter("x", "y", marker="cross", size=10, line_color="color", line_width=2, source=rings)
    plot.rect("x", "y", 2.2, 0.9, fill_color="#FFF3C4", line_color=REFERENCE, source=here)
    plot.text(
        *("x", "y", "text"),
        **{"text_color": "color", "text_align": "align"},
        **{"text_font_size": "13px", "text_baseline": "middle"},
        source=labels,
    )

    axes = {"x_axis_label": "value on the wire", "y_axis_label": "share of the values"}
    below = panel(300, x_range=Range1d(-1, 8), y_range=Range1d(0, 1), min_width=300, **axes)
    bar = below.vbar(x="x", top="share", width=0.8, color="color", line_color=None, source=bars)

    said = spoken()
    said.min_height = 90
    widgets = [kinds, place, chosen]
    parts = {
        **{"kinds": kinds, "place": place, "chosen": chosen, "said": said},
        **{"lines": lines, "tips": tips, "boxes": boxes, "rings": rings, "labels": labels, "here": here},
        **{"bars": bars, "bar": bar.glyph, "below": below, "read": list(READ_BY_MAPS), "titles": WIRES},
        "drawings": {kind: drawing(kind) for kind in KINDS},
        "networks": {kind: facts(kind) for kind in KINDS},
        "colors": {"spike": SPIKE, "current": CURRENT},
    }
    wire("wiring_explorer", widgets, parts)
    return stack(controls(*widgets), said, controls(plot, below))
