"""What a comparison of two variants can find: choose seeds, spread, images, and what is true."""

from __future__ import annotations

from bokeh.models import Button, Column, ColumnDataSource, CustomJS, Range1d, Span

from snnmlp_edu.ledger.intervals import ALPHA, POWER
from snnmlp_edu.ledger.statistics import FREEDOM
from snnmlp_edu.plots import PALETTE, REFERENCE

from .style import controls, dot, legend, line, panel, select, slider, spoken, stack, wire

IMAGES = (1000, 2000, 5000, 10_000, 50_000)
MOST = 30  # seeds of each variant
MANY = 100  # seeds that the sentence compares with
EXPERIMENTS = 20
FOUND, LOST, WRONG = "#000000", "#9A9A9A", "#B00020"


def build() -> Column:
    """The controls, the sentence, the chance against the number of seeds, and twenty experiments."""
    seeds = slider("seeds of each variant", 2, MOST, 1, 3, name="seeds")
    spread = slider("spread of one run, points", 0.1, 3, 0.1, 1, format="0.0", name="spread")
    options = [(str(count), f"{count:,}") for count in IMAGES]
    images = select("test images", options, str(IMAGES[0]))
    difference = slider("true difference, points", 0, 10, 0.1, 2, format="0.0", name="difference")
    accuracy = slider("accuracy, %", 50, 98, 1, 75, name="accuracy")
    again = Button(label=f"{EXPERIMENTS} other experiments", margin=(6, 12, 6, 12))

    curve = ColumnDataSource({"seeds": [], "alone": [], "both": []}, name="curve")
    here = ColumnDataSource({"seeds": [], "chance": []}, name="here")
    above = panel(
        200,
        x_range=Range1d(1.5, MOST + 0.5),
        y_range=Range1d(0, 1.04),
        x_axis_label="seeds of each variant",
        y_axis_label="chance to separate",
    )
    above.line("seeds", "alone", color="black", line_width=2, source=curve)
    above.line("seeds", "both", color=PALETTE[4], line_width=3, line_dash="dashed", source=curve)
    above.scatter("seeds", "chance", size=13, color=PALETTE[4], line_color="black", source=here)
    asked = Span(location=POWER, dimension="width", line_color=REFERENCE, line_dash="dotted", line_width=2)
    above.add_layout(asked)
    above.xaxis.ticker = [2, 5, 10, 15, 20, 25, 30]
    first = legend(
        {
            "these very test images": line("#000000"),
            "seeds and test images": line(PALETTE[4], "dashed"),
            "you": dot(PALETTE[4], "#000000"),
            f"{100 * POWER:.0f} %": line(REFERENCE, "dotted", 2),
        }
    )

    columns = ("number", "difference", "low", "high", "color", "one", "other")
    experiments = ColumnDataSource({name: [] for name in columns}, name="experiments")
    below = panel(
        270,
        x_range=Range1d(-10, 10),
        y_range=Range1d(EXPERIMENTS + 1, 0),
        x_axis_label="difference found, and its interval, points",
        y_axis_label="experiment",
    )
    true = Span(dimension="height", line_color=PALETTE[4], line_width=2)
    zero = Span(location=0, dimension="height", line_color=REFERENCE, line_dash="dashed", line_width=2)
    below.add_layout(zero)
    below.add_layout(true)
    below.segment("low", "number", "high", "number", color="color", line_width=3, source=experiments)
    below.scatter("difference", "number", color="color", size=7, source=experiments)
    below.yaxis.ticker = [1, 5, 10, 15, 20]
    second = legend(
        {
            "separated": line(FOUND),
            "not separated": line(LOST),
            "separated, and the wrong way round": line(WRONG),
            "true difference": line(PALETTE[4], width=2),
            "no difference": line(REFERENCE, "dashed", 2),
        }
    )

    said = spoken()
    said.min_height = 110
    names = ("interval", "alone", "both", "many", "detectable")
    result = ColumnDataSource({name: [] for name in names}, name="result")
    series = ColumnDataSource({"number": [1]})
    another = CustomJS(args={"series": series}, code="series.data = {number: [series.data.number[0] + 1]};")
    again.js_on_event("button_click", another)
    widgets = [seeds, spread, images, difference, accuracy]
    parts = {
        **{"seeds": seeds, "spread": spread, "images": images, "difference": difference},
        **{"accuracy": accuracy, "curve": curve, "here": here, "experiments": experiments},
        **{"result": result, "series": series, "true_line": true, "points": below.x_range, "said": said},
        "constants": {
            **{"alpha": ALPHA, "power": POWER, "freedom": FREEDOM, "most": MOST, "many": MANY},
            "count": EXPERIMENTS,
            "colors": [FOUND, LOST, WRONG],
        },
    }
    wire("power_explorer", [*widgets, again], parts)
    return stack(controls(*widgets, again), said, above, first, below, second)
