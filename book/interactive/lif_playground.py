"""One neuron under the reader's hands: leak, threshold, gain, reset, and a current or a train of spikes."""

from __future__ import annotations

from bokeh.models import Column, ColumnDataSource, Range1d, Span

from snnmlp_edu.plots import CURRENT, MEMBRANE, REFERENCE, SPIKE

from .style import controls, panel, select, slider, spoken, stack, wire

STEPS = 24


def build() -> Column:
    """The controls, the three panels and the sentence below them, in the state of the released neuron."""
    leak = slider("leak β", 0, 1, 0.05, 0.5, name="leak")
    threshold = slider("threshold θ", 0.1, 2, 0.05, 1, format="0.00", name="threshold")
    gain = slider("input gain g", 0.1, 1, 0.05, 0.5, name="gain")
    reset = select("reset", ["hard", "soft"], "hard")
    kinds = [("constant", "constant current"), ("train", "train of spikes")]
    source = select("input", kinds, "constant")
    strength = slider("strength", 0, 4, 0.05, 1.5, name="strength")
    period = slider("steps between input spikes", 1, 12, 1, 3, name="period", visible=False)

    # Filled by the script when the page is ready; the number of steps is the length of these columns.
    empty = {name: [0.0] * STEPS for name in ("step", "current", "before", "after", "spikes")}
    steps = ColumnDataSource(empty, name="steps")
    membrane, fired = ColumnDataSource({"x": [], "y": []}), ColumnDataSource({"step": []}, name="fired")

    shared = Range1d(0, STEPS + 0.6)
    above = panel(90, x_range=shared, y_axis_label="current")
    above.vbar(x="step", top="current", width=0.5, color=CURRENT, source=steps)
    above.y_range.start = 0
    middle = panel(220, x_range=shared, y_axis_label="membrane")
    middle.line("x", "y", color=MEMBRANE, line_width=2, source=membrane)
    middle.scatter("step", "before", color=MEMBRANE, size=6, source=steps)
    mark = Span(location=1, dimension="width", line_color=REFERENCE, line_dash="dashed", line_width=1.5)
    middle.add_layout(mark)
    below = panel(110, x_range=shared, y_range=Range1d(0, 1), x_axis_label="time step", y_axis_label="spikes")
    below.segment("step", 0.15, "step", 0.85, color=SPIKE, line_width=4, source=fired)
    below.yaxis.major_label_text_font_size = "0px"
    below.yaxis.major_tick_line_color = None
    below.ygrid.grid_line_color = None
    for plot in (above, middle, below):
        plot.yaxis.axis_label_standoff = 6
        plot.min_border_left = 62
        plot.yaxis.ticker.desired_num_ticks = 4
    for plot in (above, middle):
        plot.xaxis.major_label_text_font_size = "0px"

    said = spoken()
    widgets = [leak, threshold, gain, reset, source, strength, period]
    parts = {
        **{"leak": leak, "threshold": threshold, "gain": gain, "reset": reset, "input": source},
        **{"strength": strength, "period": period, "steps": steps, "membrane": membrane},
        **{"fired": fired, "mark": mark, "said": said},
    }
    wire("lif_playground", widgets, parts)
    return stack(controls(*widgets), said, above, middle, below)
