"""Which pixels reach a token after k blocks, for axial, full and no token mixing."""

from __future__ import annotations

from bokeh.models import Column, ColumnDataSource, CustomJS, Range1d

from snnmlp_edu.plots import MEMBRANE, REFERENCE

from .style import controls, panel, select, slider, spoken, stack, wire

GRID, PATCH = 8, 4  # tokens a side, pixels a side of a token: 32 x 32 images, as in chapter 08


def build() -> Column:
    """The controls, the image cut into tokens, and the sentence that counts what arrives."""
    mixing = select("token mixing", ["axial", "full", "none"], "axial")
    blocks = slider("blocks", 0, 3, 1, 1, name="blocks")
    line = slider("row", 1, GRID, 1, 3, name="row")
    place = slider("column", 1, GRID, 1, 5, name="column")

    columns = [k % GRID + 1 for k in range(GRID * GRID)]
    rows = [k // GRID + 1 for k in range(GRID * GRID)]
    none = [0] * GRID**2  # filled by the script when the page is ready
    empty = {"ways": none, "color": ["white"] * GRID**2, "text": [""] * GRID**2}
    tokens = ColumnDataSource({"x": columns, "y": rows, **empty}, name="tokens")
    chosen = ColumnDataSource({"x": [place.value], "y": [line.value]})

    plot = panel(
        380,
        x_range=Range1d(0.4, GRID + 0.6),
        y_range=Range1d(GRID + 0.6, 0.4),
        x_axis_label=f"column of tokens, {PATCH} pixels wide",
        y_axis_label="row of tokens",
        match_aspect=True,
        max_width=430,
    )
    plot.title.text = "Click or tap a token to choose it."
    plot.title.text_font_size, plot.title.text_font_style = "14px", "normal"
    plot.grid.grid_line_color = None
    plot.rect("x", "y", 1, 1, fill_color="color", line_color=REFERENCE, line_width=0.5, source=tokens)
    plot.text(
        "x", "y", "text", text_align="center", text_baseline="middle", text_font_size="12px", source=tokens
    )
    plot.rect("x", "y", 0.94, 0.94, fill_color=None, line_color=MEMBRANE, line_width=3, source=chosen)
    for axis in plot.axis:
        axis.ticker = list(range(1, GRID + 1))

    choose = (
        "const within = value => Math.min(side, Math.max(1, Math.round(value)));"
        "line.value = within(this.y); place.value = within(this.x);"
    )
    tapped = CustomJS(args={"line": line, "place": place, "side": GRID}, code=choose)
    plot.js_on_event("tap", tapped)
    plot.js_on_event("doubletap", tapped)  # as Bokeh names the second of two quick ones

    said = spoken()
    widgets = [mixing, blocks, line, place]
    parts = {"mixing": mixing, "blocks": blocks, "line": line, "place": place, "patch": PATCH}
    wire("reach_explorer", widgets, parts | {"tokens": tokens, "chosen": chosen, "said": said})
    return stack(controls(*widgets), said, plot)
