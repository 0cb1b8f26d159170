"""The firing rate of an integrate-and-fire neuron beside a ReLU: choose steps, threshold and reset."""

from __future__ import annotations

from bokeh.models import Column, ColumnDataSource, Range1d, Span

from snnmlp_edu.plots import REFERENCE, SPIKE

from .style import controls, legend, line, panel, select, slider, spoken, stack, wire

# Currents and thresholds are whole numbers of 256ths: every sum of them is exact.
CURRENTS = [k / 256 for k in range(-128, 577)]
ERROR, BOUND = "#000000", "#CC79A7"


def build() -> Column:
    """The controls, the sentence, the rates over the current, and their distance from the ReLU."""
    steps = slider("time steps T", 1, 64, 1, 4, name="steps")
    threshold = slider("threshold θ", 0.25, 2, 0.125, 1, format="0.000", name="threshold")
    reset = select("reset", [("soft", "soft: takes θ away"), ("hard", "hard: empties the neuron")], "soft")

    # Filled by the script when the page is ready.
    names = ("current", "spikes", "rate", "relu", "error")
    rates = ColumnDataSource(
        {name: CURRENTS if name == "current" else [0.0] * len(CURRENTS) for name in names}, name="rates"
    )
    result = ColumnDataSource({"largest": [], "current": [], "bound": []}, name="result")

    shared = Range1d(CURRENTS[0], CURRENTS[-1])
    above = panel(230, x_range=shared, y_range=Range1d(-0.05, 1.1), y_axis_label="spikes per step")
    above.line("current", "relu", color=REFERENCE, line_width=2, line_dash="dashed", source=rates)
    above.step("current", "rate", mode="after", color=SPIKE, line_width=2, source=rates)
    below = panel(
        170,
        x_range=shared,
        y_range=Range1d(-1.05, 0.1),
        x_axis_label="constant current x",
        y_axis_label="rate less ReLU",
    )
    below.line("current", "error", color=ERROR, line_width=1.5, source=rates)
    bound = Span(location=-1, dimension="width", line_color=BOUND, line_dash="dotted", line_width=3)
    below.add_layout(bound)
    for plot in (above, below):
        plot.yaxis.axis_label_standoff = 6
        plot.min_border_left = 62
        plot.yaxis.ticker.desired_num_ticks = 4
    above.xaxis.major_label_text_font_size = "0px"

    key = legend(
        {
            "firing rate": line(SPIKE),
            "ReLU of x / θ, cut off at one spike per step": line(REFERENCE, "dashed", 2),
            "how far the rate is below it": line(ERROR, width=2),
            "1 / T below it": line(BOUND, "dotted"),
        }
    )
    said = spoken()
    said.min_height = 90
    widgets = [steps, threshold, reset]
    parts = {
        **{"steps": steps, "threshold": threshold, "reset": reset, "rates": rates, "result": result},
        **{"bound": bound, "said": said},
    }
    wire("rate_explorer", widgets, parts)
    return stack(controls(*widgets), said, above, below, key)
