"""An event camera before a picture that moves: choose the picture, direction, speed and threshold."""

from __future__ import annotations

import torch
from bokeh.models import Button, Column, ColumnDataSource, CustomJS, Range1d
from bokeh.plotting import figure

from snnmlp_edu.data import load_embedded
from snnmlp_edu.data.embedded import CLASS_NAMES
from snnmlp_edu.plots import REFERENCE, SPIKE

from .style import controls, legend, panel, player, select, slider, spoken, square, stack, wire

SHOWN = ("Pullover", "Ankle boot", "Trouser", "Bag")  # the first test image of each
WAYS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}  # (down, right), as in chapter 16
STEPS = 8
HIGHEST = 400  # of the scale of the counts, which stays: pixels that get brighter, or darker, in one step
ON, OFF, NONE = SPIKE, "#000000", "#FFFFFF"
CHOSEN = "#CCCCCC"  # behind the bars of the step that is shown


def pictures() -> dict[str, torch.Tensor]:
    """Some garments, and upright bars, as bytes `[28, 28]`."""
    test = load_embedded("test")
    first = {name: int((test.labels == CLASS_NAMES.index(name)).nonzero()[0]) for name in SHOWN}
    shown = {name: test.images[number, 0] for name, number in first.items()}
    bars = 255 * (torch.arange(28) // 7 % 2).to(torch.uint8)
    return shown | {"Bars": bars.expand(28, 28)}


def build() -> Column:
    """The controls, what the camera sees and sends at one step, and the events of all steps."""
    shown = pictures()
    side = len(shown["Bars"])
    picture = select("picture", list(shown), "Pullover")
    light = select("light and dark", [("as it is", "as they are"), ("swapped", "swapped")], "as it is")
    direction = select("direction", list(WAYS), "right")
    speed = slider("speed (pixels a step)", 0, 7, 1, 1, name="speed")
    contrast = slider("contrast threshold", 0.05, 2.5, 0.05, 0.3, format="0.00", name="contrast")
    step = slider("time step", 1, STEPS, 1, 1, name="step")
    back, forth = Button(label="Back", margin=(6, 4, 6, 12)), Button(label="Next", margin=(6, 16, 6, 4))
    move = "step.value = Math.min(step.end, Math.max(1, step.value + by))"
    back.js_on_event("button_click", CustomJS(args={"step": step, "by": -1}, code=move))
    forth.js_on_event("button_click", CustomJS(args={"step": step, "by": 1}, code=move))
    play = player(step)

    # Filled by the script when the page is ready.
    count = side * side
    places = {"x": [k % side + 0.5 for k in range(count)], "y": [k // side + 0.5 for k in range(count)]}
    empty = {"light": [0] * count, "on": [0] * count, "off": [0] * count}
    colors = {"view": [NONE] * count, "color": [NONE] * count}
    pixels = ColumnDataSource(places | empty | colors, name="pixels")
    none = [0] * STEPS
    counts = ColumnDataSource(
        {"step": list(range(1, STEPS + 1)), "on": none, "off": none, "below": none}, name="counts"
    )
    now = ColumnDataSource({"step": [1]})

    screens = [
        _screen(side, title, color, pixels)
        for title, color in (("what the camera sees", "view"), ("what it sends", "color"))
    ]
    plot = panel(
        190,
        x_range=Range1d(0.4, STEPS + 0.6),
        y_range=Range1d(-HIGHEST, HIGHEST),
        x_axis_label="time step",
        y_axis_label="events (OFF down)",
    )
    plot.vbar("step", 0.96, HIGHEST, -HIGHEST, fill_color=CHOSEN, line_color=None, source=now)
    plot.vbar("step", 0.7, "on", 0, fill_color=ON, line_color=None, source=counts)
    plot.vbar("step", 0.7, 0, "below", fill_color=OFF, line_color=None, source=counts)
    plot.xaxis.ticker = list(range(1, STEPS + 1))
    plot.yaxis.ticker = list(range(-HIGHEST, HIGHEST + 1, HIGHEST // 2))
    plot.yaxis.major_label_overrides = {-HIGHEST: str(HIGHEST), -HIGHEST // 2: str(HIGHEST // 2)}

    key = legend(
        {
            "ON: brighter": square(ON, ON),
            "OFF: darker": square(OFF, REFERENCE),
            "no event": square(NONE, REFERENCE),
            "the chosen step": square(CHOSEN, CHOSEN),
        }
    )
    said = spoken()
    said.min_height = 90
    widgets = [picture, light, direction, speed, contrast, step]
    names = ("picture", "light", "direction", "speed", "contrast", "step")
    parts = dict(zip(names, widgets, strict=True))
    parts |= {
        "back": back,
        "next": forth,
        "play": play,
        "pixels": pixels,
        "counts": counts,
        "now": now,
        "said": said,
    }
    levels = torch.log(torch.arange(256, dtype=torch.float64) / 255 + 0.1)  # the rule of chapter 16
    constants = {
        "pictures": {name: image.flatten().tolist() for name, image in shown.items()},
        "levels": levels.tolist(),
        "ways": {name: list(way) for name, way in WAYS.items()},
        "side": side,
        "colors": [NONE, ON, OFF],
    }
    callback = wire("event_camera", widgets, parts | {"constants": constants})
    play.js_on_change("label", callback)  # what is said depends on it
    return stack(controls(*widgets, back, forth, play), key, controls(*screens), said, plot)


def _screen(side: int, title: str, color: str, pixels: ColumnDataSource) -> figure:
    """A small square that shows each pixel in the colour that this column names."""
    plot = panel(165, x_range=Range1d(0, side), y_range=Range1d(side, 0), min_width=150, max_width=270)
    plot.sizing_mode, plot.aspect_ratio = "scale_width", 0.93  # with the title, a square
    plot.axis.visible = False
    plot.grid.visible = False
    plot.min_border = 4
    plot.outline_line_color = REFERENCE
    plot.title.text = title
    plot.title.text_font_size, plot.title.text_font_style = "14px", "normal"
    plot.rect("x", "y", 1, 1, fill_color=color, line_color=color, line_width=1, source=pixels)
    return plot
