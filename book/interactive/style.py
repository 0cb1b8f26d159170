"""One look for all explorers: the book's colours, letters that can be read on a phone, nothing to drag."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column, row
from bokeh.models import Button, Column, CustomJS, Div, InlineStyleSheet, Row, Select, Slider
from bokeh.palettes import interp_palette
from bokeh.plotting import figure

from snnmlp_edu.plots import CURRENT, MEMBRANE

from .embed import FOLDER

STRETCH = {"sizing_mode": "stretch_width"}
WIDGET = {"min_width": 145, "margin": (6, 12, 6, 12), **STRETCH}
GARMENT = tuple(interp_palette(("#FFFFFF", CURRENT, "#00241B"), 256))  # as in the book's figures
LETTERS = ".bk-slider-title, label, .bk-btn { font-size: 14px; white-space: normal; }"
# Bokeh's own sliders and lists are light grey on white, and lighter still on a page that is dimmed.
EDGES = f"""
.noUi-handle {{ background: {MEMBRANE}; border-color: #003B5C; box-shadow: none; }}
.noUi-target, .bk-input {{ border-color: #6E6E6E; }}
"""


def panel(height: int, **options: Any) -> figure:
    """A plot as wide as its column. It has no tools: a finger that meets it scrolls the page."""
    plot = figure(height=height, toolbar_location=None, tools="", min_border_right=12, **STRETCH, **options)
    plot.background_fill_color = plot.border_fill_color = "white"
    plot.outline_line_color = None
    plot.grid.grid_line_color = "#E5E5E5"
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.axis_label_text_color = axis.major_label_text_color = "#222222"
        axis.minor_tick_line_color = None
    return plot


def slider(title: str, start: float, end: float, step: float, value: float, **options: Any) -> Slider:
    """A slider with room for a finger."""
    return Slider(
        title=title,
        start=start,
        end=end,
        step=step,
        value=value,
        bar_color="#7FB2D5",
        stylesheets=[InlineStyleSheet(css=LETTERS + EDGES)],
        **WIDGET,
        **options,
    )


def select(title: str, options: list[str] | list[tuple[str, str]], value: str) -> Select:
    """A drop-down list."""
    sheet = InlineStyleSheet(css=LETTERS + EDGES)
    return Select(title=title, options=options, value=value, stylesheets=[sheet], **WIDGET)


def player(step: Slider) -> Button:
    """A button that plays the steps of a slider and pauses them; what it would do next is its label."""
    play = Button(label="Play", margin=(6, 12, 6, 12), width=72)
    code = (FOLDER / "player.js").read_text(encoding="utf-8")
    callback = CustomJS(args={"play": play, "step": step}, code=code)
    play.js_on_event("button_click", callback)
    step.js_on_change("value", callback)
    return play


def spoken() -> Div:
    """A line of text that screen readers announce when it changes."""
    return Div(html_attributes={"role": "status"}, styles={"font-size": "15px"}, min_height=44, **STRETCH)


def square(fill: str, edge: str) -> str:
    """The mark of a legend that stands for a square, as CSS."""
    return f"box-sizing: border-box; width: 14px; height: 14px; background: {fill}; border: 2px solid {edge}"


def dot(fill: str, edge: str) -> str:
    """The mark of a legend that stands for a dot."""
    return f"{square(fill, edge)}; border-radius: 50%"


def line(color: str, dash: str = "solid", width: int = 3) -> str:
    """The mark of a legend that stands for a line, `solid`, `dashed` or `dotted`."""
    return f"width: 22px; border-top: {width}px {dash} {color}"


def legend(entries: dict[str, str]) -> Div:
    """What the marks of a plot mean, words -> mark: text that wraps on a phone, unlike Bokeh's own legend."""
    pair = "display: inline-flex; align-items: center; gap: 6px; margin: 0 14px 4px 0; vertical-align: middle"
    text = "".join(
        f'<span style="{pair}"><i style="flex: none; {mark}"></i>{words}</span> '
        for words, mark in entries.items()
    )
    return Div(text=text, styles={"font-size": "14px"}, margin=(4, 12, 4, 12), **STRETCH)


def controls(*widgets: Any) -> Row:
    """Controls side by side where there is room, and below each other on a phone."""
    return row(*widgets, styles={"flex-wrap": "wrap"}, **STRETCH)


def wire(script: str, widgets: list[Any], parts: dict[str, Any]) -> CustomJS:
    """Run the script of this name when the page is ready, and whenever one of the widgets changes."""
    code = (FOLDER / f"{script}.js").read_text(encoding="utf-8")
    callback = CustomJS(args=parts, code=code, name=script)
    for widget in widgets:
        if isinstance(widget, Button):
            widget.js_on_event("button_click", callback)
        else:
            widget.js_on_change("active" if hasattr(widget, "active") else "value", callback)
    return callback


def stack(*parts: Any) -> Column:
    """Everything below each other."""
    return column(*parts, **STRETCH)
