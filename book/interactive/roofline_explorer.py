"""The time of a training step, by arithmetic or by memory: choose network, batch, steps and device."""

from __future__ import annotations

import json
from typing import Any

from bokeh.models import Column, ColumnDataSource, FactorRange, Range1d

from snnmlp_edu.data import path
from snnmlp_edu.plots import PALETTE, REFERENCE

from .style import controls, dot, legend, line, panel, select, slider, spoken, stack, wire

NAMES = {"mlp_spe_t": "MLP-SPE-T", "mlp_spe_s": "MLP-SPE-S"}
# Bytes that an image of 224 px keeps at each time step in 32 bits, as chapter 13 counts them.
KEPT = {"mlp_spe_t": 152e6, "mlp_spe_s": 187e6}
# The device of chapter 13: operations and bytes a second, its memory, and the share that a training reaches.
PEAK, MEMORY_SPEED, MEMORY, EFFICIENCY = 312e12, 2.0e12, 80e9, 0.3
BATCH, STEPS = 64, 4
WEIGHT_BYTES = 12  # each weight, its gradient and its momentum
LONGER, SHORTER = "#000000", "#808080"


def networks() -> dict[str, dict[str, Any]]:
    """Multiplications of an image of 224 px, bytes that it keeps, and weights, from the stored counts."""
    stored = json.loads((path() / "cost_at_224.json").read_text(encoding="utf-8"))
    return {
        name: {
            "stem": stored[name]["stem_macs"],
            "dense": stored[name]["dense_macs"] / stored[name]["time_steps"],
            "kept": KEPT[name],
            "parameters": stored[name]["parameters"],
        }
        for name in NAMES
    }


def build() -> Column:
    """The controls, the sentence, the roofline and the two times."""
    network = select("network", list(NAMES.items()), "mlp_spe_t")
    numbers = select("numbers", [("2", "half precision"), ("4", "32 bits")], "2")
    batch = slider("images in a step", 1, 256, 1, BATCH, name="batch")
    steps = slider("time steps T", 1, 16, 1, STEPS, name="steps")
    peak = slider("arithmetic, 10¹² operations a second", 8, 1000, 8, PEAK / 1e12, name="peak")
    speed = slider(
        "memory, 10¹² bytes a second", 0.1, 8, 0.1, MEMORY_SPEED / 1e12, format="0.0", name="speed"
    )
    efficiency = slider("efficiency η", 0.1, 1, 0.05, EFFICIENCY, format="0.00", name="efficiency")

    # Filled by the script when the page is ready.
    roof = ColumnDataSource({"intensity": [], "best": [], "reached": []}, name="roof")
    here = ColumnDataSource({"intensity": [], "reached": []}, name="here")
    times = ColumnDataSource({"what": [], "seconds": [], "color": []}, name="times")
    names = ("seconds", "arithmetic", "memory", "bytes", "intensity", "ridge")
    result = ColumnDataSource({name: [] for name in names}, name="result")
    above = panel(
        260,
        x_range=Range1d(1, 10_000),
        y_range=Range1d(0.05, 1500),
        x_axis_type="log",
        y_axis_type="log",
        x_axis_label="operations for each byte",
        y_axis_label="10¹² operations a second",
    )
    above.line("intensity", "best", color=REFERENCE, line_width=2, line_dash="dashed", source=roof)
    above.line("intensity", "reached", color="#000000", line_width=3, source=roof)
    above.scatter("intensity", "reached", size=14, color=PALETTE[4], line_color="black", source=here)
    below = panel(
        130,
        y_range=FactorRange("memory", "arithmetic"),
        x_range=Range1d(0, 1),
        x_axis_label="seconds for a step",
    )
    below.hbar("what", right="seconds", height=0.6, color="color", source=times)
    for plot in (above, below):
        plot.min_border_left = 84

    key = legend(
        {
            "the roof": line("#000000"),
            "the data sheet's": line(REFERENCE, "dashed", 2),
            "your training": dot(PALETTE[4], "#000000"),
            "the longer time": line(LONGER, width=10),
            "the shorter": line(SHORTER, width=10),
        }
    )
    said = spoken()
    said.min_height = 110
    widgets = [network, numbers, batch, steps, peak, speed, efficiency]
    parts = {
        **{"network": network, "numbers": numbers, "batch": batch, "steps": steps, "peak": peak},
        **{"speed": speed, "efficiency": efficiency, "roof": roof, "here": here, "times": times},
        **{"result": result, "seconds_range": below.x_range, "said": said},
        "constants": {
            "networks": networks(),
            "room": MEMORY,
            "weight_bytes": WEIGHT_BYTES,
            "colors": [LONGER, SHORTER],
            "ends": [1, 10_000],
        },
    }
    wire("roofline_explorer", widgets, parts)
    return stack(controls(*widgets), said, above, below, key)
