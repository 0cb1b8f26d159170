"""The three votes of one token, step by step: currents, membranes and spikes of a trained block."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from bokeh.models import Button, Column, ColumnDataSource, CustomJS, LinearColorMapper, Range1d, Span
from bokeh.transform import dodge
from torch.nn import functional

from snnmlp_edu import LIF
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.embedded import CLASS_NAMES
from snnmlp_edu.model.neurons import lif_trace
from snnmlp_edu.plots import CURRENT, MEMBRANE, PALETTE, REFERENCE, SPIKE

from .style import GARMENT, controls, legend, line, panel, select, slider, spoken, square, stack, wire

SHOWN = ("Ankle boot", "Pullover", "Trouser", "Sandal", "Bag")  # the first test image of each
TITLES = ("first vote: s = LIF(h)", "second vote: s′ = LIF(h + τ)", "third vote: s″ = LIF(h + τ + c)")
NAMES = ("first", "second", "third")


@cache
def garments() -> dict[str, dict[str, Any]]:
    """For each garment the token whose votes change most: its place, and all numbers of its three votes."""
    checkpoint, test = load_checkpoint("mlp_spe_nano"), load_embedded("test")
    for module in checkpoint.model.modules():
        if isinstance(module, LIF):  # a few images: a compiler would take longer than it saves
            module.config = replace(module.config, backend="eager")
    return {name: _votes(checkpoint, test.images[_first(test.labels, name)]) for name in SHOWN}


def _first(labels: torch.Tensor, name: str) -> int:
    return int((labels == CLASS_NAMES.index(name)).nonzero()[0])


@torch.no_grad()
def _votes(checkpoint: Any, image: torch.Tensor) -> dict[str, Any]:
    stage = checkpoint.model.eval().stages[0]
    block, config = stage.blocks[0], checkpoint.model.config.neuron
    h = stage.embedding(checkpoint.preprocessing(image[None]))
    heard = h + block.token.current(stage.neuron(h))
    hidden = block.channel.up.neuron(block.channel.up.current(block.token.fuse.neuron(heard)))
    currents = torch.stack([h, heard, heard + block.channel.down.current(hidden)])[:, :, 0]
    votes = [lif_trace(each, config) for each in currents]
    spikes = torch.stack([vote.spikes for vote in votes])  # [3, T, H, W, C]
    changes = (spikes[1:] != spikes[:-1]).sum(dim=(0, 1, -1))
    row, column = divmod(int(changes.argmax()), changes.shape[-1])
    membranes = torch.stack([vote.membrane for vote in votes])
    left = config.beta * torch.where(spikes > 0, 0.0, membranes)  # hard reset
    left = functional.pad(left[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))  # step t starts with what t - 1 left
    kept = {"current": currents, "membrane": membranes, "left": left}
    token: dict[str, Any] = {name: _short(each[:, :, row, column]) for name, each in kept.items()}
    token["fired"] = spikes[:, :, row, column].int().tolist()
    token["hidden"] = hidden[:, 0, row, column].sum(-1).int().tolist()
    token["room"] = hidden.shape[-1]
    return token | {"row": row, "column": column, "picture": functional.pad(image[0], (2, 2, 2, 2)).numpy()}


def _short(values: torch.Tensor) -> Any:
    """Nested lists with six digits: more would only make the page larger."""
    if values.dim():
        return [_short(each) for each in values]
    return float(f"{values.item():.6g}")


def build() -> Column:
    """The controls, the garment with its token, and a panel for each vote."""
    tokens = garments()
    first = tokens[SHOWN[0]]
    steps, channels = len(first["current"][0]), len(first["current"][0][0])
    garment = select("garment", list(SHOWN), SHOWN[0])
    step = slider("time step", 1, steps, 1, 1, name="step")
    back, forth = Button(label="Back", margin=(6, 4, 6, 12)), Button(label="Next", margin=(6, 16, 6, 4))
    move = "step.value = Math.min(step.end, Math.max(1, step.value + by))"
    back.js_on_event("button_click", CustomJS(args={"step": step, "by": -1}, code=move))
    forth.js_on_event("button_click", CustomJS(args={"step": step, "by": 1}, code=move))

    side = first["picture"].shape[-1]
    picture = panel(150, x_range=Range1d(0, side), y_range=Range1d(0, side), width=150)
    picture.sizing_mode = "fixed"
    picture.axis.visible = False
    picture.min_border = 4
    greens = LinearColorMapper(palette=GARMENT, low=0, high=255)
    drawn = [
        picture.image([token["picture"][::-1]], x=0, y=0, dw=side, dh=side, color_mapper=greens)
        for token in tokens.values()
    ]
    for token, image in zip(tokens.values(), drawn, strict=True):
        image.visible = token is first
    place = ColumnDataSource({"x": [0], "y": [0]}, name="place")
    size = 2  # pixels a side of a patch
    picture.rect("x", "y", 2 * size, 2 * size, fill_color=None, line_color=SPIKE, line_width=3, source=place)

    values = [abs(v) for t in tokens.values() for vote in t["current"] for row in vote for v in row]
    limit = float(int(max(values)) + 1)
    sources, panels = [], []
    for name, title in zip(NAMES, TITLES, strict=True):
        none = [0] * channels
        data = dict.fromkeys(("current", "membrane", "left", "fired"), none)
        places = {"x": list(range(1, channels + 1)), "top": [1.2 * limit] * channels}
        words = {each: [""] * channels for each in ("verdict", "fill", "line")}
        source = ColumnDataSource(data | places | words, name=name)
        plot = panel(190, x_range=Range1d(0.4, channels + 0.6), y_range=Range1d(-limit, 1.45 * limit))
        plot.title.text = title
        plot.title.text_font_size, plot.title.text_font_style = "14px", "normal"
        for field, by, color in (("current", -0.2, CURRENT), ("membrane", 0.2, MEMBRANE)):
            plot.vbar(dodge("x", by), 0.34, field, 0, fill_color=color, line_color=None, source=source)
        mark = {"fill_color": PALETTE[5], "line_color": "white", "height_units": "screen"}
        plot.rect(dodge("x", 0.2), "left", 0.44, 4, source=source, **mark)
        plot.scatter(
            "x",
            "top",
            size=15,
            marker="square",
            fill_color="fill",
            line_color="line",
            line_width=2,
            source=source,
        )
        plot.add_layout(Span(location=1, dimension="width", line_color=REFERENCE, line_dash="dashed"))
        plot.xaxis.ticker = list(range(1, channels + 1))
        plot.yaxis.ticker = list(range(-int(limit) + 1, int(limit), 2))
        plot.yaxis.axis_label = "current, membrane"
        sources.append(source)
        panels.append(plot)
    panels[-1].xaxis.axis_label, panels[-1].height = "channel", 215

    said = spoken()
    said.min_height = 110
    key = legend(
        {
            "fires": square(SPIKE, SPIKE),
            "fires, and did not in the vote before": square(SPIKE, "#000000"),
            "taken back: fired in the vote before": square("#FFFFFF", SPIKE),
            "silent": square("#F0F0F0", "#F0F0F0"),
            "current": square(CURRENT, CURRENT),
            "membrane before the reset": square(MEMBRANE, MEMBRANE),
            "what the last step left": line(PALETTE[5], width=5),
            "threshold": line(REFERENCE, "dashed", 2),
        }
    )
    numbers = {
        name: {field: value for field, value in token.items() if field != "picture"}
        for name, token in tokens.items()
    }
    parts = dict(zip(NAMES, sources, strict=True))
    parts |= {"garment": garment, "step": step, "back": back, "next": forth, "place": place}
    parts |= {
        "drawn": drawn,
        "shown": list(SHOWN),
        "tokens": numbers,
        "size": size,
        "side": side,
        "said": said,
    }
    wire("votes_explorer", [garment, step], parts)
    return stack(controls(garment, step, back, forth, picture), key, said, *panels)
