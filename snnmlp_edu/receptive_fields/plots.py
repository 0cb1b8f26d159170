"""Figures of receptive fields: plain arrays in, a matplotlib `Figure` out, in the style of `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike


def plot_fields(groups: Mapping[str, ArrayLike], columns: int = 4) -> Figure:
    """Receptive fields of several networks side by side, one block for each.

    Each field has a colour scale of its own, red where brighter pixels raise the response, blue where they
    lower it, white at zero.

    Args:
        groups: heading -> fields `[N, H, W]`.
        columns: fields per row of a block.
    """
    arrays = {name: np.asarray(maps) for name, maps in groups.items()}
    rows = max(-(-len(maps) // columns) for maps in arrays.values())
    figure = Figure(figsize=(0.9 * (columns + 0.4) * len(arrays), 0.9 * rows + 0.4), layout="constrained")
    blocks = figure.subfigures(1, len(arrays), squeeze=False)[0]
    for block, (name, maps) in zip(blocks, arrays.items(), strict=True):
        block.suptitle(name, fontsize="medium")
        panels = block.subplots(rows, columns, squeeze=False).flatten()
        for panel, field in zip(panels, maps, strict=False):
            limit = np.abs(field).max() or 1.0
            panel.imshow(field, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        for panel in panels:
            _frame(panel)
        for panel in panels[len(maps) :]:
            panel.set_axis_off()
    return figure


def plot_fits(fields: ArrayLike, fits: ArrayLike, headings: Sequence[str]) -> Figure:
    """Fields above their fits above what is left over, each column with one colour scale.

    Args:
        fields: `[N, H, W]`.
        fits: the fitted functions, in the same shape.
        headings: one for each column.
    """
    fields, fits = np.asarray(fields), np.asarray(fits)
    rows = {"field": fields, "fit": fits, "left over": fields - fits}
    figure = Figure(figsize=(1.05 * len(fields) + 0.6, 3.7), layout="constrained")
    panels = figure.subplots(3, len(fields), squeeze=False)
    for row, (name, maps) in zip(panels, rows.items(), strict=True):
        row[0].set_ylabel(name)
        for panel, image, field in zip(row, maps, fields, strict=True):
            limit = np.abs(field).max() or 1.0
            panel.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            _frame(panel)
    for panel, heading in zip(panels[0], headings, strict=True):
        panel.set_title(heading, fontsize="small")
    return figure


def _frame(panel: Axes) -> None:
    """A thin line around a field, so that one whose edge is white does not run into the page."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set(visible=True, color="0.75", linewidth=0.6)
