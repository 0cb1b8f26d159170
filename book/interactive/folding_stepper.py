"""A batch norm after a small linear map, folded away in four steps; or not, on the wrong axis."""

from __future__ import annotations

from bokeh.models import (
    Button,
    CheckboxGroup,
    Column,
    ColumnDataSource,
    CustomJS,
    Div,
    FixedTicker,
    Range1d,
)

from .style import controls, panel, select, slider, spoken, stack, wire

CONSTANTS = {
    "weight": [[0.8, -0.4, 0.6], [-0.2, 0.9, 0.5]],
    "bias": [0.1, -0.3],
    "norm": [
        {"mean": 0.5, "variance": 0.25, "gamma": 1.5, "delta": 0.2},
        {"mean": 0.2, "variance": 1.0, "gamma": 0.8, "delta": -0.1},
    ],
    "epsilon": 1e-5,
}


def build() -> Column:
    """The controls, the table of numbers, and the sentence that says what this step did."""
    step = slider("step", 1, 4, 1, 1, name="step")
    back, forth = Button(label="Back", margin=(6, 4, 6, 12)), Button(label="Next", margin=(6, 16, 6, 4))
    back.disabled = True
    move = "step.value = Math.min(4, Math.max(1, step.value + by))"
    back.js_on_event("button_click", CustomJS(args={"step": step, "by": -1}, code=move))
    forth.js_on_event("button_click", CustomJS(args={"step": step, "by": 1}, code=move))
    axis = select(
        "statistics for each",
        [("channel", "output channel"), ("token", "token (as released)")],
        "channel",
    )
    inputs = CheckboxGroup(
        labels=["x₁ fires", "x₂ fires", "x₃ fires"],
        active=[0, 2],
        inline=True,
        margin=(6, 16, 6, 12),
        styles={"font-size": "14px"},
        name="inputs",
    )
    gamma = slider("γ, first", -2, 2, 0.1, 1.5, name="gamma")
    variance = slider("σ², first", 0.05, 4, 0.05, 0.25, name="variance")

    cells = ColumnDataSource({"x": [], "y": [], "text": [], "fill": []}, name="cells")
    result = ColumnDataSource({"name": [], "z": [], "shown": []}, name="result")
    plot = panel(230, x_range=Range1d(-0.5, 8.5), y_range=Range1d(2.6, -0.5))
    plot.rect("x", "y", 0.94, 0.86, fill_color="fill", line_color=None, source=cells)
    numbers = plot.text(
        "x", "y", "text", text_align="center", text_baseline="middle", text_font_size="12px", source=cells
    )
    plot.grid.grid_line_color = None
    plot.xaxis.visible = False
    plot.yaxis.axis_line_color = plot.yaxis.major_tick_line_color = None
    plot.yaxis.ticker = FixedTicker(ticks=[1, 2])

    said = spoken()
    said.min_height = 90
    key = Div(
        text="Orange: weights whose input fires. Blue: applied after W. Green: the normalised current z.",
        styles={"font-size": "14px"},
        sizing_mode="stretch_width",
    )
    parts = {
        **{"step": step, "back": back, "next": forth, "axis": axis, "inputs": inputs, "gamma": gamma},
        **{
            "variance": variance,
            "cells": cells,
            "result": result,
            "letters": numbers.glyph,
            "plot": plot,
            "names": plot.yaxis[0],
            "said": said,
        },
        "constants": CONSTANTS,
    }
    script = wire("folding_stepper", [step, axis, inputs, gamma, variance], parts)
    plot.js_on_change("inner_width", script)
    return stack(controls(step, back, forth), controls(axis, gamma, variance), inputs, said, plot, key)
