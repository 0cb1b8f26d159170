"""One neuron and its way back: surrogate, slope, leak and reset against the gradient at every current."""

from __future__ import annotations

from bokeh.models import Column, ColumnDataSource, CustomJS, Range1d, Span

from snnmlp_edu.model.surrogates import SURROGATES
from snnmlp_edu.plots import CURRENT, MEMBRANE, REFERENCE, SPIKE

from .style import controls, panel, select, slider, spoken, stack, wire

CURRENTS = (0.7, 1.1, 0.9, 1.4, 1.3, 0.5, 0.6, 1.3, 0.5, 0.6, 0.7, 1.0)  # those of the figure in chapter 02
THRESHOLD, GAIN = 1.0, 0.5
SLOPE = "#7B5EA7"  # no colour that stands for spikes, membranes and currents
HEIGHT = 2.4  # of the highest membrane that the controls can make
MARKS = (HEIGHT + 0.1, HEIGHT + 0.4)  # where a spike is drawn
HIGHEST_SLOPE = 2  # at its default slope every surrogate stays below
HIGHEST_GRADIENT = {"last": 1, "all": 4}
LOSSES = [("last", "the spike of the last step"), ("all", "the sum of all spikes")]


def build() -> Column:
    """The controls, the sentence and the three panels, in the state of the chapter's figure."""
    surrogate = select("surrogate", list(SURROGATES), "sigmoid")
    slope = slider("slope k", 0.25, 25, 0.25, 4, format="0.00", name="slope")
    leak = slider("leak β", 0, 1, 0.05, 0.8, format="0.00", name="leak")
    reset = select("reset", ["hard", "soft"], "hard")
    strength = slider("currents times", 0, 2, 0.05, 1, format="0.00", name="strength")
    loss = select("loss", LOSSES, "last")

    # Filled by the script when the page is ready; the number of steps is the length of these columns.
    names = ("step", "current", "before", "after", "spikes", "slope", "gradient")
    steps = ColumnDataSource({name: [0.0] * len(CURRENTS) for name in names}, name="steps")
    membrane = ColumnDataSource({"x": [], "y": []})
    fired = ColumnDataSource({"step": [], "low": [], "high": []})
    walls = ColumnDataSource({"x": []}, name="walls")

    shared = Range1d(0, len(CURRENTS) + 0.7)
    above = panel(210, x_range=shared, y_range=Range1d(-0.1, MARKS[1] + 0.1), y_axis_label="membrane")
    middle = panel(110, x_range=shared, y_range=Range1d(0, HIGHEST_SLOPE), y_axis_label="slope φ")
    below = panel(
        150, x_range=shared, y_range=Range1d(0, 1), x_axis_label="time step", y_axis_label="gradient"
    )
    for plot in (above, middle, below):
        plot.vspan(x="x", color="#9A9A9A", line_width=4, source=walls)
        plot.yaxis.axis_label_standoff = 6
        plot.min_border_left = 66
        plot.xaxis.ticker = [1, 4, 8, 12]
        plot.yaxis.ticker.desired_num_ticks = 4
    above.line("x", "y", color=MEMBRANE, line_width=2, source=membrane)
    above.scatter("step", "before", color=MEMBRANE, size=6, source=steps)
    mark = Span(location=THRESHOLD, dimension="width", line_color=REFERENCE, line_dash="dashed")
    mark.line_width = 1.5
    above.add_layout(mark)
    middle.vbar(x="step", top="slope", width=0.6, color=SLOPE, source=steps)
    below.vbar(x="step", top="gradient", width=0.6, color=CURRENT, source=steps)
    above.segment("step", "low", "step", "high", color=SPIKE, line_width=4, source=fired)
    for plot in (above, middle):
        plot.xaxis.major_label_text_font_size = "0px"

    said = spoken()
    defaults = {name: default for name, (_, default) in SURROGATES.items()}
    widgets = [surrogate, slope, leak, reset, strength, loss]
    parts = {
        **{"surrogate": surrogate, "slope": slope, "leak": leak, "reset": reset, "strength": strength},
        **{"loss": loss, "steps": steps, "membrane": membrane, "fired": fired, "walls": walls, "said": said},
        **{"slopes": middle.y_range, "gradients": below.y_range},
        "constants": {
            "currents": list(CURRENTS),
            "threshold": THRESHOLD,
            "gain": GAIN,
            "defaults": defaults,
            "marks": list(MARKS),
            "highest": HIGHEST_GRADIENT,
        },
    }
    preset = CustomJS(args={"slope": slope, "defaults": defaults}, code="slope.value = defaults[this.value]")
    surrogate.js_on_change("value", preset)  # slopes of two surrogates are not the same thing
    wire("gradient_explorer", widgets, parts)
    return stack(controls(*widgets), said, above, middle, below)
