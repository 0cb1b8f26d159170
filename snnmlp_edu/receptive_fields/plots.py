"""Figures of receptive fields: plain arrays in, a matplotlib `Figure` out, in the style of `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..plots import MEMBRANE, PALETTE, REFERENCE

MARKERS = "osD^vP"


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
    figure = Figure(figsize=(0.78 * (columns + 0.4) * len(arrays), 0.78 * rows + 0.4), layout="constrained")
    blocks = figure.subfigures(1, len(arrays), squeeze=False)[0]
    for block, (name, maps) in zip(blocks, arrays.items(), strict=True):
        block.suptitle(name, fontsize="medium")
        panels = block.subplots(rows, columns, squeeze=False).flatten()
        for panel, field in zip(panels, maps, strict=False):
            limit = np.abs(field).max() or 1.0
            panel.imshow(field, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        for panel in panels:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        for panel in panels[len(maps) :]:
            panel.set_axis_off()
    return figure


def plot_fractions(
    rows: Sequence[str], groups: Mapping[str, Sequence[tuple[float, float, float]]], xlabel: str
) -> Figure:
    """Fractions with their intervals: one row for each layer, one mark in it for each network.

    Args:
        rows: labels next to each row, from the top.
        groups: name -> for each row the fraction and both ends of its interval.
        xlabel: what the fractions are.
    """
    figure = Figure(figsize=(7, 0.35 * len(rows) * len(groups) + 1), layout="constrained")
    ax = figure.subplots()
    spacing = 0.7 / max(1, len(groups))
    for index, (name, entries) in enumerate(groups.items()):
        heights = [row + (index - (len(groups) - 1) / 2) * spacing for row in range(len(rows))]
        values = np.array(entries, dtype=float).reshape(-1, 3)
        ax.errorbar(
            values[:, 0],
            heights,
            xerr=np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]).clip(0),
            fmt=MARKERS[index % len(MARKERS)],
            color=_color(index),
            linewidth=1.5,
            capsize=3,
            label=name,
        )
    ax.set(yticks=range(len(rows)), xlabel=xlabel, xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticklabels(rows)
    ax.grid(axis="x", color="0.9")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    return figure


def plot_unexplained(groups: Mapping[str, ArrayLike], threshold: float, xlabel: str) -> Figure:
    """What part of the fits leaves at most so much unexplained, for every threshold at once.

    Args:
        groups: name -> unexplained variance of each fit; NaN stands for a field without a fit.
        threshold: where the line is drawn that the text uses.
        xlabel: label below the axis.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    ax = figure.subplots()
    styles = ("-", "--", "-.", ":")
    for index, (name, values) in enumerate(groups.items()):
        values = np.asarray(values, dtype=float)
        known = np.sort(values[~np.isnan(values)])
        share = np.arange(1, len(known) + 1) / max(1, len(values))
        ax.step(
            np.r_[0, known, 1],
            np.r_[0, share, len(known) / max(1, len(values))],
            where="post",
            color=_color(index),
            linestyle=styles[index % len(styles)],
            label=name,
        )
    ax.axvline(threshold, color="0.7", linewidth=1, zorder=0)
    ax.set(xlabel=xlabel, ylabel="part of all units", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(fontsize="small")
    return figure


def plot_shape_plane(groups: Mapping[str, tuple[ArrayLike, ArrayLike]], limit: float = 1.2) -> Figure:
    """The plane of shapes: how many periods fit into a field along the wave (n_x) and across it (n_y).

    Args:
        groups: name -> n_x and n_y of each fit.
        limit: end of both axes; values beyond are drawn at the edge.
    """
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    ax = figure.subplots()
    for index, (name, (nx, ny)) in enumerate(groups.items()):
        ax.scatter(
            np.minimum(np.asarray(nx), limit),
            np.minimum(np.asarray(ny), limit),
            s=26,
            marker=MARKERS[index % len(MARKERS)],
            facecolors="none" if index else _color(index),
            edgecolors=_color(index),
            alpha=0.75,
            label=name,
            clip_on=False,
        )
    ax.plot([0, limit], [0, limit], color="0.7", linewidth=1, zorder=0)
    ax.set(
        xlabel="$n_x = s_x f$ (along the wave)",
        ylabel="$n_y = s_y f$ (across it)",
        xlim=(0, limit),
        ylim=(0, limit),
        aspect="equal",
    )
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def _color(index: int) -> str:
    """The first is what the figure is about, the second what it is compared with."""
    return (MEMBRANE, REFERENCE, *PALETTE[1:])[index % (len(PALETTE) + 1)]
